"""Samples of metrics: kept in batches, read by metric and by mission."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from sqlalchemy import func, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.errors import InvalidInput
from models.domain.events import EventType, Subject
from models.schemas.metrics import ObservationCreate
from models.schemas.pagination import PageRequest
from models.store import events, lists, missions
from models.store.events import Actor
from models.store.pagination import Rows
from models.tables.missions import MetricSample

AHEAD = timedelta(minutes=1)
"""How far a reporter's clock may be ahead of the database's."""
FIRST = datetime(1970, 1, 1, tzinfo=UTC)
"""Of what PostgreSQL keeps, Python cannot read the times before its first year."""


async def observe(
    session: AsyncSession, workspace_id: str, samples: Sequence[ObservationCreate], actor: Actor
) -> list[str]:
    """Keep samples and return their ids in order; one event tells of each metric among them.

    Raises:
        NotFound: a sample names a mission that the workspace does not have; then none is kept.
        InvalidInput: `observation_in_future`, so that it would be the newest for long, or `observation_too_old`.
    """
    await missions.require_all(session, workspace_id, {sample.mission_id for sample in samples if sample.mission_id})
    now: datetime = (await session.execute(select(func.mc_now()))).scalar_one()
    if any(sample.at and sample.at > now + AHEAD for sample in samples):
        told = f"a sample is of a time after now ({now.isoformat()}) by more than {AHEAD.seconds} s: set your clock"
        raise InvalidInput("observation_in_future", told)
    if any(sample.at and sample.at < FIRST for sample in samples):
        raise InvalidInput("observation_too_old", f"a sample is of a time before {FIRST.isoformat()}: set your clock")
    rows = [
        {
            "workspace_id": workspace_id,
            "observation_id": str(uuid4()),
            "metric_id": sample.metric_id,
            "value": sample.value,
            "at": sample.at or now,
            "mission_id": sample.mission_id,
            "source": actor.name,
        }
        for sample in samples
    ]
    await session.execute(insert(MetricSample), rows)
    for metric_id, count in Counter(sample.metric_id for sample in samples).items():
        about = Subject(kind="metric", id=metric_id)
        await events.append(session, workspace_id, EventType.METRIC_OBSERVED, about, actor, {"count": count})
    return [str(row["observation_id"]) for row in rows]


async def list_page(
    session: AsyncSession, workspace_id: str, filters: Mapping[str, object], page: PageRequest
) -> Rows[MetricSample]:
    """Read one page of samples."""
    keys = (col(MetricSample.at), col(MetricSample.observation_id))
    return await lists.fetch(session, MetricSample, workspace_id, filters, keys, page)
