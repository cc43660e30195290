"""Runs that a limit blocks hold their mission: what its workflow must hear of, and what it has heard (V-29)."""

from sqlalchemy.ext.asyncio import AsyncSession

from models.store import going_on, running
from models.store.database import mark_events, within
from models.store.events import Actor
from models.store.going_on import AT_ONCE, IS_BLOCKED

_IS_TOLD = "m.status IN ('in_progress', 'observing') AND m.stage IS DISTINCT FROM 'resolve'"
"""A mission that ends begins nothing new: nothing holds it any more."""


async def heed(session: AsyncSession, workspace_id: str, mission_id: str, *, is_paused: bool) -> bool:
    """Write down whether, and why, a limit blocks one of a mission's runs now, and tell of it where that is news.

    `is_paused`: whether an operator has paused it, which a block does not lift.
    """
    # The row is locked before the runs are looked at: of two who do so at once the second sees no older state.
    await running.load(session, workspace_id, mission_id, for_update=True)
    values = {
        "workspace_id": workspace_id,
        "mission_id": mission_id,
        "is_paused": is_paused,
    }
    [found] = await within(session)(_HEED, values)
    mark_events(session)
    return bool(found["is_blocked"])


_REASON = """min(concat(r.reason, CASE WHEN r.run_id <> r.mission_id THEN
        concat(' (run ', r.run_id, ' of agent ' || r.agent_id, ')') END))"""
_HEED = f"""
    WITH found AS (
        SELECT {_REASON} AS reason FROM run r
        WHERE r.workspace_id = %(workspace_id)s AND r.mission_id = %(mission_id)s AND {IS_BLOCKED}
    ), changed AS (
        UPDATE mission m SET blocked = found.reason, paused = found.reason IS NOT NULL OR %(is_paused)s FROM found
        WHERE m.workspace_id = %(workspace_id)s AND m.mission_id = %(mission_id)s AND m.ended_at IS NULL
        AND m.blocked IS DISTINCT FROM found.reason RETURNING m.*
    ), told AS (
        INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
        SELECT workspace_id, CASE WHEN blocked IS NULL THEN 'mission.unblocked' ELSE 'mission.blocked' END, 'mission',
        mission_id, 'worker', correlation_id, jsonb_build_object('reason', blocked)
        FROM changed
    ), noted AS (
        INSERT INTO remediation_event (workspace_id, mission_id, entry_id, actor, action, result)
        SELECT workspace_id, mission_id, 'block/' || gen_random_uuid(), 'worker',
        CASE WHEN blocked IS NULL THEN 'unblock' ELSE 'block' END, COALESCE(blocked, '')
        FROM changed
    )
    SELECT reason IS NOT NULL AS is_blocked FROM found
"""  # noqa: S608  # constants of this module, no input


async def to_tell(session: AsyncSession, workspace_id: str | None = None) -> list[tuple[str, str]]:
    """Take missions whose row says otherwise than their runs: of one workspace, or of all (system door).

    Whoever takes one tells it. It is told more and more rarely, however often its runs are blocked and go on: a
    workflow takes 10,000 signals at most, and what waits for an answer needs some, too.
    """
    rows = await within(session)(_TO_TELL, {"workspace_id": workspace_id, "limit": AT_ONCE})
    return [(row["workspace_id"], row["mission_id"]) for row in rows]


AT_WILL, SELDOM = 20, 600
"""How often a mission is told at once; and seconds that pass at last between two times, one more after each.

So 10,000 signals last for two months.
"""
_IS_DUE = f"""(m.blocks_told_at IS NULL OR m.blocks_told_at > mc_now() OR mc_now() >= m.blocks_told_at
    + LEAST(GREATEST(m.blocks_told - {AT_WILL}, 0), {SELDOM}) * interval '1 second')"""
_HERE = "(CAST(%(workspace_id)s AS text) IS NULL OR m.workspace_id = %(workspace_id)s)"
_UNHEEDED = f"""
    SELECT m.workspace_id, m.mission_id FROM run r
    JOIN mission m ON m.workspace_id = r.workspace_id AND m.mission_id = r.mission_id
    WHERE {IS_BLOCKED} AND m.blocked IS NULL AND {_IS_TOLD} AND {_IS_DUE} AND {_HERE}
    UNION
    SELECT m.workspace_id, m.mission_id FROM mission m
    WHERE m.blocked IS NOT NULL AND {_IS_TOLD} AND {_IS_DUE} AND {_HERE} AND m.blocked IS DISTINCT FROM (
        SELECT {_REASON} FROM run r
        WHERE r.workspace_id = m.workspace_id AND r.mission_id = m.mission_id AND {IS_BLOCKED})
    LIMIT %(limit)s
"""  # noqa: S608  # as above
# What somebody holds is left to the next who looks. That it is due is asked again of the row that was taken.
_TO_TELL = f"""
    WITH found AS ({_UNHEEDED}), due AS (
        SELECT m.workspace_id, m.mission_id FROM mission m JOIN found f
        ON f.workspace_id = m.workspace_id AND f.mission_id = m.mission_id
        WHERE {_IS_DUE} FOR NO KEY UPDATE OF m SKIP LOCKED
    )
    UPDATE mission m SET blocks_told = m.blocks_told + 1, blocks_told_at = mc_now() FROM due d
    WHERE m.workspace_id = d.workspace_id AND m.mission_id = d.mission_id RETURNING m.workspace_id, m.mission_id
"""  # noqa: S608  # as above


async def turn_windows(session: AsyncSession, actor: Actor) -> bool:
    """Let runs go on whose day or month is over, or whose limit is open all the same (system door).

    Whether there may be more of them.
    """
    return await going_on.go_on(session, going_on.OVER, {}, actor) == AT_ONCE
