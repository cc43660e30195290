"""What an agent was given and holds: others get it once the agent has ended."""

from sqlalchemy.ext.asyncio import AsyncSession

from models.store.database import mark_events, within
from models.store.events import Actor


async def give_back(session: AsyncSession, workspace_id: str, agent: str, actor: Actor) -> None:
    """Let others have the missions that the queue gave to an agent and that nobody has started."""
    values = {"workspace_id": workspace_id, "agent": agent, "actor": actor.name, "correlation_id": actor.correlation_id}
    await within(session)(_GIVE_BACK, values)
    mark_events(session)


_GIVE_BACK = """
    WITH given AS (
        UPDATE mission SET assigned_to = NULL, claimed_at = NULL
        WHERE workspace_id = %(workspace_id)s AND assigned_to = %(agent)s AND claimed_at IS NOT NULL
        AND status = 'open' AND run_id IS NULL RETURNING mission_id
    )
    INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
    SELECT %(workspace_id)s, 'mission.assigned', 'mission', mission_id, %(actor)s, %(correlation_id)s,
    '{"assigned_to": null}' FROM given
"""
