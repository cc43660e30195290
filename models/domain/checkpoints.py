"""Signed checkpoints of the audit tree: notes in the C2SP `tlog-checkpoint` format, and the keys that verify them."""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key

from models.domain.errors import InvalidInput

_ED25519 = b"\x01"
_NOTE = re.compile(
    r"(?P<text>(?P<origin>[^\s+]+)\n(?P<size>0|[1-9][0-9]{0,18})\n(?P<root>\S+)\n(?P<extensions>(?:.+\n)*))"
    r"\n(?P<signatures>(?:— .+\n)+)"
)
_SIGNATURE = re.compile(r"— (\S+) (\S+)\n")
_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----\n?", re.DOTALL)


@dataclass(frozen=True)
class Checkpoint:
    """What was sealed up to some moment: the log's name, how many rows, and the root over them.

    The format lets a log add lines of its own, as `audit_counts` says them.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What is signed."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


def sign(checkpoint: Checkpoint, public_key: bytes, signer: Callable[[bytes], bytes]) -> str:
    """Write the note; `public_key` is the raw key of the signer."""
    text = checkpoint.text
    signature = base64.b64encode(_key_hash(checkpoint.origin, public_key) + signer(text.encode())).decode()
    return f"{text}\n— {checkpoint.origin} {signature}\n"


def read(note: str) -> Checkpoint:
    """Read a note without asking who signed it.

    Raises:
        InvalidInput: `checkpoint_malformed`.
    """
    return _parse(note)[0]


def verify(note: str, public_keys: Iterable[bytes]) -> Checkpoint:
    """Read a note that one of these raw keys has signed.

    Raises:
        InvalidInput: `checkpoint_malformed`, or `checkpoint_unsigned` by any of them.
    """
    checkpoint, signatures = _parse(note)
    by_hash = {_key_hash(checkpoint.origin, key): key for key in public_keys}
    for signature in signatures:
        key = by_hash.get(signature[:4])
        if key is not None and _is_signed(key, checkpoint.text.encode(), signature[4:]):
            return checkpoint
    told = f"no given key signed the checkpoint of size {checkpoint.size}; the log's key may have been rotated"
    raise InvalidInput("checkpoint_unsigned", f"{told}: give all `signing_keys` that `GET /status` lists")


def raw_key(openssh: str) -> bytes:
    """Give the 32 bytes of a public key that is written in OpenSSH's form.

    Raises:
        InvalidInput: `key_unreadable`.
    """
    try:
        key = load_ssh_public_key(openssh.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise _unreadable() from None
    return _bytes_of(key)


def raw_keys(text: str) -> list[bytes]:
    """Read a file of public keys: PEM blocks, or lines in OpenSSH's form; several, where keys were rotated.

    Raises:
        InvalidInput: `key_unreadable`.
    """
    blocks = _PEM.findall(text)
    lines = [line for line in _PEM.sub("", text).splitlines() if line.strip() and not line.startswith("#")]
    try:
        keys = [_bytes_of(load_pem_public_key(block.encode())) for block in blocks]
    except (ValueError, UnsupportedAlgorithm):
        raise _unreadable() from None
    keys += [raw_key(line) for line in lines]
    if not keys:
        raise _unreadable()
    return keys


def decoded(value: str) -> bytes:
    """Read base64 that is spelt in the one right way, so that no other text passes for it; raises ValueError."""
    found = base64.b64decode(value, validate=True)
    if base64.b64encode(found).decode() != value:
        raise ValueError("not the one right way")
    return found


def _parse(note: str) -> tuple[Checkpoint, list[bytes]]:
    found = _NOTE.fullmatch(note)
    try:
        if found is None or int(found["size"]) >= 2**63:
            raise ValueError("no note")
        root = decoded(found["root"])
        signed = [one for one in _SIGNATURE.findall(found["signatures"]) if one[0] == found["origin"]]
        signatures = [decoded(value) for _, value in signed]
        if len(root) != hashlib.sha256().digest_size:
            raise ValueError("no root")
    except ValueError:  # as binascii.Error is one
        raise InvalidInput("checkpoint_malformed", "this is no checkpoint of an audit log") from None
    extensions = tuple(found["extensions"].split("\n")[:-1])
    return Checkpoint(found["origin"], int(found["size"]), root, extensions), signatures


def _key_hash(name: str, public_key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:4]


def _is_signed(public_key: bytes, text: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, text)
    except InvalidSignature:
        return False
    return True


def _bytes_of(key: object) -> bytes:
    if not isinstance(key, Ed25519PublicKey):
        raise _unreadable()
    return key.public_bytes_raw()


def _unreadable() -> InvalidInput:
    return InvalidInput("key_unreadable", "give Ed25519 public keys, in PEM or as `ssh-ed25519 …` lines")
