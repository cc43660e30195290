"""Workspaces: made, shown, renamed, and which one is meant where a stranger names none (WORKSPACE-01, 04, 05)."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.errors import Conflict, NotFound
from models.domain.events import EventType, Subject
from models.domain.principals import Kind, Role
from models.schemas.workspaces import WorkspaceCreate
from models.store import api_keys, events, principals
from models.store.events import Actor
from models.tables.workspaces import ApiKey, Installation, Workspace


async def create(
    session: AsyncSession, new: WorkspaceCreate, founder: str, actor: Actor
) -> tuple[Workspace, ApiKey, str]:
    """Make a workspace whose first admin is its founder, with a key to it (system door).

    Raises:
        Conflict: `workspace_exists`.
    """
    row = {"workspace_id": new.slug, **new.model_dump()}
    made = insert(Workspace).values(**row).on_conflict_do_nothing().returning(Workspace)
    workspace = (await session.scalars(made)).one_or_none()
    if workspace is None:
        raise Conflict("workspace_exists", f"there is a workspace {new.slug!r} already; take another slug")
    await _tell(session, workspace, EventType.WORKSPACE_CREATED, actor, {"name": new.name})
    await principals.insert_principal(session, workspace.workspace_id, founder, Kind.HUMAN, Role.ADMIN, actor)
    key, secret = await api_keys.insert_key(session, workspace.workspace_id, {"principal": founder}, actor)
    return workspace, key, secret


async def require(session: AsyncSession, workspace_id: str) -> Workspace:
    """Read a workspace that must be there."""
    found = await session.get(Workspace, workspace_id)
    if found is None:
        raise NotFound("workspace_not_found", f"there is no workspace {workspace_id!r}")
    return found


async def everything(session: AsyncSession, limit: int) -> list[Workspace]:
    """List all workspaces (system door), the newest first."""
    statement = select(Workspace).order_by(col(Workspace.created_at).desc(), col(Workspace.workspace_id))
    return list(await session.scalars(statement.limit(limit)))


async def change(session: AsyncSession, workspace_id: str, values: Mapping[str, Any], actor: Actor) -> Workspace:
    """Change how a workspace is shown."""
    statement = update(Workspace).where(col(Workspace.workspace_id) == workspace_id).values(**values)
    workspace = (await session.scalars(statement.returning(Workspace))).one()
    await _tell(session, workspace, EventType.WORKSPACE_CHANGED, actor, {"changed": sorted(values)})
    return workspace


async def default(session: AsyncSession) -> str:
    """Tell which workspace is meant where none is named."""
    return (await session.scalars(select(Installation.default_workspace))).one()


async def set_default(session: AsyncSession, workspace_id: str, actor: Actor) -> Workspace:
    """Make a workspace the default one (system door)."""
    workspace = await require(session, workspace_id)
    await session.execute(update(Installation).values(default_workspace=workspace_id))
    await _tell(session, workspace, EventType.WORKSPACE_CHANGED, actor, {"changed": ["default"]})
    return workspace


async def _tell(
    session: AsyncSession, workspace: Workspace, kind: EventType, actor: Actor, data: Mapping[str, Any]
) -> None:
    subject = Subject(kind="workspace", id=workspace.workspace_id)
    await events.append(session, workspace.workspace_id, kind, subject, actor, dict(data))
