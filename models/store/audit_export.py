"""The export of a workspace's audit log: lines that prove themselves, in pieces that fit into memory (system door)."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from models.domain import checkpoints
from models.domain.audit import Line
from models.domain.errors import InvalidInput
from models.domain.merkle import Subtree, subtrees
from models.store import audit_counts, audit_hashes
from models.store.database import Database

AT_ONCE = 4_000
"""Rows, or checkpoints, that one piece has at most: each is a transaction of its own, for none may last long."""
BYTES_AT_ONCE = 4 * 1024 * 1024
"""Of content, after which a piece takes no further row: an act may tell of a hundred thousand."""
_UNSEALED_AT_ONCE = 20_000


@dataclass
class _Piece:
    """What comes next: ready lines, and subtrees whose hashes are still to be found, in the order of the tree."""

    parts: list[str | Subtree] = field(default_factory=list)

    async def text(self, session: AsyncSession) -> str:
        """Find the hashes, and give the lines."""
        wanted = [part for part in self.parts if isinstance(part, Subtree)]
        found = iter(await audit_hashes.hashes(session, wanted))
        return "".join(part if isinstance(part, str) else _hidden(part, next(found)) for part in self.parts)


async def pieces(db: Database, workspace_id: str) -> AsyncGenerator[str]:
    """Give the lines of the export up to the checkpoint that is the newest now, many at a time.

    Whatever was done to the rows, it is given as it stands: to judge it is the verifier's part.
    """
    async with db.system() as session:
        head = (await session.execute(_HEAD)).one()
    size = head.size or 0
    yield _line(Line.LOG, origin=head.origin, workspace_id=workspace_id, leaves=head.leaves)
    at = 0
    while at < size:
        async with db.system() as session:
            piece, at = await _piece(session, workspace_id, at, size)
            lines = await piece.text(session)
        yield lines  # a reader may take for ever, and holds no connection meanwhile
    if head.note and (counted := await _counted(db, workspace_id, head.note)):
        yield counted
    async for rows in _unsealed(db, workspace_id, size):
        yield rows
    yield _line(Line.END)


async def _counted(db: Database, workspace_id: str, note: str) -> str:
    counted = None
    with suppress(InvalidInput, ValueError):  # a note that cannot be read counts nothing
        async with db.system() as session:
            counted = await audit_counts.proof(session, workspace_id, checkpoints.read(note))
    return _line(Line.COUNT, **counted) if counted else ""


async def _piece(session: AsyncSession, workspace_id: str, at: int, size: int) -> tuple[_Piece, int]:
    """Read what follows leaf `at`; the piece, and where the next one begins."""
    values = {"workspace_id": workspace_id, "at": at, "size": size, "limit": AT_ONCE, "most": BYTES_AT_ONCE}
    found = (await session.execute(_ROWS, values)).all()
    rows = [(row.tree_index, row.line) for row in found]
    notes = [(row.size, row.line) for row in await session.execute(_CHECKPOINTS, values)]
    is_cut = len(found) == AT_ONCE or bool(found and found[-1].weight >= BYTES_AT_ONCE)
    upto = min(rows[-1][0] + 1 if is_cut else size, notes[-1][0] if len(notes) == AT_ONCE else size)
    piece = _Piece()
    for start, end, line in _in_order(rows, notes, upto):
        piece.parts += subtrees((at, start))
        piece.parts.append(line)
        at = end
    piece.parts += subtrees((at, upto))
    return piece, upto


def _in_order(
    rows: Sequence[tuple[int, str]], notes: Sequence[tuple[int, str]], upto: int
) -> Iterator[tuple[int, int, str]]:
    """Give the lines before leaf `upto`, each with the leaves that it stands for: a checkpoint stands for none."""
    found = [(index, index + 1, line) for index, line in rows if index < upto]
    found += [(size, size, line) for size, line in notes if size <= upto]
    return iter(sorted(found, key=lambda part: part[:2]))


async def _unsealed(db: Database, workspace_id: str, size: int) -> AsyncIterator[str]:
    """Give the rows without a leaf in the tree of that size: those that wait, and those that nobody sealed."""
    after: int | None = -(2**63)
    while after is not None:
        limits = {"limit": _UNSEALED_AT_ONCE, "most": BYTES_AT_ONCE}
        values = {"workspace_id": workspace_id, "after": after, "size": size, **limits}
        async with db.system() as session:
            row = (await session.execute(_UNSEALED, values)).one()
        if row.lines:
            yield "".join(row.lines)
        after = row.last


def _hidden(part: Subtree, found: bytes) -> str:
    return _line(Line.HIDDEN, level=part.level, index=part.number, hash=found.hex())


def _line(kind: Line, **values: Any) -> str:
    return json.dumps({"kind": kind, **values}) + "\n"


# In one statement: a checkpoint that is made between two would leave its leaves over.
_HEAD = text("""
    SELECT i.origin, (SELECT coalesce(max(tree_index) + 1, 0) FROM audit_leaf) AS leaves, c.size, c.note
    FROM installation i LEFT JOIN (SELECT size, note FROM audit_checkpoint ORDER BY size DESC LIMIT 1) c ON true
""")
_COMMITTED = """
    'workspace_id', workspace_id, 'seq', seq, 'id', id, 'epoch', epoch, 'xid', CAST(xid AS text),
    'at', to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24\\:MI\\:SS.US"Z"'),
    'actor', actor, 'actor_kind', actor_kind, 'action', action, 'subject_kind', subject_kind,
    'subject_id', subject_id, 'correlation_id', correlation_id, 'git_sha', git_sha, 'config_hash', config_hash,
    'digest', encode(digest, 'hex'), 'salt', encode(salt, 'hex'), 'content', content
"""
# How long a text is Postgres knows without reading it; `weight` is that of all rows up to this one.
_BYTES = "coalesce(octet_length(a.content), 0)"
_ROWS = text(f"""
    SELECT tree_index, weight, CASE WHEN id IS NULL
        THEN json_build_object('kind', 'missing', 'index', tree_index, 'id', sealed_id)
        ELSE json_build_object('kind', 'row', 'index', tree_index, 'leaf', encode(leaf, 'hex'), {_COMMITTED})
        END || E'\\n' AS line
    FROM (
        SELECT a.*, l.tree_index, l.seq, l.leaf, l.id AS sealed_id, {_BYTES} AS own,
            sum({_BYTES}) OVER (ORDER BY l.tree_index ROWS UNBOUNDED PRECEDING) AS weight
        FROM audit_leaf l LEFT JOIN audit a ON a.workspace_id = l.workspace_id AND a.id = l.id
        WHERE l.workspace_id = :workspace_id AND l.tree_index >= :at AND l.tree_index < :size
        ORDER BY l.tree_index LIMIT :limit
    ) weighed
    WHERE weight - own < :most ORDER BY tree_index
""")  # noqa: S608  # constants of this module, no input
_CHECKPOINTS = text("""
    SELECT size, json_build_object('kind', 'checkpoint', 'note', note, 'epoch', epoch, 'xid', CAST(xid AS text),
        'id', id) || E'\\n' AS line
    FROM audit_checkpoint WHERE size > :at AND size <= :size ORDER BY size LIMIT :limit
""")
_UNSEALED = text(f"""
    WITH chunk AS MATERIALIZED (
        SELECT * FROM audit WHERE workspace_id = :workspace_id AND id > :after ORDER BY id LIMIT :limit
    ), told AS (
        SELECT a.*, l.seq, CASE WHEN l.id IS NULL OR l.tree_index >= :size THEN {_BYTES} END AS own
        FROM chunk a LEFT JOIN audit_leaf l ON l.workspace_id = a.workspace_id AND l.id = a.id
    ), weighed AS (
        SELECT *, sum(own) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) AS weight FROM told
    )
    SELECT max(id) AS last,
        array_agg(json_build_object('kind', 'unsealed', {_COMMITTED}) || E'\\n' ORDER BY id)
            FILTER (WHERE own IS NOT NULL) AS lines
    FROM weighed WHERE coalesce(weight - own, weight, 0) < :most
""")  # noqa: S608  # as above
