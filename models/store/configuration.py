"""Notices that an operator changed the configuration, and tells every workspace."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.events import EventType, Subject
from models.store import events
from models.store.events import Actor


async def note(session: AsyncSession, config_hash: str, actor: Actor) -> bool:
    """Keep the configuration's hash (system door); a new one is an event in each workspace (MISS-24). True if new."""
    changed = await session.scalar(_KEEP, {"hash": config_hash})
    if changed is None:
        return False
    about = Subject(kind="configuration", id="installation")
    await events.append_everywhere(session, EventType.CONFIG_CHANGED, about, actor, {"config_hash": config_hash})
    return True


_KEEP = text(
    "UPDATE installation SET config_hash = :hash WHERE config_hash IS DISTINCT FROM :hash RETURNING config_hash"
)
