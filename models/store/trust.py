"""Agents' trust scores: read, and moved by the end of the missions that were theirs. Nobody sets them by hand."""

from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from models.contracts.missions import TrustRequirements
from models.domain import trust
from models.domain.events import EventType
from models.domain.names import POLICY
from models.domain.principals import Kind
from models.domain.states import DecisionKind, DecisionStatus, MissionOutcome
from models.schemas.pagination import PageRequest
from models.store import agents, lists, missions
from models.store.database import within
from models.store.events import Actor
from models.store.pagination import Rows
from models.tables.agents import TrustChange
from models.tables.missions import Mission


async def history(session: AsyncSession, workspace_id: str, agent_id: str, page: PageRequest) -> Rows[TrustChange]:
    """Read one page of the changes of an agent's score."""
    order = (col(TrustChange.at), col(TrustChange.mission_id))
    return await lists.fetch(session, TrustChange, workspace_id, {"agent_id": agent_id}, order, page)


async def require_access(session: AsyncSession, mission: Mission, name: str) -> None:
    """Check that a mission lets an agent in; raises `NotPermitted` where it does not."""
    agent = await agents.require(session, mission.workspace_id, name)
    needs = TrustRequirements.model_validate(mission.trust_requirements)
    trust.require_access(agent.trust, tuple(agent.capabilities), needs.required_trust_score, needs.allowed_roles)


async def learn(session: AsyncSession, mission: Mission, outcome: MissionOutcome, actor: Actor) -> None:
    """Let a mission's end move its agent's score, once; a mission of nobody's, or of a person's, moves none.

    Nobody earns trust by merging what an agent filed, unless a person approved the merge; nor loses it by what another
    agent filed for them.
    """
    if mission.assigned_to is None or not trust.change_by(outcome):
        return
    by_agents = await agents.among(session, mission.workspace_id, await missions.filers(session, mission))
    if outcome is MissionOutcome.MERGED:
        if by_agents and not await _is_approved(session, mission):
            return
    elif by_agents - {mission.assigned_to}:
        return
    key = {"workspace_id": mission.workspace_id, "name": mission.assigned_to, "mission_id": mission.mission_id}
    found = await within(session)(_LOCK, key)
    if not found:
        return
    [agent] = found
    score = trust.moved(agent["trust"], outcome)
    if await within(session)(_LEARN, key | _change(agent, outcome, score)):
        known = await agents.require(session, mission.workspace_id, agent["agent_id"])
        data = {"mission_id": mission.mission_id, "outcome": outcome.value, "score": float(score)}
        await agents.tell(session, known, EventType.AGENT_TRUST_CHANGED, actor, data)


async def _is_approved(session: AsyncSession, mission: Mission) -> bool:
    return bool(await within(session)(_APPROVED, {"workspace_id": mission.workspace_id, "id": mission.mission_id}))


def _change(agent: dict[str, Any], outcome: MissionOutcome, score: Decimal) -> dict[str, Any]:
    return {"agent_id": agent["agent_id"], "outcome": outcome.value, "before": agent["trust"], "after": score}


_LOCK = """
    SELECT agent_id, trust FROM agent
    WHERE workspace_id = %(workspace_id)s AND name = %(name)s AND registration <> 'rejected' FOR UPDATE
"""
_APPROVED = f"""
    SELECT 1 FROM decision AS d WHERE d.workspace_id = %(workspace_id)s AND d.mission_id = %(id)s
        AND d.kind = '{DecisionKind.GOVERNANCE}' AND d.status = '{DecisionStatus.APPROVED}'
        AND d.resolved_by <> '{POLICY}'
        AND NOT EXISTS (SELECT FROM principal AS p
            WHERE p.workspace_id = d.workspace_id AND p.name = d.resolved_by AND p.kind <> '{Kind.HUMAN}') LIMIT 1
"""  # noqa: S608  # constants of ours, no input
_LEARN = """
    WITH kept AS (
        INSERT INTO trust_change (workspace_id, agent_id, mission_id, outcome, before, after)
        VALUES (%(workspace_id)s, %(agent_id)s, %(mission_id)s, %(outcome)s, %(before)s, %(after)s)
        ON CONFLICT DO NOTHING RETURNING agent_id, after
    )
    UPDATE agent SET trust = kept.after FROM kept
    WHERE agent.workspace_id = %(workspace_id)s AND agent.agent_id = kept.agent_id RETURNING agent.agent_id
"""
