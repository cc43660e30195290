"""How names and keys that somebody chooses are spelt, and what each spelling is in words: nobody is shown a pattern."""

COLOR = r"^(#[0-9a-fA-F]{6})?$"
DIGEST = r"^sha256:[0-9a-f]{64}$"
ENVIRONMENT = r"^[A-Za-z0-9_-]+$"
HOST = r"^[A-Za-z0-9._-]{1,64}$"
IDEMPOTENCY_KEY = r"^[\x21-\x7e]+$"
REPOSITORY = r"^[\w.-][\w. -]*$"
RULE = r"^[a-z0-9][a-z0-9_-]*$"
SLUG = r"^[a-z0-9][a-z0-9-]{0,62}$"
TAG = r"^[a-z0-9][a-z0-9_.-]*$"

WORDS = {
    COLOR: "a color is # and six hexadecimal digits, as #0a7cff, or nothing",
    DIGEST: "a digest is sha256: and 64 hexadecimal digits in lower case",
    ENVIRONMENT: "an environment's name holds only the letters a to z and A to Z, digits, _ and -",
    HOST: "a host's id has 1 to 64 characters: only the letters a to z and A to Z, digits, '.', _ and -",
    IDEMPOTENCY_KEY: "a key holds only printable ASCII characters, and no spaces",
    REPOSITORY: "a repository's name holds only letters, digits, spaces, '.', _ and -, and begins with no space",
    RULE: "a rule's name holds only the letters a to z, digits, _ and -, no spaces, and begins with a letter or digit",
    SLUG: "a slug has 1 to 63 characters: only the letters a to z, digits and -, no spaces, and - not as the first",
    TAG: "a tag holds only the letters a to z, digits, '.', _ and -, no spaces, and begins with a letter or digit",
}
