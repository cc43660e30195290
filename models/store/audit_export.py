"""The export of a workspace's audit log: lines that prove themselves, in pieces that fit into memory (system door)."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
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


async def pieces(db: Database, workspace_id: str) -> AsyncIterator[str]:
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
    values = {"workspace_id": workspace_id, "at": at, "size": size, "limit": AT_ONCE}
    rows = [(row.tree_index, row.line) for row in await session.execute(_ROWS, values)]
    notes = [(row.size, row.line) for row in await session.execute(_CHECKPOINTS, values)]
    upto = min(_end(rows, size), notes[-1][0] if len(notes) == AT_ONCE else size)
    piece = _Piece()
    for start, end, line in _in_order(rows, notes, upto):
        piece.parts += subtrees((at, start))
        piece.parts.append(line)
        at = end
    piece.parts += subtrees((at, upto))
    return piece, upto


def _end(rows: Sequence[tuple[int, str]], size: int) -> int:
    return rows[-1][0] + 1 if len(rows) == AT_ONCE else size


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
        values = {"workspace_id": workspace_id, "after": after, "size": size, "limit": _UNSEALED_AT_ONCE}
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
    'workspace_id', a.workspace_id, 'seq', l.seq, 'id', a.id, 'epoch', a.epoch, 'xid', CAST(a.xid AS text),
    'at', to_char(a.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24\\:MI\\:SS.US"Z"'),
    'actor', a.actor, 'actor_kind', a.actor_kind, 'action', a.action, 'subject_kind', a.subject_kind,
    'subject_id', a.subject_id, 'correlation_id', a.correlation_id, 'git_sha', a.git_sha, 'config_hash', a.config_hash,
    'digest', encode(a.digest, 'hex'), 'salt', encode(a.salt, 'hex'), 'content', a.content
"""
_ROWS = text(f"""
    SELECT l.tree_index, CASE WHEN a.id IS NULL
        THEN json_build_object('kind', 'missing', 'index', l.tree_index, 'id', l.id)
        ELSE json_build_object('kind', 'row', 'index', l.tree_index, 'leaf', encode(l.leaf, 'hex'), {_COMMITTED})
        END || E'\\n' AS line
    FROM audit_leaf l LEFT JOIN audit a ON a.workspace_id = l.workspace_id AND a.id = l.id
    WHERE l.workspace_id = :workspace_id AND l.tree_index >= :at AND l.tree_index < :size
    ORDER BY l.tree_index LIMIT :limit
""")  # noqa: S608  # constants of this module, no input
_CHECKPOINTS = text("""
    SELECT size, json_build_object('kind', 'checkpoint', 'note', note, 'epoch', epoch, 'xid', CAST(xid AS text),
        'id', id) || E'\\n' AS line
    FROM audit_checkpoint WHERE size > :at AND size <= :size ORDER BY size LIMIT :limit
""")
_UNSEALED = text(f"""
    WITH chunk AS MATERIALIZED (
        SELECT * FROM audit WHERE workspace_id = :workspace_id AND id > :after ORDER BY id LIMIT :limit
    )
    SELECT max(a.id) AS last, array_agg(json_build_object('kind', 'unsealed', {_COMMITTED}) || E'\\n' ORDER BY a.id)
        FILTER (WHERE l.id IS NULL OR l.tree_index >= :size) AS lines
    FROM chunk a LEFT JOIN audit_leaf l ON l.workspace_id = a.workspace_id AND l.id = a.id
""")  # noqa: S608  # as above
