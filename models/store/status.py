"""How many missions a workspace has, by where they stand."""

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, func, select

from models.domain.states import MissionStatus
from models.tables.missions import Mission


async def mission_counts(session: AsyncSession, workspace_id: str) -> dict[MissionStatus, int]:
    """Count a workspace's missions by status; every status is there."""
    statement = (
        select(Mission.status, func.count()).where(Mission.workspace_id == workspace_id).group_by(col(Mission.status))
    )
    counted = {MissionStatus(status): count for status, count in await session.execute(statement)}
    return {status: counted.get(status, 0) for status in MissionStatus}
