"""Notices that an operator changed the configuration, and tells every workspace."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import select

from models.domain.events import EventType, Subject
from models.store import events
from models.store.events import Actor
from models.tables.workspaces import Workspace


async def note(session: AsyncSession, config_hash: str, actor: Actor) -> bool:
    """Keep the configuration's hash (system door); a new one is an event in each workspace (MISS-24). True if new."""
    changed = await session.scalar(_KEEP, {"hash": config_hash})
    if changed is None:
        return False
    for workspace_id in await session.scalars(select(Workspace.workspace_id)):
        about = Subject(kind="configuration", id="installation")
        data = {"config_hash": config_hash}
        await events.append(session, workspace_id, EventType.CONFIG_CHANGED, about, actor, data)
    return True


_KEEP = text(
    "UPDATE installation SET config_hash = :hash WHERE config_hash IS DISTINCT FROM :hash RETURNING config_hash"
)
