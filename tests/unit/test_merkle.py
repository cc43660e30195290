"""The tree of RFC 6962, held to published roots and to the RFC's own recursive definition."""

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.merkle import (
    EMPTY_ROOT,
    Frontier,
    Kept,
    Span,
    consistency_spans,
    inclusion_spans,
    joined,
    kept_below,
    leaf_hash,
    node_hash,
    root_of,
    root_over,
    subtrees,
)
from tests.fixtures.proofs import proves_consistency, proves_inclusion

ENTRIES = [
    bytes.fromhex(entry)
    for entry in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""The test vectors of the Certificate Transparency implementations."""


def naive_root(entries: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = naive_split(len(entries))
    return hashlib.sha256(b"\x01" + naive_root(entries[:k]) + naive_root(entries[k:])).digest()


def naive_path(m: int, entries: Sequence[bytes]) -> list[bytes]:
    """PATH of section 2.1.1."""
    if len(entries) == 1:
        return []
    k = naive_split(len(entries))
    if m < k:
        return [*naive_path(m, entries[:k]), naive_root(entries[k:])]
    return [*naive_path(m - k, entries[k:]), naive_root(entries[:k])]


def naive_subproof(m: int, entries: Sequence[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF of section 2.1.2."""
    if m == len(entries):
        return [] if whole else [naive_root(entries)]
    k = naive_split(len(entries))
    if m <= k:
        return [*naive_subproof(m, entries[:k], whole), naive_root(entries[k:])]
    return [*naive_subproof(m - k, entries[k:], False), naive_root(entries[:k])]


def naive_split(count: int) -> int:
    k = 1
    while k * 2 < count:
        k *= 2
    return k


def entries_of(size: int) -> list[bytes]:
    return [str(number).encode() for number in range(size)]


def grown(size: int) -> Frontier:
    tree = Frontier()
    for entry in entries_of(size):
        tree.add(leaf_hash(entry))
    return tree


def roots(spans: Sequence[Span], entries: Sequence[bytes]) -> list[bytes]:
    return [naive_root(entries[start:end]) for start, end in spans]


sizes = st.integers(1, 300)


def test_the_published_roots() -> None:
    tree = Frontier()
    assert tree.root == EMPTY_ROOT == naive_root([])
    for entry, root in zip(ENTRIES, ROOTS, strict=True):
        tree.add(leaf_hash(entry))
        assert tree.root.hex() == root


@given(sizes)
def test_a_frontier_has_the_roots_of_the_definition(size: int) -> None:
    assert grown(size).root == naive_root(entries_of(size))


@given(sizes, st.data())
def test_a_frontier_goes_on_from_the_hashes_of_its_subtrees(size: int, data: st.DataObject) -> None:
    entries, at = entries_of(size), data.draw(st.integers(0, size))
    cut = [naive_root(entries[p.number << p.level : (p.number + 1) << p.level]) for p in subtrees((0, at))]
    tree = Frontier(at, cut)
    for part in subtrees((at, size)):
        tree.add(naive_root(entries[part.number << part.level : (part.number + 1) << part.level]), part.level)
    assert (tree.size, tree.root) == (size, naive_root(entries))


def test_a_frontier_takes_no_subtree_where_none_may_stand() -> None:
    tree = grown(3)
    with pytest.raises(ValueError, match="no subtree of level 1 begins at 3"):
        tree.add(EMPTY_ROOT, 1)


@given(st.integers(0, 300))
def test_a_root_over_leaves_is_that_of_the_definition(size: int) -> None:
    assert root_over([leaf_hash(entry) for entry in entries_of(size)]) == naive_root(entries_of(size))


@given(sizes, st.data())
def test_inclusion_proofs(size: int, data: st.DataObject) -> None:
    entries, index = entries_of(size), data.draw(st.integers(0, size - 1))
    proof = roots(inclusion_spans(index, size), entries)
    leaf, root = leaf_hash(entries[index]), naive_root(entries)
    assert proof == naive_path(index, entries)
    assert proves_inclusion(leaf, index, size, proof, root)
    assert not proves_inclusion(leaf_hash(b"other"), index, size, proof, root)
    assert not proves_inclusion(leaf, index, size, proof, leaf_hash(b"root"))
    assert not proves_inclusion(leaf, index, size, [*proof, root], root)
    assert not proves_inclusion(leaf, size, size, proof, root)
    for other in {index - 1, index + 1} & set(range(size)):
        assert not proves_inclusion(leaf, other, size, proof, root)


@given(sizes, st.data())
def test_consistency_proofs(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(0, new))
    entries = entries_of(new)
    proof = roots(consistency_spans(old, new), entries)
    before, after = naive_root(entries[:old]), naive_root(entries)
    assert proof == (naive_subproof(old, entries, True) if old else [])
    assert proves_consistency(old, new, before, after, proof)
    assert not proves_consistency(old, new, leaf_hash(b"other"), after, proof)
    assert not proves_consistency(old, new, before, after, [*proof, after])
    if 0 < old < new:
        assert not proves_consistency(old, new, before, leaf_hash(b"other"), proof)
        assert not proves_consistency(old, new, before, after, proof[:-1])
        assert not proves_consistency(new, old, after, before, proof)


@given(st.integers(0, 5_000), st.integers(0, 5_000))
def test_subtrees_cover_a_span_and_nothing_else(start: int, length: int) -> None:
    at = start
    for part in subtrees((start, start + length)):
        assert part.number << part.level == at
        at += 1 << part.level
    assert at == start + length
    assert len(subtrees((start, start + length))) <= 2 * (length.bit_length() + 1)


def test_every_subtree_follows_from_what_is_kept() -> None:
    size = 70_000
    leaves = [leaf_hash(entry) for entry in entries_of(size)]
    tree, kept = Frontier(), list[Kept]()
    for leaf in leaves:
        tree.add(leaf, kept=kept)
    assert {one.level for one in kept} == {8, 16}
    levels: dict[int, list[bytes]] = {0: leaves}
    for one in sorted(kept):
        levels.setdefault(one.level, []).append(one.hash)
        assert one.number == len(levels[one.level]) - 1
    found = []
    for part in subtrees((0, size)):
        level, (start, end) = kept_below(part)
        assert end - start <= 128
        found.append(joined(levels[level][start:end]))
    assert root_of(found) == tree.root


def test_a_node_is_no_leaf() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert node_hash(left, right) != leaf_hash(left + right)
