"""The merge slot of a branch: one row says who holds it, under which token, and whether others wait in its queue."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from models.contracts.merge_queue import QueueRef, SlotRelease


async def claim(session: AsyncSession, queue: QueueRef, run: SlotRelease) -> int | None:
    """Take a slot that is free and that nobody waits for; its token, or None. Its holder gets the same token again."""
    found = await session.execute(_CLAIM, _names(queue, run))
    token: int | None = found.scalar_one_or_none()
    return token


async def grant(
    session: AsyncSession, queue: QueueRef, run: SlotRelease, left: Sequence[SlotRelease]
) -> tuple[SlotRelease, int]:
    """Give the slot to who is next in the queue, if it is free, or held by one of those who left; who holds it now.

    Whoever that is tells the queue of its release, and nobody takes the slot past the queue, until it says `settle`.
    """
    found = (await session.execute(_GRANT, _names(queue, run) | _gone(left))).one()
    return SlotRelease(workflow_id=found.holder, run_id=found.holder_run), found.token


async def settle(session: AsyncSession, queue: QueueRef, left: Sequence[SlotRelease]) -> None:
    """Let the next one take the slot without the queue, where nobody waits; those who left do not hold it any more."""
    nobody = SlotRelease(workflow_id="", run_id="")
    await session.execute(_SETTLE, _names(queue, nobody) | _gone(left))


async def release(session: AsyncSession, queue: QueueRef, run: SlotRelease) -> bool:
    """Free the slot if `run` holds it; whether somebody waits for it, also when it is freed again."""
    found = await session.execute(_RELEASE, _names(queue, run))
    return bool(found.scalar_one_or_none())


async def release_all(session: AsyncSession, workspace_id: str, workflow_id: str) -> None:
    """Free what a mission holds, because it has ended; who waits looks for itself within seconds."""
    await session.execute(_RELEASE_ALL, {"workspace_id": workspace_id, "holder": workflow_id})


def _gone(left: Sequence[SlotRelease]) -> dict[str, list[str]]:
    return {"left": [one.workflow_id for one in left], "left_runs": [one.run_id for one in left]}


def _names(queue: QueueRef, run: SlotRelease) -> dict[str, Any]:
    return queue.model_dump() | {"holder": run.workflow_id, "run": run.run_id}


_OF = "workspace_id = :workspace_id AND repository_id = :repository_id AND branch = :branch"
_CLAIM = text(
    "INSERT INTO merge_fence AS slot (workspace_id, repository_id, branch, token, holder, holder_run)"
    " VALUES (:workspace_id, :repository_id, :branch, 1, :holder, :run)"
    " ON CONFLICT ON CONSTRAINT merge_fence_pkey DO UPDATE SET holder = :holder, holder_run = :run,"
    " token = slot.token + CASE WHEN slot.holder IS NULL THEN 1 ELSE 0 END"
    " WHERE (slot.holder IS NULL AND NOT slot.awaited) OR (slot.holder, slot.holder_run) = (:holder, :run)"
    " RETURNING token"
)
_FREE = (
    "(slot.holder IS NULL OR (slot.holder, slot.holder_run) = (:holder, :run) OR EXISTS (SELECT FROM"
    " unnest(CAST(:left AS text[]), CAST(:left_runs AS text[])) AS gone (id, run)"
    " WHERE (gone.id, gone.run) = (slot.holder, slot.holder_run)))"
)
_GRANT = text(
    "INSERT INTO merge_fence AS slot (workspace_id, repository_id, branch, token, holder, holder_run, awaited)"  # noqa: S608
    " VALUES (:workspace_id, :repository_id, :branch, 1, :holder, :run, true)"
    " ON CONFLICT ON CONSTRAINT merge_fence_pkey DO UPDATE SET"
    f" holder = CASE WHEN {_FREE} THEN :holder ELSE slot.holder END,"
    f" holder_run = CASE WHEN {_FREE} THEN :run ELSE slot.holder_run END,"
    f" token = slot.token + CASE WHEN {_FREE}"
    " AND (slot.holder, slot.holder_run) IS DISTINCT FROM (:holder, :run) THEN 1 ELSE 0 END,"
    " awaited = true"  # constants of this module, no input
    " RETURNING holder, holder_run, token"
)
_SETTLE = text(
    "UPDATE merge_fence AS slot SET awaited = false,"  # noqa: S608  # as above
    f" holder = CASE WHEN {_FREE} THEN NULL ELSE holder END,"
    f" holder_run = CASE WHEN {_FREE} THEN NULL ELSE holder_run END WHERE {_OF}"
)
# What the update returns is the row as it is after waiting for others; the second look is as old as the statement.
_RELEASE = text(
    f"WITH freed AS (UPDATE merge_fence SET holder = NULL, holder_run = NULL WHERE {_OF}"  # noqa: S608  # constants
    " AND (holder, holder_run) = (:holder, :run) RETURNING awaited)"
    f" SELECT coalesce((SELECT awaited FROM freed), (SELECT awaited FROM merge_fence WHERE {_OF}))"
)
_RELEASE_ALL = text(
    "UPDATE merge_fence SET holder = NULL, holder_run = NULL WHERE workspace_id = :workspace_id AND holder = :holder"
)
