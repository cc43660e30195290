"""What git says of an origin that cannot be read: one that refuses us stays so, one that is only away comes back."""

from base64 import b64encode
from urllib.parse import unquote, urlsplit

from activities.workbench.git import GitError
from models.domain.errors import StageFailed

UNAUTHORIZED = (
    "Authentication failed",
    "could not read Username",
    "could not read Password",
    "Permission denied",
    "The requested URL returned error: 403",
)
UNKNOWN_KEY = "Host key verification failed"
_NOT_FOUND = (
    "does not appear to be a git repository",
    "' not found",
    "Repository not found",
    "could not be found",
    "The requested URL returned error: 404",
)
_ELSEWHERE = ("The requested URL returned error: 30",)
_UNKNOWN_HOST = ("Could not resolve host", "Name or service not known")
_AWAY = "Temporary failure in name resolution"

_REFUSALS = (
    (
        "repository_unauthorized",
        UNAUTHORIZED,
        "The repository does not let us in: give this service's user a deploy key, or a login in its .netrc",
    ),
    (
        "repository_host_unverified",
        (UNKNOWN_KEY,),
        "The repository's host is not known to ssh: add its key to the known_hosts of this service's user",
    ),
    (
        "repository_not_found",
        _NOT_FOUND,
        "There is no repository at its URL, or it is hidden from us: correct the URL, or give this service access",
    ),
    (
        "repository_moved_away",
        _ELSEWHERE,
        "The repository's URL redirects to another place, where other rules may hold: register that one",
    ),
    (
        "repository_host_unknown",
        _UNKNOWN_HOST,
        "The repository's host has no address: correct the URL, or mend name resolution on this machine",
    ),
)


def refusal(error: GitError) -> StageFailed | None:
    """Say what an operator must do before another try can help; None where waiting may be enough."""
    if _AWAY in error.stderr:
        return None
    for code, words, advice in _REFUSALS:
        if any(word in error.stderr for word in words):
            return StageFailed(code, f"{advice}; then retry the mission.", said=error.stderr)
    return None


def login_apart(url: str) -> tuple[str, dict[str, str]]:
    """Take a login out of a URL of https: all users of a machine see what commands are given, not their environment.

    The URL, and the variables by which git logs in there and nowhere else. To a user name alone a `.netrc` may have the
    password. A login for ssh is a key: a password there is left out.
    """
    parts = urlsplit(url) if "://" in url else None
    if parts is None or parts.password is None:
        return url, {}
    user, host = parts.username or "", parts.netloc.rpartition("@")[2]
    if parts.scheme != "https":
        return parts._replace(netloc=f"{user}@{host}").geturl(), {}
    bare = parts._replace(netloc=host).geturl()
    login = b64encode(f"{unquote(user)}:{unquote(parts.password)}".encode()).decode()
    header = {"GIT_CONFIG_KEY_0": f"http.{bare}.extraHeader", "GIT_CONFIG_VALUE_0": f"Authorization: Basic {login}"}
    return bare, {"GIT_CONFIG_COUNT": "1", **header}
