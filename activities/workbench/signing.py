"""The service's Ed25519 key: one key signs the stage records and, in git's SSH form, the commits."""

import base64
import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from activities.workbench.files import draft_of, write_whole
from models.domain.checkpoints import decoded
from models.domain.errors import MissionControlError

PRINCIPAL = "mission-control"


@dataclass(frozen=True)
class ServiceKey:
    """Signs in the service's name. `path` is handed to `ssh-keygen`, the key itself never leaves this object."""

    path: Path
    _private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def load_or_create(cls, path: Path) -> "ServiceKey":
        """Load the key at `path`, or make it: when several processes start at once, all get the one that came first.

        Beside it stands `<path>.allowed_signers`, by which git accepts our commits; lines of older keys stay in it,
        so that what they signed remains ours.

        Raises:
            MissionControlError: `signing_key_unusable`, when others can read the file or it is no plain Ed25519 key.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _create(path)
        key = cls(path, _load(path))
        key._allow()
        return key

    @property
    def public_openssh(self) -> str:
        """The public key as `ssh-ed25519 AAAA…`."""
        return self._private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    @cached_property
    def key_id(self) -> str:
        """The fingerprint `ssh-keygen -l` shows: `SHA256:…`."""
        blob = base64.b64decode(self.public_openssh.split()[1])
        return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")

    @property
    def allowed_signers(self) -> Path:
        """The file for `gpg.ssh.allowedSignersFile`."""
        return self.path.with_name(self.path.name + ".allowed_signers")

    def allowed_signers_line(self, principal: str = PRINCIPAL) -> str:
        """One line of such a file: this key may sign for git as `principal`."""
        return f'{principal} namespaces="git" {self.public_openssh}'

    def sign(self, payload: bytes) -> str:
        """Sign bytes; base64, the same every time."""
        return base64.b64encode(self._private.sign(payload)).decode()

    def _allow(self) -> None:
        lines = self.allowed_signers.read_text(encoding="utf-8").splitlines() if self.allowed_signers.exists() else []
        if self.allowed_signers_line() not in lines:
            content = "\n".join([*lines, self.allowed_signers_line(), ""])
            write_whole(self.allowed_signers, content.encode())


def verify(public_key: str, payload: bytes, signature: str) -> bool:
    """Whether `signature` (base64) is that of `public_key` (OpenSSH form) over `payload`; nonsense is simply not."""
    try:
        key = load_ssh_public_key(public_key.encode())
        if not isinstance(key, Ed25519PublicKey):
            return False
        key.verify(decoded(signature), payload)
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True


def _create(path: Path) -> None:
    """Write the key under another name and link it: the file appears whole, and only if there is none."""
    private = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    draft = draft_of(path, private)
    try:
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def _load(path: Path) -> Ed25519PrivateKey:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise MissionControlError("signing_key_unusable", "Others can read the signing key: run `chmod 600` on it.")
    try:
        key = load_ssh_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise MissionControlError(
            "signing_key_unusable", "The signing key must be an Ed25519 key in OpenSSH form without a passphrase."
        )
    return key
