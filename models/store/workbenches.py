"""Which host holds a mission's worktrees."""

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.tables.missions import Mission, Workbench


async def open_on(session: AsyncSession, workspace_id: str, mission_id: str, host: str) -> None:
    """Note that a host holds (or holds again) a mission's worktrees."""
    row = {"workspace_id": workspace_id, "mission_id": mission_id, "host": host}
    await session.execute(
        insert(Workbench).values(**row).on_conflict_do_update(constraint="workbench_pkey", set_={"closed_at": None})
    )
    await session.execute(
        update(Mission)
        .where(col(Mission.workspace_id) == workspace_id, col(Mission.mission_id) == mission_id)
        .values(host=host)
    )


async def close_on(session: AsyncSession, workspace_id: str, mission_id: str, host: str) -> None:
    """Note that a host has given a mission's worktrees back."""
    await session.execute(
        update(Workbench)
        .where(
            col(Workbench.workspace_id) == workspace_id,
            col(Workbench.mission_id) == mission_id,
            col(Workbench.host) == host,
        )
        .values(closed_at=func.mc_now())
    )


async def is_open_on(session: AsyncSession, workspace_id: str, repository_id: str, host: str) -> bool:
    """Whether a host holds worktrees of a repository."""
    statement = (
        select(Workbench.mission_id)
        .join(Mission, col(Mission.mission_id) == col(Workbench.mission_id))
        .where(
            Workbench.workspace_id == workspace_id,
            Mission.workspace_id == workspace_id,
            Mission.repository_id == repository_id,
            Workbench.host == host,
            col(Workbench.closed_at).is_(None),
        )
        .limit(1)
    )
    return await session.scalar(statement) is not None
