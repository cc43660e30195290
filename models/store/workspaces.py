"""Workspaces: made, shown, renamed, and which one is meant where a stranger names none (WORKSPACE-01, 04, 05)."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.errors import Conflict
from models.domain.events import EventType, Subject
from models.domain.principals import MAX_FOUNDED, Kind, Principal, Role
from models.domain.refusals import missing
from models.schemas.pagination import PageRequest
from models.schemas.workspaces import WorkspaceCreate
from models.store import api_keys, events, pagination, principals
from models.store.database import Database
from models.store.events import Actor
from models.store.pagination import Rows
from models.tables.workspaces import ApiKey, Installation, Workspace


async def create(
    session: AsyncSession, new: WorkspaceCreate, caller: Principal, actor: Actor
) -> tuple[Workspace, ApiKey, str]:
    """Make a workspace whose first admin is the caller, with a key to it (system door).

    Raises:
        Conflict: `workspace_exists` or `too_many_workspaces`.
        NotPermitted: `out_of_scope`, the new key is more than a narrowed one.
    """
    caller.require_scopes_over(())
    founder = await _founder(session, caller)
    workspace = await insert_workspace(session, new, founder)
    if workspace is None:
        raise Conflict("workspace_exists", f"there is a workspace {new.slug!r} already; take another slug")
    # The audit row on the workspace names what its founder is there, which must be known by then.
    await principals.insert_principal(session, workspace.workspace_id, caller.name, Kind.HUMAN, Role.ADMIN, actor)
    await tell(session, workspace, EventType.WORKSPACE_CREATED, actor, {"name": new.name})
    key, secret = await api_keys.insert_key(session, workspace.workspace_id, {"principal": caller.name}, actor)
    return workspace, key, secret


async def insert_workspace(session: AsyncSession, new: WorkspaceCreate, founder: str = "") -> Workspace | None:
    """Add the row of a workspace (system door); None where there is one of this slug."""
    row = {"workspace_id": new.slug, "founder": founder, **new.model_dump()}
    made = insert(Workspace).values(**row).on_conflict_do_nothing().returning(Workspace)
    return (await session.scalars(made)).one_or_none()


async def _founder(session: AsyncSession, caller: Principal) -> str:
    """Find for whom a new workspace counts; nobody where it is a platform admin's.

    An admin may let anyone in: whatever those make counts for whoever made the workspace that they are in.
    """
    if caller.role is Role.PLATFORM_ADMIN:
        return ""
    founder = (await require(session, caller.workspace_id)).founder or f"{caller.workspace_id}/{caller.name}"
    await session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:founder, 0))"), {"founder": founder})
    made = select(func.count()).where(Workspace.founder == founder)
    if (await session.scalars(made)).one() >= MAX_FOUNDED:
        # Who is at home in another workspace than its founder must not learn of that one.
        told = f"{MAX_FOUNDED} workspaces come of whoever made yours, or of you, already"
        raise Conflict("too_many_workspaces", f"{told}: ask a platform admin to make one")
    return founder


async def require(session: AsyncSession, workspace_id: str) -> Workspace:
    """Read a workspace that must be there."""
    found = await session.get(Workspace, workspace_id)
    if found is None:
        raise missing("workspace", workspace_id)
    return found


async def require_known(db: Database, workspace_id: str) -> None:
    """Refuse to enter a workspace that is not there (system door); costs no session of one who has one open already."""
    if not await db.look("SELECT 1 FROM workspace WHERE workspace_id = %(id)s", {"id": workspace_id}):
        raise missing("workspace", workspace_id)


async def opened_page(session: AsyncSession, caller: Principal, page: PageRequest) -> Rows[Workspace]:
    """Read one page of the workspaces that a caller may enter (system door)."""
    statement = select(Workspace)
    if not caller.opens_all:
        statement = statement.where(Workspace.workspace_id == caller.workspace_id)
    return await pagination.fetch(session, statement, (col(Workspace.created_at), col(Workspace.workspace_id)), page)


async def change(session: AsyncSession, workspace_id: str, values: Mapping[str, Any], actor: Actor) -> Workspace:
    """Change how a workspace is shown, and tell what it was and is."""
    known = await require(session, workspace_id)
    before = {name: getattr(known, name) for name in values}
    statement = update(Workspace).where(col(Workspace.workspace_id) == workspace_id).values(**values)
    workspace = (await session.scalars(statement.returning(Workspace))).one()
    told = {"changed": sorted(values), "before": before, "after": dict(values)}
    await tell(session, workspace, EventType.WORKSPACE_CHANGED, actor, told)
    return workspace


async def default(session: AsyncSession) -> str:
    """Tell which workspace is meant where none is named."""
    return (await session.scalars(select(Installation.default_workspace))).one()


async def set_default(session: AsyncSession, workspace_id: str, actor: Actor) -> Workspace:
    """Make a workspace the default one (system door). The one that is it stays it, and nothing is told."""
    workspace = await require(session, workspace_id)
    other = col(Installation.default_workspace) != workspace_id
    changed = update(Installation).where(other).values(default_workspace=workspace_id)
    if (await session.execute(changed.returning(col(Installation.default_workspace)))).first() is not None:
        await tell(session, workspace, EventType.WORKSPACE_CHANGED, actor, {"changed": ["default"]})
    return workspace


async def tell(
    session: AsyncSession, workspace: Workspace, kind: EventType, actor: Actor, data: Mapping[str, Any]
) -> None:
    """Write an event about a workspace."""
    subject = Subject(kind="workspace", id=workspace.workspace_id)
    await events.append(session, workspace.workspace_id, kind, subject, actor, dict(data))
