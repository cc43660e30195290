"""What the reconciler reads across all workspaces."""

from typing import Any

from sqlalchemy import and_, func, or_, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only
from sqlmodel import col, select

from models.contracts.pipeline import CloseInput, DecisionRef
from models.contracts.reconciling import Leftover
from models.domain.states import DecisionStatus, MissionStatus
from models.store import decisions
from models.tables.missions import Decision, Mission, Workbench

BATCH = 1000
EVENT_RETENTION_DAYS = 30
FORGOTTEN_AT_ONCE = 50_000
"""Browser sessions: a pass removes more of them than come between two."""
OF_ONE_HOST = 50
"""Leftovers that a host is asked for in one pass: one that is gone costs each pass this much."""
SELDOM, ONE_PASS = 600, 15
"""Seconds: how often an old answer is told again, and a little more than lies between two passes."""

_ENDED = (MissionStatus.RESOLVED.value, MissionStatus.ESCALATED.value)
_RUNNING = (MissionStatus.IN_PROGRESS.value, MissionStatus.OBSERVING.value)


async def unacknowledged(session: AsyncSession) -> list[tuple[str, DecisionRef]]:
    """List answered decisions whose workflow has not said that it knows, and that are due to be told again.

    At first each pass tells them, after ten minutes one pass in ten minutes: a workflow takes 10,000 signals at most.
    """
    age = func.extract("epoch", func.mc_now() - col(Decision.resolved_at))
    statement = (
        select(Decision)
        .where(Decision.status != DecisionStatus.PENDING.value, col(Decision.acknowledged_at).is_(None))
        .where(col(Decision.mission_id).is_not(None))
        .where(or_(age < SELDOM, func.mod(age, SELDOM) < ONE_PASS))
        .order_by(col(Decision.resolved_at))
        .limit(BATCH)
    )
    return [(decision.workspace_id, decisions.reference(decision)) for decision in await session.scalars(statement)]


_KEYS: Any = (Mission.workspace_id, Mission.mission_id, Mission.correlation_id)


async def running(session: AsyncSession) -> list[Mission]:
    """List missions that should have a running workflow: also those whose workflow was started and did nothing yet."""
    statement = (
        select(Mission)
        .where(
            or_(
                col(Mission.status).in_(_RUNNING),
                and_(col(Mission.status) == MissionStatus.OPEN.value, col(Mission.run_id).is_not(None)),
            )
        )
        .options(load_only(*_KEYS))
        .order_by(col(Mission.created_at))
        .limit(50_000)
    )
    return list(await session.scalars(statement))


async def open_workbenches_of_ended(session: AsyncSession) -> list[Leftover]:
    """List workbenches still open though their mission has ended: of each host some, as one may be gone for good.

    Which ones is left to chance: those that cannot be cleared must not stand before the others in every pass.
    """
    place = func.row_number().over(partition_by=col(Workbench.host), order_by=func.random())
    left = (
        select(Workbench, place.label("place"))
        .join(
            Mission,
            (col(Mission.workspace_id) == col(Workbench.workspace_id))
            & (col(Mission.mission_id) == col(Workbench.mission_id)),
        )
        .where(col(Workbench.closed_at).is_(None), col(Mission.status).in_(_ENDED))
        .subquery()
    )
    chosen = select(left.c.host, left.c.workspace_id, left.c.mission_id)
    statement = chosen.where(left.c.place <= OF_ONE_HOST).order_by(left.c.place).limit(BATCH)
    return [
        Leftover(host=row.host, task=CloseInput(workspace_id=row.workspace_id, mission_id=row.mission_id))
        for row in await session.execute(statement)
    ]


async def make_partitions(session: AsyncSession) -> None:
    """Make the coming months' partitions of events."""
    await session.execute(text("SELECT mc_event_partitions(3)"))


async def drop_partitions(session: AsyncSession) -> None:
    """Drop those that are wholly past retention."""
    await session.execute(_DROP, {"days": EVENT_RETENTION_DAYS})


async def forget_sessions(session: AsyncSession) -> None:
    """Forget browser sessions that ran out, some of them where they are many."""
    await session.execute(_FORGET, {"limit": FORGOTTEN_AT_ONCE})


_DROP = text("SELECT mc_drop_event_partitions((mc_now() - make_interval(days => :days))::date)")
_FORGET = text(
    "DELETE FROM browser_session WHERE ctid = ANY(ARRAY("
    "SELECT ctid FROM browser_session WHERE expires_at < mc_now() LIMIT :limit))"
)
