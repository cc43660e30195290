"""The merge slot of a branch: one row says who holds it, under which token, and whether others wait in its queue."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from models.contracts.merge_queue import QueueRef, SlotRelease
from models.store.database import Database, within


class Passage(NamedTuple):
    """How the fence answered: whether the mission is still open, and whether its token passed."""

    is_open: bool
    passed: bool


async def claim(session: AsyncSession, queue: QueueRef, run: SlotRelease) -> int | None:
    """Take a slot that is free and that nobody waits for; its token, or None. Its holder gets the same token again."""
    taken = await within(session)(_CLAIM, _names(queue, run))
    return taken[0]["token"] if taken else None


async def held(session: AsyncSession, queue: QueueRef, run: SlotRelease) -> int | None:
    """Read the token of the slot's holder, if that is `run`."""
    found = await within(session)(_HELD, _names(queue, run))
    return found[0]["token"] if found else None


async def grant(
    session: AsyncSession, queue: QueueRef, run: SlotRelease, left: Sequence[SlotRelease]
) -> tuple[SlotRelease, int]:
    """Give the slot to who is next in the queue, if it is free, or held by one of those who left; who holds it now.

    Whoever that is tells the queue of its release, and nobody takes the slot past the queue, until it says `settle`.
    """
    [found] = await within(session)(_GRANT, _names(queue, run) | _gone(left))
    return SlotRelease(workflow_id=found["holder"], run_id=found["holder_run"]), found["token"]


async def settle(session: AsyncSession, queue: QueueRef, left: Sequence[SlotRelease]) -> None:
    """Let the next one take the slot without the queue, where nobody waits; those who left do not hold it any more."""
    nobody = SlotRelease(workflow_id="", run_id="")
    await within(session)(_SETTLE, _names(queue, nobody) | _gone(left))


async def release(db: Database, queue: QueueRef, run: SlotRelease) -> bool:
    """Free the slot if `run` holds it; whether somebody waits for it, also when it is freed again."""
    [found] = await db.alone(queue.workspace_id, _RELEASE, _names(queue, run))
    return bool(found["awaited"])


async def release_all(session: AsyncSession, workspace_id: str, workflow_id: str) -> None:
    """Free what a mission holds, because it has ended; who waits looks for itself within seconds."""
    await within(session)(_RELEASE_ALL, {"workspace_id": workspace_id, "holder": workflow_id})


async def pass_fence(db: Database, workspace_id: str, mission_id: str, token: int) -> Passage:
    """Use the merge slot of a mission's branch, unless the mission has ended, or a younger token already did."""
    key = {"workspace_id": workspace_id, "mission_id": mission_id, "token": token}
    [found] = await db.alone(workspace_id, _THROUGH, key)
    return Passage(**found)


def _gone(left: Sequence[SlotRelease]) -> dict[str, list[str]]:
    return {"left": [one.workflow_id for one in left], "left_runs": [one.run_id for one in left]}


def _names(queue: QueueRef, run: SlotRelease) -> dict[str, Any]:
    return queue.model_dump() | {"holder": run.workflow_id, "run": run.run_id}


_OF = "workspace_id = %(workspace_id)s AND repository_id = %(repository_id)s AND branch = %(branch)s"
_CLAIM = """
    INSERT INTO merge_fence AS slot (workspace_id, repository_id, branch, token, holder, holder_run)
    VALUES (%(workspace_id)s, %(repository_id)s, %(branch)s, 1, %(holder)s, %(run)s)
    ON CONFLICT ON CONSTRAINT merge_fence_pkey DO UPDATE SET holder = %(holder)s, holder_run = %(run)s,
    token = slot.token + CASE WHEN slot.holder IS NULL THEN 1 ELSE 0 END
    WHERE (slot.holder IS NULL AND NOT slot.awaited) OR (slot.holder, slot.holder_run) = (%(holder)s, %(run)s)
    RETURNING token
"""
_HELD = f"SELECT token FROM merge_fence WHERE {_OF} AND (holder, holder_run) = (%(holder)s, %(run)s)"  # noqa: S608  # as below
_FREE = """(slot.holder IS NULL OR (slot.holder, slot.holder_run) = (%(holder)s, %(run)s) OR EXISTS (SELECT FROM
    unnest(CAST(%(left)s AS text[]), CAST(%(left_runs)s AS text[])) AS gone (id, run)
    WHERE (gone.id, gone.run) = (slot.holder, slot.holder_run)))"""
_GRANT = f"""
    INSERT INTO merge_fence AS slot (workspace_id, repository_id, branch, token, holder, holder_run, awaited)
    VALUES (%(workspace_id)s, %(repository_id)s, %(branch)s, 1, %(holder)s, %(run)s, true)
    ON CONFLICT ON CONSTRAINT merge_fence_pkey DO UPDATE SET
    holder = CASE WHEN {_FREE} THEN %(holder)s ELSE slot.holder END,
    holder_run = CASE WHEN {_FREE} THEN %(run)s ELSE slot.holder_run END,
    token = slot.token + CASE WHEN {_FREE}
    AND (slot.holder, slot.holder_run) IS DISTINCT FROM (%(holder)s, %(run)s) THEN 1 ELSE 0 END,
    awaited = true
    RETURNING holder, holder_run, token
"""  # noqa: S608  # constants of this module, no input
_SETTLE = f"""
    UPDATE merge_fence AS slot SET awaited = false,
    holder = CASE WHEN {_FREE} THEN NULL ELSE holder END,
    holder_run = CASE WHEN {_FREE} THEN NULL ELSE holder_run END WHERE {_OF}
"""  # noqa: S608  # as above
# What the update returns is the row as it is after waiting for others; the second look is as old as the statement.
_RELEASE = f"""
    WITH freed AS (
        UPDATE merge_fence SET holder = NULL, holder_run = NULL
        WHERE {_OF} AND (holder, holder_run) = (%(holder)s, %(run)s) RETURNING awaited
    )
    SELECT coalesce((SELECT awaited FROM freed), (SELECT awaited FROM merge_fence WHERE {_OF})) AS awaited
"""  # noqa: S608  # as above
_RELEASE_ALL = """
    UPDATE merge_fence SET holder = NULL, holder_run = NULL
    WHERE workspace_id = %(workspace_id)s AND holder = %(holder)s
"""
_THROUGH = """
    WITH asked AS (
        SELECT repository_id, branch FROM mission
        WHERE workspace_id = %(workspace_id)s AND mission_id = %(mission_id)s AND ended_at IS NULL
    ), passed AS (
        INSERT INTO merge_fence AS slot (workspace_id, repository_id, branch, token)
        SELECT %(workspace_id)s, repository_id, branch, %(token)s FROM asked
        ON CONFLICT ON CONSTRAINT merge_fence_pkey DO UPDATE SET token = %(token)s WHERE slot.token <= %(token)s
        RETURNING token
    )
    SELECT EXISTS (SELECT FROM asked) AS is_open, EXISTS (SELECT FROM passed) AS passed
"""
