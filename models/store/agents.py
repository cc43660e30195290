"""The rows of agents: found, changed, heard of, told of when silent. How they come to be: `registrations`."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from secrets import token_hex
from typing import Any, TypeVar

from sqlalchemy import Row, func, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from models.domain.agents import (
    LOST_SECONDS,
    STALE_SECONDS,
    AgentStatus,
    Latitude,
    Registration,
    Silence,
    Verb,
    name_taken,
    obey,
    require_approved,
    require_latitude,
)
from models.domain.alerts import AlertKind
from models.domain.errors import Conflict
from models.domain.events import EventType, Subject
from models.domain.names import is_agent_id
from models.domain.policy import Level, Who
from models.domain.principals import Kind, Principal
from models.domain.refusals import missing
from models.schemas.pagination import PageRequest
from models.store import alerts, api_keys, claims, events, lists, rows
from models.store.alerts import NewAlert
from models.store.database import within
from models.store.events import Actor, NewEvent, Place
from models.store.pagination import Rows
from models.tables.agents import AgentRow

T = TypeVar("T")

SWEEPER = Actor("reconciler", "agents/silence")
SWEPT_AT_ONCE = 1000
"""Agents that one pass tells of: their events must fit into one short transaction."""


async def list_page(
    session: AsyncSession, workspace_id: str, filters: Mapping[str, object], page: PageRequest
) -> Rows[AgentRow]:
    """Read one page of agents, also of those that were rejected or deactivated."""
    order = (col(AgentRow.created_at), col(AgentRow.agent_id))
    return await lists.fetch(session, AgentRow, workspace_id, filters, order, page)


async def require_named(session: AsyncSession, workspace_id: str, name: str) -> AgentRow:
    """Read and lock the agent that is a principal of this name; never one whose id is spelt so."""
    statement = lists.matching(AgentRow, workspace_id, {"name": name}).where(
        col(AgentRow.registration) != Registration.REJECTED
    )
    locked = statement.with_for_update().execution_options(populate_existing=True)
    if (found := (await session.scalars(locked)).one_or_none()) is None:
        raise missing("agent", name)
    return found


async def require(session: AsyncSession, workspace_id: str, agent: str, *, for_update: bool = False) -> AgentRow:
    """Read an agent by its id or its name; of several registrations under a name, the one that was not rejected."""
    statement = (
        lists.matching(AgentRow, workspace_id, {})
        .where((col(AgentRow.agent_id) == agent) | (col(AgentRow.name) == agent))
        .order_by(
            col(AgentRow.agent_id) != agent, col(AgentRow.registration) == Registration.REJECTED, col(AgentRow.agent_id)
        )
        .limit(1)
    )
    if for_update:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    found = (await session.scalars(statement)).first()
    if found is None:
        raise missing("agent", agent)
    return found


async def name_of(session: AsyncSession, workspace_id: str, agent: T) -> T | str:
    """Find the name, by which facts know an agent, where its id is given; no name is spelt like one."""
    if isinstance(agent, str) and is_agent_id(agent):
        known = await session.get(AgentRow, (workspace_id, agent))
        return known.name if known else agent
    return agent


async def levels(session: AsyncSession, workspace_id: str, names: Collection[str]) -> dict[str, str]:
    """Tell how far agents of these names are trusted now."""
    if not names:
        return {}
    going = col(AgentRow.registration) != Registration.REJECTED
    named = lists.matching(AgentRow, workspace_id, {}).where(col(AgentRow.name).in_(names), going)
    return {row.name: row.level for row in await session.scalars(named)}


async def kin(session: AsyncSession, workspace_id: str, names: Collection[str]) -> frozenset[str]:
    """Name the agents that registered one of these, or that one registered, and theirs: one may hold another's key."""
    if not names:
        return frozenset()
    found = await within(session)(_KIN, {"workspace_id": workspace_id, "names": list(names)})
    return frozenset(row["name"] for row in found)


async def among(session: AsyncSession, workspace_id: str, names: Collection[str]) -> frozenset[str]:
    """Find which of these names are agents'."""
    found = await within(session)(_AMONG, {"workspace_id": workspace_id, "names": list(names)})
    return frozenset(row["name"] for row in found)


LET_IN = "registration IN ('approved', 'deactivated') AND registration <> 'rejected'"
"""Agents that are, or were, let in. That none is rejected is said once more, because the index by name is one of those
that are not."""
_AMONG = f"""
    SELECT name FROM agent WHERE workspace_id = %(workspace_id)s AND name = ANY(%(names)s)
    AND {LET_IN}
"""  # noqa: S608  # a constant, no input
_KIN = """
    WITH RECURSIVE known AS (
        SELECT name, requested_by FROM agent
        WHERE workspace_id = %(workspace_id)s AND registration <> 'rejected'
    ), kin (name, requested_by) AS (
        SELECT name, requested_by FROM known WHERE name = ANY(%(names)s)
        UNION
        SELECT k.name, k.requested_by FROM known k
        JOIN kin ON k.requested_by = kin.name OR k.name = kin.requested_by
    )
    SELECT DISTINCT name FROM kin WHERE name <> ALL(%(names)s)
"""


@dataclass(frozen=True)
class Doer:
    """Who does what a policy judges, and the tools that it may call."""

    who: Who
    tools: tuple[str, ...] = ("*",)


async def doer(session: AsyncSession, caller: Principal, agent: str | None) -> Doer:
    """Name who does what a caller asks for: the agent in whose name it is, at the level that it has now, or itself."""
    if agent is None:
        return Doer(Who(name=caller.known_as, kind=caller.kind, role=caller.role))
    known = lists.matching(AgentRow, caller.workspace_id, {"name": agent}).where(
        col(AgentRow.registration).in_((Registration.APPROVED.value, Registration.DEACTIVATED.value))
    )
    row = (await session.scalars(known)).one_or_none()
    level = Level(row.level) if row else Level.INTERN
    return Doer(Who(name=agent, kind=Kind.AGENT, level=level), tuple(row.tools) if row else ("*",))


async def require_unlike(session: AsyncSession, workspace_id: str, name: str, capabilities: Iterable[str]) -> None:
    """Refuse a name that is a capability of another agent, and the other way round: missions are for either.

    Nor may it be another's but for the case of letters.

    Raises:
        Conflict: `agent_exists`.
    """
    values = {"workspace_id": workspace_id, "name": name, "capabilities": list(capabilities)}
    if found := await within(session)(_ALIKE, values):
        told = f"{name!r} or one of its capabilities is a capability or the name of {found[0]['name']!r}"
        raise Conflict("agent_exists", f"{told}: the one would be taken for the other; take another word")


_ALIKE = """
    SELECT name FROM agent WHERE workspace_id = %(workspace_id)s AND registration = 'approved' AND name <> %(name)s
    AND (capabilities ? %(name)s OR name = ANY(%(capabilities)s) OR lower(name) = lower(%(name)s)) ORDER BY name LIMIT 1
"""


async def insert_agent(session: AsyncSession, workspace_id: str, values: Mapping[str, Any]) -> AgentRow:
    """Add an agent.

    Raises:
        Conflict: `agent_exists`, its name is taken, or a role's or a capability's.
    """
    if values["name"] in claims.ROLES:
        told = f"{values['name']!r} is a role, by which missions say for whom they are: take another name"
        raise Conflict("agent_exists", told)
    await require_unlike(session, workspace_id, values["name"], values.get("capabilities", ()))
    row = {"workspace_id": workspace_id, "agent_id": f"agent_{token_hex(8)}", **values}
    made = insert(AgentRow).values(**row).on_conflict_do_nothing().returning(AgentRow)
    agent = (await session.scalars(made)).one_or_none()
    if agent is None:
        named = lists.matching(AgentRow, workspace_id, {"name": values["name"]})
        known = (await session.scalars(named.where(col(AgentRow.registration) != Registration.REJECTED))).first()
        raise name_taken(values["name"], known.registration if known else None)
    return agent


async def change(session: AsyncSession, agent: AgentRow, values: Mapping[str, Any], actor: Actor) -> AgentRow:
    """Change what is known of an agent, and tell what it was and is.

    Raises:
        Conflict: `agent_exists`, a new capability is another's name.
    """
    if "capabilities" in values:
        await require_unlike(session, agent.workspace_id, agent.name, values["capabilities"])
    before = {name: getattr(agent, name) for name in values if name != "endpoint"}  # which may hold a token
    changed = await rows.set_columns(session, agent, **values)
    told = {"changed": sorted(values), "before": before, "after": {name: values[name] for name in before}}
    await tell(session, changed, EventType.AGENT_CHANGED, actor, told)
    return changed


async def command(
    session: AsyncSession, workspace_id: str, name: str, verb: Verb, actor: Actor, *, by_admin: bool
) -> AgentRow:
    """Make an agent active, paused, drained, quarantined or stopped; a stopped one loses its keys and its claims.

    Raises:
        IllegalTransition: it cannot become that from where it is.
        NotPermitted: only an admin may do this.
        Conflict: `agent_not_approved`.
    """
    await api_keys.take_turn(session, workspace_id)
    agent = await require(session, workspace_id, name, for_update=True)
    require_approved(agent.name, agent.registration)
    before = AgentStatus(agent.status or "")
    after = obey(verb, before, by_admin=by_admin)
    if after is AgentStatus.STOPPED:
        await api_keys.revoke_all(session, workspace_id, agent.name, actor)
        changed = await stop(session, agent, actor)
    else:
        changed = await rows.set_columns(session, agent, status=after.value, **_heard_from(before))
    if after is AgentStatus.QUARANTINED:
        await claims.give_back(session, actor, workspace_id, agent.name)
    data = {"verb": verb.value, "before": before.value, "after": after.value}
    await tell(session, changed, EventType.AGENT_STATUS_CHANGED, actor, data)
    return changed


def _heard_from(before: AgentStatus) -> dict[str, Any]:
    """Count its silence from the end of a stop: a stopped agent had no key to send heartbeats with."""
    return {"resumed_at": func.mc_now()} if before is AgentStatus.STOPPED else {}


async def stop(session: AsyncSession, agent: AgentRow, actor: Actor, **states: str) -> AgentRow:
    """Note that an agent acts no more, and its other states: what it held is free, and nobody waits to hear of it."""
    still = {"status": AgentStatus.STOPPED.value, "silence": Silence.NONE.value}
    stopped = await rows.set_columns(session, agent, **still, **states)
    await alerts.resolve_all(session, agent.workspace_id, AlertKind.AGENT_STALE, [agent.agent_id], actor)
    await claims.give_back(session, actor, agent.workspace_id, agent.name)
    return stopped


async def require_going(session: AsyncSession, workspace_id: str, agent: str, wanted: Latitude) -> AgentRow:
    """Read an agent for whom others act, as far as it may go itself.

    Raises:
        NotFound: `agent_not_found`.
        Conflict: `agent_not_approved`, `agent_not_active`.
    """
    known = await require(session, workspace_id, agent)
    require_approved(known.name, known.registration)
    require_latitude(known.name, AgentStatus(known.status or ""), wanted)
    return known


async def hear(session: AsyncSession, workspace_id: str, agent: str, actor: Actor) -> AgentRow:
    """Note a heartbeat."""
    known = await require(session, workspace_id, agent, for_update=True)
    heard = await rows.set_columns(session, known, last_heartbeat_at=func.mc_now(), silence=Silence.NONE.value)
    if known.silence != Silence.NONE:
        await tell(session, heard, EventType.AGENT_RETURNED, actor, {"silence": known.silence})
        await alerts.resolve_all(session, workspace_id, AlertKind.AGENT_STALE, [heard.agent_id], actor)
    return heard


async def sweep(session: AsyncSession) -> int:
    """Tell, once each, of the active agents that have been silent for longest, and were not told of (system door)."""
    values = {"stale": STALE_SECONDS, "lost": LOST_SECONDS, "limit": SWEPT_AT_ONCE}
    found = sorted((await session.execute(_SILENT, values)).all(), key=_place)
    for workspace_id, silent in groupby(found, key=_place):
        told = list(silent)
        await events.append_all(session, workspace_id, [_silence(row) for row in told])
        lost = [_lost(row) for row in told if row.silence == Silence.LOST]
        await alerts.sound(session, workspace_id, SWEEPER, *lost)
    return len(found)


def _place(row: Row[Any]) -> str:
    return str(row.workspace_id)


def _silence(row: Row[Any]) -> NewEvent:
    kind = EventType.AGENT_LOST if row.silence == Silence.LOST else EventType.AGENT_STALE
    return NewEvent(kind, Subject(kind="agent", id=row.agent_id), SWEEPER, _heard(row))


def _lost(row: Row[Any]) -> NewAlert:
    about = Subject(kind="agent", id=row.agent_id)
    said = f"agent {row.name!r} has not been heard of for {LOST_SECONDS // 60} minutes"
    return NewAlert(AlertKind.AGENT_STALE, about, said, _heard(row))


def _heard(row: Row[Any]) -> dict[str, Any]:
    """Say when it was heard of last; one that was let in, and never was, has no time."""
    at = row.last_heartbeat_at
    return {"name": row.name, "last_heartbeat_at": at.isoformat() if at else None}


_SILENT = text(
    "UPDATE agent SET silence = told.now FROM ("
    " SELECT workspace_id, agent_id, now FROM agent,"
    " LATERAL (SELECT GREATEST(COALESCE(last_heartbeat_at, decided_at), resumed_at) AS since) AS heard,"
    " LATERAL (SELECT CASE WHEN since <= mc_now() - make_interval(secs => :lost) THEN 'lost'"
    " ELSE 'stale' END AS now) AS told WHERE status = 'active' AND silence <> now"
    " AND since <= mc_now() - make_interval(secs => :stale)"
    " ORDER BY since LIMIT :limit FOR UPDATE OF agent SKIP LOCKED) AS told"
    " WHERE agent.workspace_id = told.workspace_id AND agent.agent_id = told.agent_id"
    " RETURNING agent.workspace_id, agent.agent_id, agent.name, agent.silence, agent.last_heartbeat_at"
)


async def tell(
    session: AsyncSession, agent: AgentRow, kind: EventType, actor: Actor, data: Mapping[str, Any] | None = None
) -> Place:
    """Write an event about an agent; its place in the stream."""
    about = Subject(kind="agent", id=agent.agent_id)
    return await events.append(session, agent.workspace_id, kind, about, actor, {"name": agent.name, **(data or {})})
