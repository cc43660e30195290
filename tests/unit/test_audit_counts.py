"""The signed counts: proved to who has one workspace's, and telling nothing of the others."""

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.audit_counts import count_leaf, count_proof, counts_of, counts_over, proves_count
from models.domain.checkpoints import Checkpoint
from tests.fixtures.proofs import proves_inclusion

workspaces = st.lists(st.tuples(st.text(min_size=1), st.integers(1, 2**60)), min_size=1, max_size=40)
ROOT = bytes(range(32))


def salt_of(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def leaves_of(counted: list[tuple[str, int]]) -> list[bytes]:
    return [count_leaf(name, rows, salt_of(number)) for number, (name, rows) in enumerate(counted)]


def entry_of(counted: list[tuple[str, int]], index: int) -> dict[str, Any]:
    hashes = count_proof(leaves_of(counted), index)
    return {"rows": counted[index][1], "index": index, "salt": salt_of(index).hex(), "hashes": hashes}


@given(workspaces, st.data())
def test_a_count_is_proved_and_no_other(counted: list[tuple[str, int]], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(counted) - 1))
    counts, entry, name = counts_over(leaves_of(counted)), entry_of(counted, index), counted[index][0]
    assert proves_count(counts, name, entry)
    hashes = [bytes.fromhex(found) for found in entry["hashes"]]
    assert proves_inclusion(leaves_of(counted)[index], index, len(counted), hashes, counts.root)
    assert not proves_count(counts, name, entry | {"rows": entry["rows"] - 1})
    assert not proves_count(counts, f"{name}x", entry)
    assert not proves_count(counts, name, entry | {"salt": "00" * 32})
    grown = [*counted[:index], (name, entry["rows"] + 1), *counted[index + 1 :]]
    assert not proves_count(counts_over(leaves_of(grown)), name, entry), "one of an earlier checkpoint"
    for wrong in ({"index": len(counted)}, {"index": -1}, {"hashes": [*entry["hashes"], "00" * 32]}):
        assert not proves_count(counts, name, entry | wrong), "no tree of so many has such a proof"


def test_a_checkpoint_says_them_in_a_line_of_its_own() -> None:
    counts = counts_over(leaves_of([("a", 1), ("b", 2)]))
    assert counts.line == f"workspaces 2 {base64.b64encode(counts.root).decode()}"
    assert counts_of(Checkpoint("log", 3, ROOT, (counts.line,))) == counts
    assert counts_of(Checkpoint("log", 3, ROOT)) is None


@pytest.mark.parametrize("lines", [("others 2 AAAA",), ("workspaces",), ("workspaces 1 !",), ("a 1 AAAA", "b 1 AAAA")])
def test_another_line_is_not_taken_for_one(lines: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        counts_of(Checkpoint("log", 3, ROOT, lines))
