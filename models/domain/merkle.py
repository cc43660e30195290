"""The Merkle tree of RFC 6962: hashes, and what proofs are made of. A log of acts is sealed with it."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

EMPTY_ROOT = hashlib.sha256(b"").digest()
KEPT_EVERY = 8
"""Levels between those that are kept: 0 (the leaves), 8, 16, … The rest is computed from at most 128 hashes."""

Span = tuple[int, int]
"""Leaves from the first, up to the second which is not among them."""


class Subtree(NamedTuple):
    """A perfect subtree: the `2**level` leaves that begin at `number * 2**level`."""

    level: int
    number: int


def leaf_hash(data: bytes) -> bytes:
    """Hash an entry."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees that stand side by side."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def subtrees(span: Span) -> list[Subtree]:
    """Cut a span into as few perfect subtrees as there are, from left to right."""
    start, end = span
    found = []
    while start < end:
        fits = (end - start).bit_length() - 1
        level = min(fits, (start & -start).bit_length() - 1) if start else fits
        found.append(Subtree(level, start >> level))
        start += 1 << level
    return found


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Join the subtrees of a tree, or of a span that a proof asks for, to its root."""
    if not hashes:
        return EMPTY_ROOT
    *rest, root = hashes
    for left in reversed(rest):
        root = node_hash(left, root)
    return root


def root_over(leaves: Sequence[bytes]) -> bytes:
    """Hash the tree of these leaves."""
    parts = subtrees((0, len(leaves)))
    return root_of([joined(leaves[number << level : (number + 1) << level]) for level, number in parts])


def kept_below(subtree: Subtree) -> tuple[int, Span]:
    """Name the kept hashes that a subtree's follows from: their level, and which of that level."""
    above = subtree.level % KEPT_EVERY
    return subtree.level - above, (subtree.number << above, (subtree.number + 1) << above)


def joined(hashes: Sequence[bytes]) -> bytes:
    """Hash a perfect subtree from all hashes of one of its levels."""
    while len(hashes) > 1:
        hashes = [node_hash(left, right) for left, right in zip(hashes[::2], hashes[1::2], strict=True)]
    return hashes[0]


def inclusion_spans(index: int, size: int) -> list[Span]:
    """Name what the proof that a leaf is in a tree consists of: the roots of these spans, in this order."""
    start, end = 0, size
    spans = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    return spans[::-1]


def root_from(leaf: bytes, index: int, size: int, hashes: Sequence[bytes]) -> bytes:
    """Follow an inclusion proof to the root that it leads to.

    Raises:
        ValueError: no tree of that size has such a leaf, or such a proof.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} has no leaf {index}")
    root = leaf
    for (start, _), other in zip(inclusion_spans(index, size), hashes, strict=True):
        root = node_hash(root, other) if start > index else node_hash(other, root)
    return root


def consistency_spans(old: int, new: int) -> list[Span]:
    """Name what the proof that a tree only grew consists of: the roots of these spans, in this order."""
    start, end, whole = 0, new, True
    spans = []
    while 0 < old < end:
        middle = start + _split(end - start)
        if old <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start, whole = middle, False
    return spans[::-1] if whole else [(start, end), *spans[::-1]]


class Kept(NamedTuple):
    """A hash that was completed and is to be kept."""

    level: int
    number: int
    hash: bytes


class Frontier:
    """The right edge of a growing tree: all that is needed of it to add leaves, in memory of its height."""

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        """Begin with a tree of this size, given by the hashes of its `subtrees`."""
        self.size = size
        self._edge = [(part.level, found) for part, found in zip(subtrees((0, size)), hashes, strict=True)]

    @property
    def root(self) -> bytes:
        """The tree's root now."""
        return root_of([found for _, found in self._edge])

    def add(self, found: bytes, level: int = 0, kept: list[Kept] | None = None) -> None:
        """Add a leaf, or a whole subtree by its hash; what is completed and to be kept is added to `kept`.

        Raises:
            ValueError: no subtree of that level may stand here.
        """
        if self.size % (1 << level):
            raise ValueError(f"no subtree of level {level} begins at {self.size}")
        self.size += 1 << level
        edge = self._edge
        while edge and edge[-1][0] == level:
            found = node_hash(edge.pop()[1], found)
            level += 1
            if kept is not None and level % KEPT_EVERY == 0:
                kept.append(Kept(level, (self.size >> level) - 1, found))
        edge.append((level, found))


def _split(count: int) -> int:
    """The largest power of two below a number of leaves."""
    return int(1 << ((count - 1).bit_length() - 1))
