"""Who belongs to a workspace: humans with a role, agents and services; made, changed, and ended with all their keys."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from models.domain.agents import AgentStatus, Registration
from models.domain.errors import Conflict, InvalidInput, NotFound
from models.domain.events import EventType, Subject
from models.domain.principals import Kind, Principal, Role, require_admins_left
from models.domain.refusals import missing
from models.schemas.pagination import PageRequest
from models.store import agents, api_keys, events, lists, pagination, rows
from models.store.events import Actor
from models.store.pagination import Rows
from models.tables.workspaces import PrincipalRow


async def list_page(
    session: AsyncSession, workspace_id: str, filters: Mapping[str, object], page: PageRequest
) -> Rows[PrincipalRow]:
    """Read one page of principals, also of those that were deactivated."""
    order = (col(PrincipalRow.created_at), col(PrincipalRow.name))
    return await lists.fetch(session, PrincipalRow, workspace_id, filters, order, page)


async def members_page(session: AsyncSession, workspace_id: str, page: PageRequest) -> Rows[PrincipalRow]:
    """Read one page of the humans who belong to the workspace now."""
    statement = lists.matching(PrincipalRow, workspace_id, {"kind": Kind.HUMAN.value})
    current = statement.where(col(PrincipalRow.deactivated_at).is_(None))
    return await pagination.fetch(session, current, (col(PrincipalRow.created_at), col(PrincipalRow.name)), page)


async def require(session: AsyncSession, workspace_id: str, name: str, *, for_update: bool = False) -> PrincipalRow:
    """Read a principal that must be there."""
    found = await session.get(
        PrincipalRow, (workspace_id, name), with_for_update=for_update or None, populate_existing=for_update
    )
    if found is None:
        raise missing("principal", name)
    return found


def as_caller(row: PrincipalRow) -> Principal:
    """See a principal as one who calls, with none of its keys yet."""
    kind = Kind(row.kind)
    return Principal(row.workspace_id, row.name, kind, Role(row.role) if kind is Kind.HUMAN else None, key_id="")


async def require_human(session: AsyncSession, workspace_id: str, name: str) -> None:
    """Find a member by name; agents and services are none."""
    found = await session.get(PrincipalRow, (workspace_id, name))
    if found is None or found.kind != Kind.HUMAN:
        place = f"/workspaces/{workspace_id}/members"
        raise NotFound("member_not_found", f"there is no member {name!r}; `GET {place}` lists who is one")


async def is_agent(session: AsyncSession, workspace_id: str, name: str) -> bool:
    """Whether a name is an agent's."""
    found = await session.get(PrincipalRow, (workspace_id, name))
    return found is not None and found.kind == Kind.AGENT


async def create(
    session: AsyncSession, workspace_id: str, name: str, kind: Kind, role: Role | None, caller: Principal, actor: Actor
) -> PrincipalRow:
    """Add a principal. An agent that is added so, and did not register, is approved by that.

    Raises:
        Conflict: `principal_exists`, or `agent_exists` with a registration of that name.
        NotPermitted: only platform admins make platform admins; a role, or an agent let in, is more than a narrowed
            key has.
    """
    caller.require_power_over(role or "")
    if kind is not Kind.SERVICE:
        caller.require_scopes_over(())
    if kind is Kind.AGENT:
        known = {"name": name, "requested_by": actor.name, "decided_by": actor.name, "decided_at": func.mc_now()}
        states = {"registration": Registration.APPROVED.value, "status": AgentStatus.ACTIVE.value}
        agent = await agents.insert_agent(session, workspace_id, known | states)
        await agents.tell(session, agent, EventType.AGENT_APPROVED, actor)
    return await insert_principal(session, workspace_id, name, kind, role, actor)


async def insert_principal(
    session: AsyncSession, workspace_id: str, name: str, kind: Kind, role: Role | None, actor: Actor
) -> PrincipalRow:
    """Add the row of a principal.

    Raises:
        Conflict: `principal_exists`.
    """
    if (added := await _insert(session, workspace_id, name, kind, role, actor)) is None:
        raise Conflict("principal_exists", f"there is a principal {name!r} already; take another name")
    return added


async def _insert(
    session: AsyncSession, workspace_id: str, name: str, kind: Kind, role: Role | None, actor: Actor
) -> PrincipalRow | None:
    """Add the row of a principal, unless it is there, also by somebody who adds it in this moment."""
    await api_keys.take_turn(session, workspace_id)
    row = {"kind": kind.value, "role": role.value if role else kind.value, "created_by": actor.name}
    made = insert(PrincipalRow).values(workspace_id=workspace_id, name=name, **row)
    added = (await session.scalars(made.on_conflict_do_nothing().returning(PrincipalRow))).one_or_none()
    if added is not None:
        await _tell(session, added, EventType.PRINCIPAL_CREATED, actor)
    return added


async def find_or_create(
    session: AsyncSession,
    workspace_id: str,
    name: str,
    kind: Kind | None,
    role: Role | None,
    caller: Principal,
    actor: Actor,
) -> PrincipalRow:
    """Find a principal that is, or is made, what is said of it.

    Raises:
        Conflict: `principal_differs`, it is something else.
        InvalidInput: `role_required`, a new human needs one.
    """
    known = await session.get(PrincipalRow, (workspace_id, name))
    if known is None:
        kind = kind or Kind.HUMAN
        if kind is Kind.HUMAN and role is None:
            raise InvalidInput("role_required", f"there is no principal {name!r} yet: say which role it gets")
        return await create(session, workspace_id, name, kind, role, caller, actor)
    await api_keys.take_turn(session, workspace_id)
    await session.refresh(known)
    if (kind and known.kind != kind) or (role and known.role != role):
        raise Conflict("principal_differs", f"{name!r} is of kind {known.kind} and role {known.role}; leave both out")
    return known


async def set_role(
    session: AsyncSession, workspace_id: str, name: str, role: Role, caller: Principal, actor: Actor
) -> PrincipalRow:
    """Give a human a role: a new member, a member of another role, or one who comes back and needs new keys.

    Who has it already keeps it, and nothing is told.

    Raises:
        Conflict: `not_a_human`, or `last_admin`, who must stay one.
        NotPermitted: only a platform admin has power over platform admins, and a role is more than a narrowed key has.
    """
    caller.require_power_over(role)
    caller.require_scopes_over(())
    known = await api_keys.lock_principal(session, workspace_id, name)
    if known is None and (added := await _insert(session, workspace_id, name, Kind.HUMAN, role, actor)):
        return added
    known = known or await require(session, workspace_id, name, for_update=True)
    admins = await api_keys.lock_admins(session, workspace_id)
    if known.kind != Kind.HUMAN:
        raise Conflict("not_a_human", f"{name!r} is of kind {known.kind}; only humans have roles")
    caller.require_power_over(known.role)
    require_admins_left([(key.principal, key.role) for key in admins], name, role)
    if (known.role, known.deactivated_at) == (role.value, None):
        return known
    changed = await rows.set_columns(session, known, role=role.value, deactivated_at=None)
    data = {"before": None if known.deactivated_at else known.role, "after": role.value}
    await _tell(session, changed, EventType.PRINCIPAL_ROLE_CHANGED, actor, data)
    return changed


async def deactivate(
    session: AsyncSession, workspace_id: str, name: str, caller: Principal, actor: Actor
) -> PrincipalRow:
    """End a principal and all its keys now; what it did stays. Ending it again changes nothing.

    Raises:
        Conflict: `last_admin`.
        NotPermitted: only a platform admin has power over platform admins.
    """
    await api_keys.take_turn(session, workspace_id)
    if (await require(session, workspace_id, name)).kind == Kind.AGENT:
        await agents.require_named(session, workspace_id, name)
    known = await require(session, workspace_id, name, for_update=True)
    admins = await api_keys.lock_admins(session, workspace_id)
    caller.require_power_over(known.role)
    if known.deactivated_at is not None:
        return known
    require_admins_left([(key.principal, key.role) for key in admins], name, None)
    await api_keys.revoke_all(session, workspace_id, name, actor)
    if known.kind == Kind.AGENT:
        await _deactivate_agent(session, workspace_id, name, actor)
    ended = await rows.set_columns(session, known, deactivated_at=func.mc_now())
    await _tell(session, ended, EventType.PRINCIPAL_DEACTIVATED, actor)
    return ended


async def _deactivate_agent(session: AsyncSession, workspace_id: str, name: str, actor: Actor) -> None:
    agent = await agents.require_named(session, workspace_id, name)
    ended = await agents.stop(session, agent, actor, registration=Registration.DEACTIVATED.value)
    await agents.tell(session, ended, EventType.AGENT_DEACTIVATED, actor)


async def _tell(
    session: AsyncSession, about: PrincipalRow, kind: EventType, actor: Actor, data: Mapping[str, Any] | None = None
) -> None:
    subject, known = Subject(kind="principal", id=about.name), {"kind": about.kind, "role": about.role}
    await events.append(session, about.workspace_id, kind, subject, actor, known | dict(data or {}))
