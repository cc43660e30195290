"""What agents were given and hold: others get it once they have ended."""

from sqlalchemy.ext.asyncio import AsyncSession

from models.store.database import mark_events, within
from models.store.events import Actor

AT_ONCE = 500
"""Missions that are given back in one transaction at most: well within the time that it has."""


async def give_back(session: AsyncSession, actor: Actor, workspace_id: str | None = None, agent: str = "") -> None:
    """Let others have the missions that an agent, which ended or was stopped, was given and did not start.

    Of one agent, or of all in all workspaces (system door): an agent may be given one at the moment in which it ends.
    A mission goes back to the agent that it was filed for, where that one still goes on. What was filed for an agent
    and not yet claimed waits for one that was stopped, and is offered to others once that one is deactivated.
    """
    values = {"workspace_id": workspace_id, "agent": agent, "limit": AT_ONCE}
    who = {"actor": actor.name, "correlation_id": actor.correlation_id}
    if await within(session)(_GIVE_BACK, values | who):
        mark_events(session)


_GIVE_BACK = """
    WITH held AS (
        SELECT m.workspace_id, m.mission_id FROM agent a
        JOIN mission m ON m.workspace_id = a.workspace_id AND m.assigned_to = a.name
        AND m.status = 'open' AND m.run_id IS NULL AND (m.claimed_at IS NOT NULL OR a.registration = 'deactivated')
        WHERE (a.registration = 'deactivated' OR a.status = 'stopped')
        AND (CAST(%(workspace_id)s AS text) IS NULL OR (a.workspace_id = %(workspace_id)s AND a.name = %(agent)s))
        ORDER BY m.created_at LIMIT %(limit)s FOR UPDATE OF m SKIP LOCKED
    ), given AS (
        UPDATE mission m SET claimed_at = NULL, assigned_to = CASE WHEN EXISTS (
            SELECT FROM agent a WHERE a.workspace_id = m.workspace_id AND a.name = m.filed_for
            AND (a.registration = 'deactivated' OR a.status = 'stopped')
        ) THEN NULL ELSE m.filed_for END
        FROM held WHERE m.workspace_id = held.workspace_id AND m.mission_id = held.mission_id RETURNING m.*
    )
    INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
    SELECT workspace_id, 'mission.assigned', 'mission', mission_id, %(actor)s, %(correlation_id)s,
    jsonb_build_object('assigned_to', assigned_to) FROM given RETURNING 1
"""
