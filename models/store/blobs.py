"""Bytes named by their digest, and logs that are still growing."""

from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.canonical import sha256_digest
from models.domain.errors import Gone
from models.tables.missions import Blob, LogChunk

LARGE = 256 * 1024
"""Bytes from which on content is kept in a transaction of its own, before the one that says what it is."""


async def put(session: AsyncSession, workspace_id: str, content: bytes, digest: str | None = None) -> str:
    """Keep bytes under their digest; keeping them twice keeps them once, and sends large ones once."""
    digest = digest or sha256_digest(content)
    if len(content) < LARGE or not await _is_kept(session, workspace_id, digest):
        row = {"workspace_id": workspace_id, "digest": digest, "size": len(content), "content": content}
        await session.execute(insert(Blob).values(**row).on_conflict_do_nothing())
    return digest


async def _is_kept(session: AsyncSession, workspace_id: str, digest: str) -> bool:
    statement = select(Blob.size).where(Blob.workspace_id == workspace_id, Blob.digest == digest)
    return (await session.execute(statement)).one_or_none() is not None


async def get(session: AsyncSession, workspace_id: str, digest: str) -> bytes | None:
    """Read kept bytes.

    Raises:
        Gone: `content_removed`, with the reason.
    """
    statement = select(Blob.content, Blob.removed).where(Blob.workspace_id == workspace_id, Blob.digest == digest)
    found = (await session.execute(statement)).one_or_none()
    if found and found.removed:
        raise Gone("content_removed", found.removed)
    return found.content if found else None


async def remove(session: AsyncSession, digest: str, reason: str) -> None:
    """Take kept bytes away for good; whoever asks for them, or keeps the same ones again, is told the reason."""
    await session.execute(select(func.mc_remove_blob(digest, reason)))


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


async def printed(session: AsyncSession, workspace_id: str, log_id: str | None) -> bytes | None:
    """Join what a growing log has so far; None when that is nothing."""
    pieces = await chunks(session, workspace_id, log_id or "")
    return b"".join(content for _, content in pieces) or None


async def forget_chunks(session: AsyncSession, workspace_id: str, log_id: str, before: int) -> None:
    """Drop a growing log's pieces before a number, to bound what grows for as long as somebody watches."""
    await session.execute(
        delete(LogChunk).where(
            col(LogChunk.workspace_id) == workspace_id, col(LogChunk.log_id) == log_id, col(LogChunk.seq) < before
        )
    )
