"""Bytes named by their digest, and logs that are still growing."""

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.canonical import sha256_digest
from models.tables.missions import Blob, LogChunk


async def put(session: AsyncSession, workspace_id: str, content: bytes) -> str:
    """Keep bytes under their digest; keeping them twice keeps them once."""
    digest = sha256_digest(content)
    row = {"workspace_id": workspace_id, "digest": digest, "size": len(content), "content": content}
    await session.execute(insert(Blob).values(**row).on_conflict_do_nothing())
    return digest


async def get(session: AsyncSession, workspace_id: str, digest: str) -> bytes | None:
    """Read kept bytes."""
    return await session.scalar(select(Blob.content).where(Blob.workspace_id == workspace_id, Blob.digest == digest))


async def add_chunk(session: AsyncSession, workspace_id: str, log_id: str, seq: int, content: bytes) -> None:
    """Add a piece to a growing log."""
    row = {"workspace_id": workspace_id, "log_id": log_id, "seq": seq, "content": content}
    await session.execute(insert(LogChunk).values(**row).on_conflict_do_nothing())


async def chunks(session: AsyncSession, workspace_id: str, log_id: str, after: int = -1) -> list[tuple[int, bytes]]:
    """Read a growing log from piece `after` on."""
    statement = (
        select(LogChunk.seq, LogChunk.content)
        .where(LogChunk.workspace_id == workspace_id, LogChunk.log_id == log_id, LogChunk.seq > after)
        .order_by(col(LogChunk.seq))
    )
    return [(row.seq, row.content) for row in await session.execute(statement)]


async def drop_log(session: AsyncSession, workspace_id: str, log_id: str | None) -> None:
    """Remove the pieces of a log whose whole is kept, or whose attempt died."""
    if log_id is not None:
        await session.execute(
            delete(LogChunk).where(col(LogChunk.workspace_id) == workspace_id, col(LogChunk.log_id) == log_id)
        )
