"""What stage 7 knows of the probe before it judges: it stands in the record from its beginning to its end."""

from typing import NamedTuple

from sqlalchemy import and_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from models.store import stages
from models.tables.missions import Stage

_NAME = "probe"


class Probed(NamedTuple):
    """How the probe ran: why it broke, if it did, and how it was kept apart."""

    broken: str = ""
    isolation: str = ""


async def note(session: AsyncSession, record: Stage, probed: Probed) -> bool:
    """Say in an open record how the probe ran; false when a later try has it, or the mission was closed."""
    mine = and_(*stages.is_of(stages.ref_of(record)), col(Stage.log_id) == record.log_id)
    change = (
        update(Stage)
        .where(mine, col(Stage.ended_at).is_(None))
        .values(inputs={_NAME: probed._asdict()})
        .returning(col(Stage.stage))
    )
    return await session.scalar(change) is not None


def noted(record: Stage) -> Probed | None:
    """Read how the probe ran; None while it has not."""
    known = record.inputs.get(_NAME)
    return Probed(**known) if known else None
