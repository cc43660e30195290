"""The hashes of the audit tree: of perfect subtrees from those that are kept, and what is built of them."""

from collections.abc import Sequence
from itertools import pairwise

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.errors import Conflict
from models.domain.merkle import Frontier, Span, Subtree, joined, kept_below, root_of, subtrees

_HASH = 32


async def hashes(session: AsyncSession, wanted: Sequence[Subtree]) -> list[bytes]:
    """Find the hashes of perfect subtrees; one whose kept hashes are not all there has the empty hash, as none has."""
    if not wanted:
        return []
    places = [kept_below(subtree) for subtree in wanted]
    values = {
        "levels": [level for level, _ in places],
        "starts": [span[0] for _, span in places],
        "ends": [span[1] for _, span in places],
    }
    found = (await session.execute(_HASHES, values)).scalars()
    return [_joined(kept, span) for kept, (_, span) in zip(found, places, strict=True)]


async def roots(session: AsyncSession, spans: Sequence[Span]) -> list[bytes]:
    """Find the roots of spans of leaves, as proofs need them.

    Raises:
        Conflict: `audit_tree_broken`. Hashes that they follow from are gone.
    """
    parts = [subtrees(span) for span in spans]
    found = await hashes(session, [part for of_span in parts for part in of_span])
    if not all(found):
        raise Conflict(
            "audit_tree_broken", "hashes of the audit tree are gone: no proof can be built; verify an export"
        )
    rest = iter(found)
    return [root_of([next(rest) for _ in of_span]) for of_span in parts]


async def growing(session: AsyncSession, sizes: Sequence[int]) -> tuple[Frontier, list[bytes]]:
    """Build the tree of the last of these sizes, and give its roots at each, all from one reading of its hashes.

    Roots that were built on the way prove that the tree begins so, whatever the database says to other questions.
    """
    steps = [subtrees(span) for span in pairwise((0, *sizes))]
    found = iter(await hashes(session, [part for step in steps for part in step]))
    frontier, roots_there = Frontier(), []
    for step in steps:
        for part in step:
            frontier.add(next(found), part.level)
        roots_there.append(frontier.root)
    return frontier, roots_there


def _joined(kept: bytes | None, span: Span) -> bytes:
    found = cut(kept or b"")
    return joined(found) if len(found) == span[1] - span[0] else b""


def cut(row: bytes) -> list[bytes]:
    """Take apart what is stored, or told, as one value."""
    return [row[at : at + _HASH] for at in range(0, len(row), _HASH)]


_HASHES = text(
    "SELECT coalesce("
    " CASE WHEN w.level = 0 THEN (SELECT string_agg(l.leaf, '' ORDER BY l.tree_index) FROM audit_leaf l"
    "  WHERE l.tree_index >= w.start AND l.tree_index < w.past)"
    " ELSE (SELECT string_agg(n.hash, '' ORDER BY n.tree_index) FROM audit_node n"
    "  WHERE n.level = w.level AND n.tree_index >= w.start AND n.tree_index < w.past) END, '')"
    " FROM unnest(CAST(:levels AS integer[]), CAST(:starts AS bigint[]), CAST(:ends AS bigint[]))"
    " WITH ORDINALITY AS w (level, start, past, number) ORDER BY w.number"
)
