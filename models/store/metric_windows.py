"""Samples of a metric in a window of time, and the snapshots a mission keeps of them."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import func, or_, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.contracts.missions import MetricTarget
from models.domain.metrics import Sample
from models.store import agents, missions
from models.store.database import within
from models.tables.missions import Candidate, MetricSample, Mission

MAX_SAMPLES = 10_000
"""Of all metrics together, newest first, and of each that is doubted as many again: the judge is told what it sees."""
LEAST = 10
"""Samples of a metric and one doubted source, however many there are: enough to speak against a target."""


async def now(session: AsyncSession) -> datetime:
    """Read the database's clock, which all windows go by."""
    clock: datetime = (await session.execute(select(func.mc_now()))).scalar_one()
    return clock


class Seen(NamedTuple):
    """The samples by which a mission is judged, newest first by metric. `doubted` are sources whose work it may be."""

    samples: list[Sample]
    doubted: frozenset[str]


async def samples(
    session: AsyncSession,
    mission: Mission,
    targets: Iterable[MetricTarget],
    at: datetime,
    since: datetime | None = None,
) -> Seen:
    """Read the samples by which a mission is judged: those in a metric's widest window that ends `at`, none before
    `since`.

    Snapshots of missions are copies and do not count. Of those that were taken for one mission, such as by its probe,
    only its own. Before a merge who did it, and their kin, are not asked: what they saw was not the patch. No source
    that is doubted crowds out another.
    """
    wanted = tuple(targets)
    if not wanted:
        return Seen([], frozenset())
    found: list[Sample] = []
    (own, named), begins = await _doubted(session, mission), _begins(wanted, at, since)
    heard = own | named if since else named
    most = MAX_SAMPLES // len(begins)
    for metric_id, begin in begins.items():
        found += await _of_metric(session, mission, metric_id, (begin, at), own | named, most)
    if heard:
        found += await _of_each(session, mission, begins, at, heard, max(LEAST, most // len(heard)))
    return Seen(found, heard)


def _begins(targets: Iterable[MetricTarget], at: datetime, since: datetime | None) -> dict[str, datetime]:
    """Say when the widest window of each metric begins: it is read once, whatever number of targets it has."""
    begins: dict[str, datetime] = {}
    for target in targets:
        begin = at - timedelta(minutes=target.rolling_window_minutes)
        begins[target.metric_id] = min(begin, begins.get(target.metric_id, begin))
    return {metric_id: max(begin, since or begin) for metric_id, begin in begins.items()}


async def _doubted(session: AsyncSession, mission: Mission) -> tuple[frozenset[str], frozenset[str]]:
    """Name the agents whose word for a mission is not taken: who filed it, started it, took it or brought one of its
    candidates, and their kin; then those of whom others only say so.

    A filer writes down whom a mission is for, a person whose candidate one is, and one agent may have registered both
    who works and who watches: against it, each of them is heard.
    """
    theirs = select(Candidate.author, Candidate.added_by).where(
        Candidate.workspace_id == mission.workspace_id, Candidate.mission_id == mission.mission_id
    )
    candidates = (await session.execute(theirs)).all()
    began = [*await missions.filers(session, mission), *await missions.starters(session, mission)]
    took = [mission.assigned_to] if mission.claimed_at else []
    did = {*began, *took, *(row.added_by for row in candidates)}
    named = {mission.assigned_to, *(row.author for row in candidates)}
    known = await agents.among(session, mission.workspace_id, sorted(map(str, (did | named) - {None})))
    own = (known & did) | await agents.kin(session, mission.workspace_id, known & did)
    return own, known - own


async def _of_metric(
    session: AsyncSession,
    mission: Mission,
    metric_id: str,
    window: tuple[datetime, datetime],
    but: frozenset[str],
    most: int,
) -> list[Sample]:
    taken_for = col(MetricSample.mission_id)
    scope = or_(taken_for.is_(None), taken_for == mission.mission_id)
    statement = (
        select(MetricSample.metric_id, MetricSample.value, MetricSample.at, MetricSample.source)
        .where(
            MetricSample.workspace_id == mission.workspace_id,
            MetricSample.metric_id == metric_id,
            MetricSample.at > window[0],
            MetricSample.at <= window[1],
            col(MetricSample.source).not_in(but),
            col(MetricSample.phase).is_(None),
            scope,
        )
        .order_by(col(MetricSample.at).desc())
        .limit(most)
    )
    return [Sample.model_validate(row._asdict()) for row in await session.execute(statement)]


async def _of_each(
    session: AsyncSession,
    mission: Mission,
    begins: Mapping[str, datetime],
    at: datetime,
    sources: Iterable[str],
    most: int,
) -> list[Sample]:
    """Read the newest of each metric by each of these sources: the index `metric_observation_source` has them."""
    values = {
        "workspace_id": mission.workspace_id,
        "mission_id": mission.mission_id,
        "metric_ids": list(begins),
        "begins": list(begins.values()),
        "at": at,
        "sources": sorted(sources),
        "most": most,
    }
    return [Sample.model_validate(row) for row in await within(session)(_OF_EACH, values)]


_OF_EACH = """
    SELECT newest.* FROM unnest(CAST(%(metric_ids)s AS text[]), CAST(%(begins)s AS timestamptz[])) AS m (id, begin),
    unnest(CAST(%(sources)s AS text[])) AS whose (name), LATERAL (
        SELECT metric_id, value, at, source FROM metric_observation
        WHERE workspace_id = %(workspace_id)s AND metric_id = m.id AND source = whose.name
        AND at > m.begin AND at <= %(at)s AND phase IS NULL AND (mission_id IS NULL OR mission_id = %(mission_id)s)
        ORDER BY at DESC LIMIT %(most)s
    ) newest
"""


async def add(
    session: AsyncSession, workspace_id: str, mission_id: str, source: str, measured: Mapping[str, float]
) -> None:
    """Keep what a mission's own command measured as samples of now; a repeat has the same ids and adds nothing."""
    at = await now(session)
    found = [Sample(metric_id=name, value=value, at=at) for name, value in measured.items()]
    await _insert(session, workspace_id, mission_id, source, None, found)


async def snapshot(session: AsyncSession, workspace_id: str, mission_id: str, phase: str, seen: list[Sample]) -> None:
    """Keep a copy of the samples that a stage judged by (MISS-16)."""
    await _insert(session, workspace_id, mission_id, "snapshot", phase, seen)


class ErrorSeen(NamedTuple):
    """What went wrong in a subsystem, and who said so."""

    message: str
    actor: str


async def error_events(session: AsyncSession, workspace_id: str, subsystem_id: str, since: datetime) -> list[ErrorSeen]:
    """List the error events of a subsystem since a time: each is an anomaly."""
    rows = await session.execute(
        text(
            "SELECT coalesce(data->>'message', type) AS message, actor FROM event WHERE workspace_id = :workspace"
            " AND type = 'subsystem.error' AND subject_id = :subsystem AND occurred_at > :since ORDER BY id LIMIT 10"
        ),
        {"workspace": workspace_id, "subsystem": subsystem_id, "since": since},
    )
    return [ErrorSeen(str(row.message), row.actor) for row in rows]


async def _insert(
    session: AsyncSession, workspace_id: str, mission_id: str, source: str, phase: str | None, found: list[Sample]
) -> None:
    rows = [
        {
            "workspace_id": workspace_id,
            "observation_id": f"{mission_id}/{source}/{sample.metric_id}/{sample.at.isoformat() if phase else number}",
            "metric_id": sample.metric_id,
            "value": sample.value,
            "at": sample.at,
            "mission_id": mission_id,
            "phase": phase,
            "source": source,
        }
        for number, sample in enumerate(found)
    ]
    if rows:
        await session.execute(insert(MetricSample).on_conflict_do_nothing(), rows)
