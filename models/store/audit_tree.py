"""The Merkle tree over the audit log: sealing settled rows, its hashes, and proofs of them (system door)."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain import checkpoints
from models.domain.checkpoints import Checkpoint
from models.domain.errors import Conflict, InvalidInput
from models.domain.merkle import EMPTY_ROOT, Frontier, Kept, consistency_spans, inclusion_spans
from models.schemas.pagination import PageRequest
from models.store import audit_counts, audit_hashes, pagination
from models.store.events import IN_INDEX_ORDER
from models.store.pagination import Rows
from models.tables.audit import AuditCheckpoint, AuditLeaf, AuditMirrored

AT_ONCE = 10_000
"""Rows that one transaction seals at most: well within the time that a transaction has."""
_LOCK = 0x4D43_0003


@dataclass(frozen=True)
class Signer:
    """The service's key, as checkpoints need it."""

    key_id: str
    public_key: bytes
    sign: Callable[[bytes], bytes]


@dataclass(frozen=True)
class Sealed:
    """What one transaction sealed: how many rows, and the checkpoint over them and all before; none, and ""."""

    rows: int = 0
    note: str = ""


@dataclass(frozen=True)
class Standing:
    """How far sealing has come, and how far the mirror."""

    sealed: int
    mirrored: int
    unsealed_seconds: float
    """The age of the oldest row that is not sealed yet."""


async def seal(
    session: AsyncSession, signer: Signer, limit: int = AT_ONCE, signed: str = "", given: str = ""
) -> Sealed:
    """Seal the next settled rows under a new checkpoint. Several sealers at once seal each row once.

    `signed`: the newest checkpoint that the caller remembers; a log is never signed in two versions. `given`: one
    behind it that was given to a transaction of which nobody heard whether it is in. Rows that have settled stay as
    they are, so that the next tree begins with that one, too, whatever became of it.

    Raises:
        Conflict: `audit_tree_broken`, the log is not as its last checkpoint left it, or `audit_taken_back`, it never
            passed through the checkpoint `signed`, or `audit_other_log`, that is of another log, or
            `audit_memory_unreadable`, that is none: nothing is signed.
    """
    if not (await session.execute(_TRY_LOCK, {"lock": _LOCK})).scalar_one():
        return Sealed()
    name = await origin(session)
    known = await _require_passed(session, name, signed)
    last = await latest(session)
    size = last.size if last else 0
    sent = _sent(given, known)
    frontier, (begin, middle, root) = await audit_hashes.growing(session, (known.size, min(sent.size, size), size))
    if fault := await _fault(session, last, Checkpoint(name, size, root)):
        raise _broken(size, fault)
    _require_begins(known, begin)
    if sent.size <= size:
        _require_begins(sent, middle)
    try:
        return await _seal_behind(session, last, name, frontier, signer, limit, sent)
    except IntegrityError:  # one seals at a time, so that what is in the way was put there
        raise _broken(size, "leaves or hashes stand where the next ones belong") from None


async def seen(session: AsyncSession, public_key: bytes, signed: str) -> str:
    """Give the newest checkpoint, where this key has signed it; `signed` is the one that the caller remembers.

    An older one in the place of a newer one takes nobody back behind what they remember.

    Raises:
        Conflict: as `seal`, of what is remembered.
    """
    name = await origin(session)
    known = await _require_passed(session, name, signed)
    last = await latest(session)
    if last is None or last.size <= known.size:
        return signed
    _, (begin, root) = await audit_hashes.growing(session, (known.size, last.size))
    _require_begins(known, begin)
    with suppress(InvalidInput):  # another key's, or none: not to be remembered
        found = checkpoints.verify(last.note, [public_key])
        if (found.origin, found.size, found.root) == (name, last.size, root):
            return last.note
    return signed


async def _seal_behind(
    session: AsyncSession,
    last: AuditCheckpoint | None,
    name: str,
    frontier: Frontier,
    signer: Signer,
    limit: int,
    sent: Checkpoint,
) -> Sealed:
    """Seal what follows the last checkpoint; `frontier` is the tree that it signs, and grows."""
    size = frontier.size
    await session.execute(IN_INDEX_ORDER)
    row = (await session.execute(_SEAL, {**_place(last), "size": size, "limit": limit})).one()
    if row.leaves is None:
        return Sealed()
    kept: list[Kept] = []
    for leaf in audit_hashes.cut(row.leaves):
        frontier.add(leaf, kept=kept)
        if frontier.size == sent.size:
            _require_begins(sent, frontier.root)
    if frontier.size < sent.size:
        _require_begins(sent, frontier.root)
    await _keep(session, kept)
    lines = await audit_counts.lines(session, frontier.size)
    note = checkpoints.sign(Checkpoint(name, frontier.size, frontier.root, lines), signer.public_key, signer.sign)
    values = {"size": frontier.size, "note": note, "key_id": signer.key_id}
    await session.execute(_CHECKPOINT, {**values, "epoch": row.epoch, "xid": row.xid, "id": row.id})
    return Sealed(frontier.size - size, note)


async def latest(session: AsyncSession) -> AuditCheckpoint | None:
    """Find the newest checkpoint; there is none before the first row was sealed."""
    return (await session.scalars(select(AuditCheckpoint).order_by(col(AuditCheckpoint.size).desc()).limit(1))).first()


async def checkpoints_after(session: AsyncSession, size: int, limit: int) -> list[AuditCheckpoint]:
    """Read the next checkpoints of trees larger than `size`, as they stand there."""
    statement = select(AuditCheckpoint).where(col(AuditCheckpoint.size) > size).order_by(col(AuditCheckpoint.size))
    return list(await session.scalars(statement.limit(limit)))


async def grown_from(session: AsyncSession, known: Checkpoint, limit: int) -> list[AuditCheckpoint]:
    """Read the checkpoints that follow a known one; each is proven to be of this tree, which begins with the known.

    Raises:
        Conflict: `audit_taken_back`, the tree does not begin so, or `audit_tree_broken`, it is not that of one of them.
    """
    found = await checkpoints_after(session, known.size, limit)
    _, (begin, *later) = await audit_hashes.growing(session, (known.size, *(one.size for one in found)))
    _require_begins(known, begin)
    for one, root in zip(found, later, strict=True):
        if not _has_root(one, root):
            raise _broken(one.size, "leaves, hashes or its note were changed")
    return found


def _has_root(checkpoint: AuditCheckpoint, root: bytes) -> bool:
    try:
        signed = checkpoints.read(checkpoint.note)
    except InvalidInput:
        return False
    return (signed.size, signed.root) == (checkpoint.size, root)


async def list_checkpoints(session: AsyncSession, page: PageRequest) -> Rows[AuditCheckpoint]:
    """Read one page of checkpoints; they are the installation's, and say nothing of any workspace."""
    return await pagination.fetch(session, select(AuditCheckpoint), (col(AuditCheckpoint.size),), page)


async def note_mirrored(session: AsyncSession, size: int) -> None:
    """Note up to which checkpoint the mirror has all."""
    await session.execute(_MIRRORED, {"size": size})


async def standing(session: AsyncSession) -> Standing:
    """Tell how far sealing and mirror are."""
    last = await latest(session)
    await session.execute(IN_INDEX_ORDER)
    sealed = (await session.execute(_LAST_SEALED)).one_or_none()
    waits = (await session.execute(_WAITS, _place(sealed))).scalar()
    mirrored = await session.scalar(select(AuditMirrored.size).order_by(col(AuditMirrored.size).desc()).limit(1))
    return Standing(last.size if last else 0, mirrored or 0, max(float(waits or 0), 0))


async def unmirrored_seconds(session: AsyncSession) -> float:
    """Tell the age of the oldest checkpoint that the mirror lacks; 0 where it lacks none."""
    return float((await session.execute(_UNMIRRORED)).scalar() or 0)


async def inclusion_proof(session: AsyncSession, leaf: AuditLeaf, size: int) -> list[bytes]:
    """Prove that a leaf is in the tree of that size."""
    return await audit_hashes.roots(session, inclusion_spans(leaf.tree_index, size))


async def consistency_proof(session: AsyncSession, old: int, new: int) -> list[bytes]:
    """Prove that the tree of size `new` begins with that of size `old`; raises `InvalidInput` where there is none."""
    last = await latest(session)
    size = last.size if last else 0
    if not 0 <= old <= new <= size:
        raise InvalidInput("no_such_tree", f"give sizes with 0 <= from <= to <= {size}, the size that is sealed")
    return await audit_hashes.roots(session, consistency_spans(old, new))


async def origin(session: AsyncSession) -> str:
    """Tell what checkpoints call this log."""
    return str((await session.execute(text("SELECT origin FROM installation"))).scalar_one())


async def _require_passed(session: AsyncSession, name: str, signed: str) -> Checkpoint:
    """Read what is remembered, of which the log still has the checkpoint; without any, it begins with nothing."""
    if not signed:
        return Checkpoint(name, 0, EMPTY_ROOT)
    known = _kept(signed)
    if known.origin != name:
        message = (
            f"this data folder's worker has signed the log {known.origin} so far, and the database has the log {name}:"
            " where another database is meant, move `signed-checkpoint` away (docs/runbook.md)"
        )
        raise Conflict("audit_other_log", message)
    if await session.scalar(select(AuditCheckpoint.note).where(AuditCheckpoint.size == known.size)) != signed:
        told = f"the log has not the checkpoint {known.size} that was signed: somebody took it back, or restored it"
        raise Conflict("audit_taken_back", told, size=known.size)
    return known


def _sent(given: str, known: Checkpoint) -> Checkpoint:
    """Read what was given to a transaction, where it goes beyond what is known."""
    if not given:
        return known
    sent = _kept(given)
    return sent if (sent.origin, sent.size > known.size) == (known.origin, True) else known


def _kept(note: str) -> Checkpoint:
    try:
        return checkpoints.read(note)
    except InvalidInput:
        message = "what was kept here of the checkpoint that was signed last cannot be read: somebody changed the file"
        raise Conflict("audit_memory_unreadable", message) from None


def _require_begins(known: Checkpoint, begin: bytes) -> None:
    if begin != known.root:
        told = f"the log does not begin with the checkpoint {known.size} that was signed: somebody wrote it anew"
        raise Conflict("audit_taken_back", told, size=known.size)


async def _fault(session: AsyncSession, last: AuditCheckpoint | None, found: Checkpoint) -> str:
    """Say what is not as the last checkpoint left it: the rows behind it would be sealed wrongly, or never."""
    if (await session.execute(_HAS_MORE, {"size": found.size})).scalar_one():
        return "leaves stand behind it"
    if last is None:
        return ""
    try:
        signed = checkpoints.read(last.note)
    except InvalidInput:
        return "its note cannot be read"
    lines = await audit_counts.lines(session, last.size) if signed.extensions else ()
    if signed != replace(found, extensions=lines):
        return "leaves, hashes or counts were changed"
    if not (await session.execute(_ENDS_THERE, {**_place(last), "size": last.size})).scalar_one():
        return "its last row is gone, or was changed"
    return ""


def _broken(size: int, fault: str) -> Conflict:
    message = f"the audit tree is not that of its checkpoint {size}, {fault}: verify an export"
    return Conflict("audit_tree_broken", message, size=size)


def _place(of: Any | None) -> dict[str, Any]:
    """Give the place of what is there, or that before all others."""
    return {"epoch": of.epoch, "xid": of.xid, "id": of.id} if of else {"epoch": 0, "xid": "0", "id": 0}


async def _keep(session: AsyncSession, kept: Sequence[Kept]) -> None:
    if kept:
        values = {name: [getattr(one, name) for one in kept] for name in Kept._fields}
        await session.execute(_KEEP, values)


# What no running transaction can precede any more, as in the tail of events; what is of a time to come is not.
_EPOCH = "(SELECT mc_epoch())"  # asked once, not for each row
_IS_SETTLED = f"(epoch < {_EPOCH} OR epoch = {_EPOCH} AND xid < pg_snapshot_xmin(pg_current_snapshot()))"

# Asked every second, and mostly in vain: looks at the newest row, and at what was sealed last, before it locks.
_TRY_LOCK = text(f"""
    SELECT CASE WHEN (SELECT ROW(epoch, xid, id, workspace_id, id, {_IS_SETTLED}) FROM audit
            ORDER BY epoch DESC, xid DESC, id DESC LIMIT 1)
        IS DISTINCT FROM (SELECT ROW(c.epoch, c.xid, c.id, l.workspace_id, l.id, true)
            FROM (SELECT * FROM audit_checkpoint ORDER BY size DESC LIMIT 1) c
            LEFT JOIN audit_leaf l ON l.tree_index = c.size - 1)
        THEN pg_try_advisory_xact_lock(:lock) ELSE false END
""")  # noqa: S608  # constants of this module, no input

_ENDS_THERE = text(f"""
    SELECT EXISTS (
        SELECT FROM audit a JOIN audit_leaf l ON l.workspace_id = a.workspace_id AND l.id = a.id
        WHERE l.tree_index = :size - 1 AND {_IS_SETTLED}
            AND (a.epoch, a.xid, a.id) = (:epoch, CAST(:xid AS xid8), :id) AND l.leaf = mc_audit_leaf(a, l.seq))
""")  # noqa: S608  # as above
_HAS_MORE = text("SELECT EXISTS (SELECT FROM audit_leaf WHERE tree_index >= :size)")

_SEAL = text(f"""
    WITH fresh AS MATERIALIZED (
        SELECT a, workspace_id, row_number() OVER (ORDER BY epoch, xid, id) AS number FROM (
            SELECT audit AS a, workspace_id, epoch, xid, id FROM audit
            WHERE (epoch, xid, id) > (:epoch, CAST(:xid AS xid8), :id)
            AND {_IS_SETTLED}
            ORDER BY epoch, xid, id LIMIT :limit) AS settled
    ), known AS MATERIALIZED (
        SELECT workspace_id, (SELECT l.seq FROM audit_leaf l WHERE l.workspace_id = w.workspace_id
            ORDER BY l.tree_index DESC LIMIT 1) AS seq
        FROM (SELECT DISTINCT workspace_id FROM fresh) w
    ), counted AS MATERIALIZED (
        SELECT fresh.a, fresh.workspace_id, :size + number - 1 AS tree_index,
            coalesce(known.seq, 0) + row_number() OVER (PARTITION BY fresh.workspace_id ORDER BY number) AS seq
        FROM fresh JOIN known USING (workspace_id)
    ), entered AS (
        INSERT INTO audit_workspace (workspace_id, number, salt)
        SELECT workspace_id, (SELECT count(*) FROM audit_workspace) + row_number() OVER (ORDER BY min(number)) - 1,
            uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
        FROM fresh WHERE NOT EXISTS (SELECT FROM audit_workspace w WHERE w.workspace_id = fresh.workspace_id)
        GROUP BY workspace_id
    ), sealed AS (
        INSERT INTO audit_leaf (tree_index, workspace_id, seq, id, leaf)
        SELECT tree_index, workspace_id, seq, (a).id, mc_audit_leaf(a, seq) FROM counted ORDER BY tree_index
        RETURNING tree_index, leaf
    ), last AS (
        SELECT a FROM counted ORDER BY tree_index DESC LIMIT 1
    )
    SELECT (SELECT string_agg(leaf, '' ORDER BY tree_index) FROM sealed) AS leaves,
        (SELECT (a).epoch FROM last) AS epoch, (SELECT CAST((a).xid AS text) FROM last) AS xid,
        (SELECT (a).id FROM last) AS id
""")  # noqa: S608  # as above
_KEEP = text(
    "INSERT INTO audit_node (level, tree_index, hash)"
    " SELECT * FROM unnest(CAST(:level AS integer[]), CAST(:number AS bigint[]), CAST(:hash AS bytea[]))"
)
_CHECKPOINT = text(
    "INSERT INTO audit_checkpoint (size, note, key_id, epoch, xid, id)"
    " VALUES (:size, :note, :key_id, :epoch, CAST(:xid AS xid8), :id)"
)
_UNMIRRORED = text("""
    SELECT extract(epoch FROM mc_now() - min(created_at)) FROM audit_checkpoint
    WHERE size > COALESCE((SELECT max(size) FROM audit_mirrored), 0)
""")
_MIRRORED = text("INSERT INTO audit_mirrored (size) VALUES (:size) ON CONFLICT DO NOTHING")
# The newest leaf whose row is there: where checkpoints and rows were changed, too, the rows behind it are not sealed.
_LAST_SEALED = text("""
    SELECT a.epoch, CAST(a.xid AS text) AS xid, a.id
    FROM audit_leaf l JOIN audit a ON a.workspace_id = l.workspace_id AND a.id = l.id
    ORDER BY l.tree_index DESC LIMIT 1
""")
_WAITS = text(
    "SELECT extract(epoch FROM clock_timestamp() - created_at) FROM audit"
    " WHERE (epoch, xid, id) > (:epoch, CAST(:xid AS xid8), :id) ORDER BY epoch, xid, id LIMIT 1"
)
