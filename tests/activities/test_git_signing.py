"""The service key: made once, kept private, understood by OpenSSH and git."""

import os
import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from activities.workbench.signing import ServiceKey, verify
from models.domain.canonical import digest_of
from models.domain.errors import MissionControlError


def key_id_of(path: Path) -> str:
    return ServiceKey.load_or_create(path).key_id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "signing_key"


class TestLoadOrCreate:
    def test_made_once_and_private(self, path: Path) -> None:
        first, second = ServiceKey.load_or_create(path), ServiceKey.load_or_create(path)
        assert first.public_openssh == second.public_openssh
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert sorted(file.name for file in path.parent.iterdir()) == ["signing_key", "signing_key.allowed_signers"]

    def test_processes_that_start_at_once_get_the_same_key(self, path: Path) -> None:
        with ProcessPoolExecutor(4) as pool:
            assert len(set(pool.map(key_id_of, [path] * 8))) == 1

    def test_others_can_read_it(self, path: Path) -> None:
        ServiceKey.load_or_create(path)
        path.chmod(0o644)
        with pytest.raises(MissionControlError, match="chmod 600"):
            ServiceKey.load_or_create(path)

    @pytest.mark.parametrize("kind", [["-t", "ecdsa", "-N", ""], ["-t", "ed25519", "-N", "secret"]])
    def test_other_kinds_of_key(self, path: Path, kind: list[str]) -> None:
        path.parent.mkdir()
        subprocess.run(["ssh-keygen", "-q", *kind, "-f", str(path)], check=True)
        with pytest.raises(MissionControlError, match="without a passphrase"):
            ServiceKey.load_or_create(path)

    def test_not_a_key(self, path: Path) -> None:
        path.parent.mkdir()
        os.close(os.open(path, os.O_CREAT, 0o600))
        with pytest.raises(MissionControlError) as refused:
            ServiceKey.load_or_create(path)
        assert refused.value.code == "signing_key_unusable"

    def test_older_keys_stay_allowed(self, path: Path) -> None:
        old = ServiceKey.load_or_create(path)
        path.unlink()
        new = ServiceKey.load_or_create(path)
        lines = new.allowed_signers.read_text().splitlines()
        assert lines == [old.allowed_signers_line(), new.allowed_signers_line()]

    def test_the_key_is_not_shown(self, path: Path) -> None:
        assert "_private" not in repr(ServiceKey.load_or_create(path))


def one_bit_off(data: bytes) -> Iterator[bytes]:
    """Give all that differs in one bit."""
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


class TestSigning:
    def test_verifies_and_repeats(self, path: Path) -> None:
        key = ServiceKey.load_or_create(path)
        signature = key.sign(b"payload")
        assert key.sign(b"payload") == signature
        assert verify(key.public_openssh, b"payload", signature)

    def test_anything_else_does_not(self, path: Path) -> None:
        key = ServiceKey.load_or_create(path)
        other = ServiceKey.load_or_create(path.with_name("other"))
        signature = key.sign(b"payload")
        assert not verify(key.public_openssh, b"payloae", signature)
        assert not verify(other.public_openssh, b"payload", signature)
        assert not verify(key.public_openssh, b"payload", "not base64!")
        assert not verify(key.public_openssh, b"payload", "")
        assert not verify("no key", b"payload", signature)

    def test_no_bit_can_be_changed(self, path: Path) -> None:
        key = ServiceKey.load_or_create(path)
        digest = digest_of({"stage": "merge"})
        signature = key.sign(digest.encode())
        assert verify(key.public_openssh, digest.encode(), signature)
        for changed in one_bit_off(digest.encode()):
            assert not verify(key.public_openssh, changed, signature)
        for changed in one_bit_off(signature.encode()):
            assert not verify(key.public_openssh, digest.encode(), changed.decode("latin-1"))

    def test_openssh_agrees_on_key_and_fingerprint(self, path: Path) -> None:
        key = ServiceKey.load_or_create(path)
        shown = subprocess.run(["ssh-keygen", "-l", "-f", str(path)], check=True, stdout=subprocess.PIPE).stdout
        public = subprocess.run(["ssh-keygen", "-y", "-f", str(path)], check=True, stdout=subprocess.PIPE).stdout
        assert key.key_id in shown.decode()
        assert public.decode().startswith(key.public_openssh)
