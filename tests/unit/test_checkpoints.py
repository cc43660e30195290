"""Signed checkpoints: their very bytes, who may have signed them, and keys in the forms that people have them in."""

import base64
import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from models.domain import checkpoints
from models.domain.checkpoints import Checkpoint, raw_key, raw_keys
from models.domain.errors import InvalidInput

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
CHECKPOINT = Checkpoint("mission-control/abc", 20_852_163, bytes(range(32)))
NOTE = checkpoints.sign(CHECKPOINT, PUBLIC, KEY.sign)


def test_a_note_is_what_the_format_says() -> None:
    text, signature = NOTE.split("\n\n")
    assert text == f"mission-control/abc\n20852163\n{base64.b64encode(bytes(range(32))).decode()}"
    dash, name, encoded = signature.rstrip("\n").split(" ")
    assert (dash, name) == ("\N{EM DASH}", "mission-control/abc")
    raw = base64.b64decode(encoded)
    assert raw[:4] == hashlib.sha256(b"mission-control/abc\n\x01" + PUBLIC).digest()[:4]
    KEY.public_key().verify(raw[4:], f"{text}\n".encode())


def test_a_key_is_known_by_its_published_hash() -> None:
    """The verifier key of the Go checksum database, and the key hash that stands in each of its notes."""
    known = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
    name, key_hash, encoded = known.split("+", 2)
    raw = base64.b64decode(encoded)
    assert checkpoints._key_hash(name, raw[1:]).hex() == key_hash


def test_a_signed_note_is_read_back() -> None:
    assert checkpoints.verify(NOTE, [OTHER, PUBLIC]) == CHECKPOINT
    assert checkpoints.read(NOTE) == CHECKPOINT


def test_lines_of_our_own_are_signed_with_it() -> None:
    extended = replace(CHECKPOINT, extensions=("workspaces 3 AAAA", "more"))
    note = checkpoints.sign(extended, PUBLIC, KEY.sign)
    assert note.startswith(CHECKPOINT.text + "workspaces 3 AAAA\nmore\n\n")
    assert checkpoints.verify(note, [PUBLIC]) == extended
    with pytest.raises(InvalidInput, match="no given key signed"):
        checkpoints.verify(note.replace("workspaces 3", "workspaces 2"), [PUBLIC])
    with pytest.raises(InvalidInput, match="no given key signed"):
        checkpoints.verify(note.replace("more\n", ""), [PUBLIC])


def test_another_signature_beside_ours_does_no_harm() -> None:
    both = NOTE + "\N{EM DASH} witness.example AAAAAAAA\n"
    assert checkpoints.verify(both, [PUBLIC]) == CHECKPOINT


def test_a_stranger_s_signature_is_none() -> None:
    with pytest.raises(InvalidInput, match="no given key signed") as refused:
        checkpoints.verify(NOTE, [OTHER])
    assert refused.value.code == "checkpoint_unsigned"


@pytest.mark.parametrize("position", range(len(NOTE)))
def test_no_character_can_be_changed(position: int) -> None:
    changed = NOTE[:position] + ("0" if NOTE[position] != "0" else "1") + NOTE[position + 1 :]
    with pytest.raises(InvalidInput):
        checkpoints.verify(changed, [PUBLIC])


def test_no_bit_can_be_changed() -> None:
    raw = NOTE.encode()
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((InvalidInput, UnicodeDecodeError)):
            checkpoints.verify(changed.decode(), [PUBLIC])
    for bit in range(8 * len(PUBLIC)):
        key = bytearray(PUBLIC)
        key[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidInput):
            checkpoints.verify(NOTE, [bytes(key)])


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n\n",
        NOTE.rstrip("\n"),
        NOTE.replace("20852163", "020852163"),
        NOTE.replace("20852163", "-1"),
        NOTE.replace("\N{EM DASH}", "-"),
        NOTE.split("\n\n")[0] + "\n",
    ],
)
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        checkpoints.read(note)
    assert refused.value.code == "checkpoint_malformed"


def test_keys_are_read_in_both_forms() -> None:
    public = KEY.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    ssh = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert raw_keys(pem) == raw_keys(ssh) == raw_keys(f"# ours\n{ssh} comment\n") == [PUBLIC] == [raw_key(ssh)]
    assert raw_keys(f"{pem}{ssh}\n{pem}") == [PUBLIC] * 3


def test_other_keys_are_refused() -> None:
    pem = X25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for text in ("", "nonsense", pem.decode(), "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(InvalidInput, match="Ed25519"):
            raw_keys(text)
