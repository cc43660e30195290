"""How an agent comes to be one: registered, decided on by an admin, and handed its key once (AGENT-01..03, V-47)."""

from datetime import timedelta
from typing import Any

from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.agents import (
    MAX_PENDING,
    REGISTRATION_TRANSITIONS,
    AgentStatus,
    Registration,
    require_approved,
    require_undecided,
)
from models.domain.decisions import Terms
from models.domain.errors import Conflict
from models.domain.events import EventType
from models.domain.keys import REGISTRATION_PREFIX
from models.domain.names import STRANGERS
from models.domain.policy import Resolvers, Risk
from models.domain.principals import Kind, Principal
from models.domain.states import DecisionKind, DecisionStatus, require_transition
from models.schemas.agents import AgentRegister
from models.store import agents, api_keys, caps, claims, governance, keys, principals, questions, rows
from models.store.events import Actor
from models.store.questions import Question
from models.tables.agents import AgentRow
from models.tables.missions import Decision
from models.tables.workspaces import ApiKey, PrincipalRow

KIND = DecisionKind.REGISTRATION


async def register(
    session: AsyncSession, workspace_id: str, new: AgentRegister, resolvers: Resolvers, actor: Actor
) -> tuple[AgentRow, str]:
    """File a registration with its decision; the row, and the token, which is kept nowhere.

    `resolvers` are those whom the policy in force lets answer it.

    Raises:
        Conflict: `agent_exists`, `principal_exists` or `too_many_pending`.
    """
    await _require_room(session, workspace_id, actor)
    await _require_unlike(session, workspace_id, new.name)
    token = keys.new_secret(REGISTRATION_PREFIX)
    values = {
        "name": new.name,
        "registration": Registration.PENDING.value,
        "endpoint": new.endpoint,
        "capabilities": list(new.capabilities),
        "token_digest": keys.digest(token),
        "requested_by": actor.name,
    }
    agent = await agents.insert_agent(session, workspace_id, values)
    await agents.tell(session, agent, EventType.AGENT_REGISTERED, actor, {"endpoint": new.endpoint})
    await _ask(session, agent, resolvers, actor)
    return agent, token


async def _require_unlike(session: AsyncSession, workspace_id: str, name: str) -> None:
    """Refuse the name of somebody whom there is, also in other letters' cases: people read it in questions."""
    names = (PrincipalRow.workspace_id == workspace_id, func.lower(PrincipalRow.name) == func.lower(name))
    if known := (await session.scalars(select(PrincipalRow.name).where(*names).limit(1))).first():
        raise Conflict("principal_exists", f"there is a principal {known!r} already; take another name")


async def _require_room(session: AsyncSession, workspace_id: str, actor: Actor) -> None:
    """Bound what waits. Strangers are many and share one room, so that they take it from nobody who has a key."""
    asked_by = col(AgentRow.requested_by)
    is_stranger = actor.name.startswith(STRANGERS)
    pending = select(func.count()).where(
        AgentRow.workspace_id == workspace_id,
        AgentRow.registration == Registration.PENDING.value,
        asked_by.startswith(STRANGERS, autoescape=True) if is_stranger else asked_by == actor.name,
    )
    if (await session.scalars(pending)).one() >= MAX_PENDING:
        raise Conflict("too_many_pending", f"{MAX_PENDING} registrations wait for an admin already; try again later")


async def _ask(session: AsyncSession, agent: AgentRow, resolvers: Resolvers, actor: Actor) -> None:
    """Put the question into the inbox. Whoever sent the request with a key asks; what a stranger says is nobody's."""
    requester = "" if actor.name.startswith(STRANGERS) else actor.name
    asked = Question(
        agent.workspace_id,
        decision_id(agent),
        KIND,
        Risk.YELLOW,
        ["an agent asks to be let in"],
        shown={name: getattr(agent, name) for name in ("agent_id", "name", "endpoint", "capabilities")}
        | {"filed_by": agent.requested_by},
        binding={"agent_id": agent.agent_id},
        requested_by=agent.agent_id,
        terms=Terms.of(None, resolvers, Risk.YELLOW, (requester,)),
    )
    await questions.put(session, asked, actor)


def decision_id(agent: AgentRow) -> str:
    """Name the decision on a registration."""
    return f"{agent.agent_id}.{KIND}"


def is_about(decision_id: str) -> bool:
    """Whether a decision is on a registration."""
    return decision_id.endswith(f".{KIND}")


async def question(session: AsyncSession, workspace_id: str, name: str, answer: DecisionStatus) -> str:
    """Name the decision on a registration that may be so answered.

    Raises:
        IllegalTransition: it is none that waits.
    """
    agent = await agents.require(session, workspace_id, name)
    require_undecided(agent.name, agent.registration, agent.decided_by, agent.decided_at)
    to = Registration.APPROVED if answer is DecisionStatus.APPROVED else Registration.REJECTED
    require_transition(REGISTRATION_TRANSITIONS, Registration(agent.registration), to)
    return decision_id(agent)


async def conclude(session: AsyncSession, decision: Decision, actor: Actor) -> None:
    """Do what an answered decision of this kind says, in its transaction, in turn.

    Raises:
        Conflict: `principal_exists`, somebody has the name by now; `agent_exists`, it is a capability of another.
    """
    agent = await agents.require(session, decision.workspace_id, decision.binding["agent_id"], for_update=True)
    is_approved = decision.status == DecisionStatus.APPROVED
    if is_approved:
        await _require_unlike(session, agent.workspace_id, agent.name)
        await agents.require_unlike(session, agent.workspace_id, agent.name, agent.capabilities)
        await principals.insert_principal(session, agent.workspace_id, agent.name, Kind.AGENT, None, actor)
    values: dict[str, Any] = {
        "registration": (Registration.APPROVED if is_approved else Registration.REJECTED).value,
        "status": AgentStatus.ACTIVE.value if is_approved else None,
        "decided_by": actor.name,
        "decided_at": func.mc_now(),
    }
    decided = await rows.set_columns(session, agent, **values)
    told = EventType.AGENT_APPROVED if is_approved else EventType.AGENT_REJECTED
    await agents.tell(session, decided, told, actor, {"explanation": decision.explanation})
    if not is_approved:
        await caps.take_back(session, decided, actor)
        await claims.give_back(session, actor, agent.workspace_id, agent.name)
    await governance.acknowledge(session, agent.workspace_id, decision.decision_id)  # no workflow waits for it
    await session.refresh(decision)


async def registrant(session: AsyncSession, token_digest: str) -> AgentRow | None:
    """Find the registration that a token is of (system door)."""
    return (await session.scalars(select(AgentRow).where(AgentRow.token_digest == token_digest))).one_or_none()


async def fetch_key(session: AsyncSession, agent: AgentRow, actor: Actor) -> str | None:
    """Make the key of an approved registration, once: of two who ask at the same time, one gets it."""
    await api_keys.take_turn(session, agent.workspace_id)
    statement = (
        update(AgentRow)
        .where(
            col(AgentRow.workspace_id) == agent.workspace_id,
            col(AgentRow.agent_id) == agent.agent_id,
            col(AgentRow.registration) == Registration.APPROVED.value,
            col(AgentRow.status) != AgentStatus.STOPPED.value,
            col(AgentRow.key_fetched_at).is_(None),
        )
        .values(key_fetched_at=func.mc_now())
        .returning(col(AgentRow.agent_id))
    )
    if (await session.execute(statement)).one_or_none() is None:
        return None
    return (await api_keys.insert_key(session, agent.workspace_id, {"principal": agent.name}, actor))[1]


async def renew_key(
    session: AsyncSession, agent: AgentRow, own_key: str | None, grace: timedelta, caller: Principal, actor: Actor
) -> tuple[ApiKey, str]:
    """Give an agent a new key; the one that it replaces opens for the grace period yet.

    `own_key` is the one the agent itself asks with. For an admin it is the newest, if there is one left.
    """
    require_approved(agent.name, agent.registration)
    if own_key:
        return await api_keys.rotate(session, agent.workspace_id, own_key, grace, actor)
    newest = await api_keys.newest(session, agent.workspace_id, agent.name)
    caller.require_scopes_over(newest.scopes if newest else ())
    if newest:
        return await api_keys.rotate(session, agent.workspace_id, newest.key_id, grace, actor)
    return await api_keys.insert_key(session, agent.workspace_id, {"principal": agent.name}, actor)


async def deactivate(session: AsyncSession, workspace_id: str, name: str, caller: Principal, actor: Actor) -> AgentRow:
    """End an agent that was let in; ending it again changes nothing.

    Raises:
        Conflict: `agent_not_approved`: what only asks to be let in is rejected instead.
    """
    agent = await agents.require(session, workspace_id, name)
    if agent.registration == Registration.DEACTIVATED:
        return agent
    require_approved(agent.name, agent.registration)
    await principals.deactivate(session, workspace_id, agent.name, caller, actor)
    return await agents.require(session, workspace_id, agent.agent_id)
