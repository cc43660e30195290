"""What an agent was given and holds: others get it once the agent has ended."""

from sqlalchemy.ext.asyncio import AsyncSession

from models.store.database import mark_events, within
from models.store.events import Actor

AT_ONCE = 500


async def give_back(session: AsyncSession, actor: Actor, workspace_id: str | None = None) -> None:
    """Let others have the missions that the queue gave to agents that have ended or were stopped, and nobody started.

    Of one workspace, or of all (system door): an agent may be given one at the moment in which it ends.
    """
    values = {"workspace_id": workspace_id, "actor": actor.name, "correlation_id": actor.correlation_id}
    if await within(session)(_GIVE_BACK, values | {"limit": AT_ONCE}):
        mark_events(session)


_GIVE_BACK = """
    WITH held AS (
        SELECT m.workspace_id, m.mission_id FROM agent a
        JOIN mission m ON m.workspace_id = a.workspace_id AND m.assigned_to = a.name
        AND m.claimed_at IS NOT NULL AND m.status = 'open' AND m.run_id IS NULL
        WHERE (a.registration = 'deactivated' OR a.status = 'stopped')
        AND (CAST(%(workspace_id)s AS text) IS NULL OR a.workspace_id = %(workspace_id)s)
        LIMIT %(limit)s FOR UPDATE OF m SKIP LOCKED
    ), given AS (
        UPDATE mission m SET assigned_to = NULLIF(m.filed_for, m.assigned_to), claimed_at = NULL FROM held
        WHERE m.workspace_id = held.workspace_id AND m.mission_id = held.mission_id RETURNING m.*
    )
    INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
    SELECT workspace_id, 'mission.assigned', 'mission', mission_id, %(actor)s, %(correlation_id)s,
    jsonb_build_object('assigned_to', assigned_to) FROM given RETURNING 1
"""
