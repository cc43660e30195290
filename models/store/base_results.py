"""Test reports of base commits, which do not change and are therefore run once."""

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models.tables.missions import BaseResult


async def find(session: AsyncSession, workspace_id: str, repository_id: str, key: str) -> str | None:
    """Find the digest of the report kept under a key: commit, environment, commands and isolation."""
    known = await session.get(BaseResult, (workspace_id, repository_id, key))
    return known.digest if known else None


async def keep(session: AsyncSession, workspace_id: str, repository_id: str, key: str, digest: str) -> None:
    """Keep a report; the first one stands."""
    row = {"workspace_id": workspace_id, "repository_id": repository_id, "result_key": key, "digest": digest}
    await session.execute(insert(BaseResult).values(**row).on_conflict_do_nothing())
