"""Which mission an agent does next (MISS-21, MISS-22, V-02)."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import select

from models.domain.events import EventType
from models.store import agents, missions
from models.store.agents import FRESH
from models.store.events import Actor
from models.tables.missions import Mission


async def claim_next(
    session: AsyncSession, workspace_id: str, agent_id: str, roles: Sequence[str], actor: Actor
) -> Mission | None:
    """Assign the most severe, then oldest mission that the agent may take, and return it; it must be alive and active.

    A mission another caller is claiming at this moment is passed over, so no two ever get the same one. A mission that
    was filed for the agent or for its role is given out once, too.

    Raises:
        NotFound, Conflict: nothing is offered because of the agent itself; see `agents.why_idle`.
    """
    key = {"workspace_id": workspace_id, "agent_id": agent_id, "roles": list(roles)}
    statement = select(Mission).from_statement(_CLAIM)
    mission = (await session.scalars(statement, key)).one_or_none()
    if mission is not None:
        data = {"assigned_to": agent_id}
        await missions.tell(session, workspace_id, mission.mission_id, EventType.MISSION_ASSIGNED, actor, data)
    else:
        await agents.why_idle(session, workspace_id, agent_id)
    return mission


async def peek_next(session: AsyncSession, workspace_id: str, agent_id: str, roles: Sequence[str]) -> Mission | None:
    """Find what `claim_next` would give, and leave it there."""
    key = {"workspace_id": workspace_id, "agent_id": agent_id, "roles": list(roles)}
    mission = (await session.scalars(select(Mission).from_statement(_PEEK), key)).one_or_none()
    if mission is None:
        await agents.why_idle(session, workspace_id, agent_id)
    return mission


_ELIGIBLE = """
    SELECT m.* FROM mission m
    WHERE m.workspace_id = :workspace_id AND m.status = 'open' AND m.claimed_at IS NULL
      AND (m.assigned_to IS NULL OR m.assigned_to = :agent_id OR m.assigned_to = ANY(:roles))
      AND EXISTS (
          SELECT FROM agent WHERE agent.workspace_id = :workspace_id AND agent.name = :agent_id
          AND agent.registration = 'approved' AND agent.status = 'active' AND /* alive */
          AND agent.trust >= coalesce(CAST(m.trust_requirements ->> 'required_trust_score' AS numeric), 0))
      AND (m.trust_requirements -> 'allowed_roles' = '[]' OR m.trust_requirements -> 'allowed_roles' ?| :roles)
      AND NOT EXISTS (
          SELECT FROM jsonb_array_elements_text(m.dependencies) AS d(id)
          LEFT JOIN mission needed ON needed.workspace_id = m.workspace_id AND needed.mission_id = d.id
          WHERE needed.status IS DISTINCT FROM 'resolved')
    ORDER BY m.severity_rank, m.created_at, m.seq
    LIMIT 1
""".replace("/* alive */", FRESH)
_PEEK = text(_ELIGIBLE)
_CLAIM = text(
    f"WITH chosen AS MATERIALIZED ({_ELIGIBLE} FOR UPDATE OF m SKIP LOCKED)"  # noqa: S608  # constants, no input
    " UPDATE mission SET assigned_to = :agent_id, claimed_at = now() FROM chosen"
    " WHERE mission.workspace_id = chosen.workspace_id AND mission.mission_id = chosen.mission_id"
    " RETURNING mission.*"
)
