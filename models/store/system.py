"""What an operator's tools ask of the whole installation (system door)."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.states import MissionStatus

_LIVE = (MissionStatus.OPEN, MissionStatus.IN_PROGRESS, MissionStatus.OBSERVING)


@dataclass(frozen=True)
class Schema:
    """What the database is: its migration, and whether its rows come from another cluster and nobody noticed yet."""

    revision: str
    restored: bool


@dataclass(frozen=True)
class Load:
    """What is going on now. Ended missions are not counted: there may be millions."""

    missions: dict[str, int]
    pending_decisions: int


async def schema(session: AsyncSession) -> Schema:
    """Look at the schema; an empty database has none, and its revision is `none`."""
    if not (await session.execute(_MIGRATED)).scalar_one():
        return Schema("none", restored=False)
    row = (await session.execute(_SCHEMA)).one()
    return Schema(row.revision, row.restored)


async def load(session: AsyncSession) -> Load:
    """Count what runs and waits, in all workspaces."""
    live = {status.value: 0 for status in _LIVE}
    counted = await session.execute(_MISSIONS, {"live": list(live)})
    missions = live | {status: count for status, count in counted}
    return Load(missions, (await session.execute(_PENDING)).scalar_one())


_MIGRATED = text("SELECT to_regclass('alembic_version') IS NOT NULL AND to_regclass('installation') IS NOT NULL")
_SCHEMA = text(
    "SELECT (SELECT version_num FROM alembic_version) AS revision,"
    " system_identifier <> (SELECT system_identifier::text FROM pg_control_system()) AS restored FROM installation"
)
_MISSIONS = text("SELECT status, count(*) AS count FROM mission WHERE status = ANY(:live) GROUP BY status")
_PENDING = text("SELECT count(*) FROM decision WHERE status = 'pending'")
