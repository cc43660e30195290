"""The public halves of the keys that signed records: what a reader verifies evidence with."""

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.events import EventType, Subject
from models.store import events
from models.store.events import Actor
from models.tables.workspaces import SigningKey


async def publish(session: AsyncSession, key_id: str, public_key: str, actor: Actor) -> None:
    """Keep a key that signs (system door); a new one is an event in each workspace."""
    row = {"key_id": key_id, "public_key": public_key}
    added = await session.scalars(insert(SigningKey).values(**row).on_conflict_do_nothing().returning(SigningKey))
    if added.one_or_none() is not None:
        about = Subject(kind="signing_key", id=key_id)
        await events.append_everywhere(session, EventType.SIGNING_KEY_ADDED, about, actor, row)


async def all_of_them(session: AsyncSession) -> list[SigningKey]:
    """List them, the oldest first: older records are verified with older keys."""
    return list(await session.scalars(select(SigningKey).order_by(col(SigningKey.created_at))))
