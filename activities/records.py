"""What only touches Postgres: skipped stress, diagnostics, metrics, controls, the end. Local activities."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.concluding import conclude
from activities.recording import StageRecorder, Verdict
from models.contracts.missions import AcceptanceCriteria, MetricTarget
from models.contracts.pipeline import Conclusion, ControlRecord, StageInput, StageRef, StageResult
from models.domain.canonical import canonical_json
from models.domain.events import EventType
from models.domain.metrics import Sample, Shortfall, unmet_targets
from models.domain.stages import StageName, StageStatus
from models.store import metric_windows, running, stages
from models.store.stages import NewEvidence
from models.tables.missions import Mission

Judge = Callable[[AsyncSession, Mission, StageRef], Awaitable[Verdict]]


class RecordActivities:
    """Writes what no outside tool does."""

    def __init__(self, recorder: StageRecorder) -> None:
        self._recorder, self._db = recorder, recorder.db

    @activity.defn
    async def record_control(self, change: ControlRecord) -> None:
        """Write an operator's command down."""
        async with self._db.workspace(change.workspace_id) as session:
            await running.record_control(session, change)

    @activity.defn
    async def conclude(self, end: Conclusion) -> None:
        """Stage 11: close the mission, with its CAPA where it did not end well, and whatever it left open."""
        async with self._db.workspace(end.ref.workspace_id) as session:
            await conclude(self._recorder, session, end, stages.WORKER)


async def record_fact(
    recorder: StageRecorder, session: AsyncSession, mission: Mission, task: StageInput
) -> StageResult:
    """Judge and record stage 5 (where nothing stresses), 6 or 7, which only touch Postgres."""
    verdict = await _FACTS[task.ref.stage](session, mission, task.ref)
    return StageResult.model_validate(await recorder.record_in(session, task, verdict))


async def _skip(session: AsyncSession, mission: Mission, ref: StageRef) -> Verdict:
    """Say that there is no stress command, so nothing was stressed (V-10)."""
    reason = "the repository has no stress command"
    return Verdict(StageResult(status=StageStatus.SKIPPED, reason=reason), StageStatus.SKIPPED, reason)


async def _publish(session: AsyncSession, mission: Mission, ref: StageRef) -> Verdict:
    """Store one report of all that the stages found (PIPE-06, V-77)."""
    done = await stages.of_round(session, ref.workspace_id, ref.mission_id, ref.round)
    report = {
        "mission_id": ref.mission_id,
        "round": ref.round,
        # As they stand now: stage 7 looks once more, and its record gives the verdict.
        "metrics": (await _measured(session, mission)).details,
        "stages": [
            stage | {"result": {key: value for key, value in stage["result"].items() if key != "answer"}}
            for stage in done
        ],
    }

    async def also(session: AsyncSession) -> None:
        await stages.tell(session, ref, EventType.DIAGNOSTICS_PUBLISHED, {"stages": len(done)})

    evidence = (NewEvidence("diagnostics", canonical_json(report)),)
    return Verdict(StageResult(status=StageStatus.PASSED), StageStatus.PASSED, evidence=evidence, also=also)


async def _collect(session: AsyncSession, mission: Mission, ref: StageRef) -> Verdict:
    """Hold the acceptance targets against real samples; no data is not met (PIPE-07)."""
    found = await _measured(session, mission)

    async def also(session: AsyncSession) -> None:
        await metric_windows.snapshot(session, ref.workspace_id, ref.mission_id, "before_merge", found.samples)

    status = StageStatus.FAILED if found.unmet else StageStatus.PASSED
    reason = "" if found.targets else "the mission has no metric targets"
    reason = "; ".join(str(shortfall) for shortfall in found.unmet) or reason
    answer = StageResult(status=status, reason=reason)
    evidence = (NewEvidence("metric", canonical_json(found.details)),)
    return Verdict(answer, status, reason, found.details, evidence=evidence, also=also)


class _Measured(NamedTuple):
    """A mission's targets, the samples at hand in their windows, and what these do not prove."""

    targets: tuple[MetricTarget, ...]
    samples: list[Sample]
    unmet: list[Shortfall]

    @property
    def details(self) -> dict[str, Any]:
        """All of it, as a record shows it."""
        return {name: [one.model_dump(mode="json") for one in found] for name, found in self._asdict().items()}


async def _measured(session: AsyncSession, mission: Mission) -> _Measured:
    """Hold the acceptance targets against what was measured until now."""
    targets = AcceptanceCriteria.model_validate(mission.acceptance_criteria).metric_targets
    if not targets:
        return _Measured((), [], [])
    now = await metric_windows.now(session)
    samples = await metric_windows.samples(session, mission, targets, now)
    return _Measured(targets, samples, unmet_targets(targets, samples, now))


_FACTS: dict[StageName, Judge] = {
    StageName.STRESS_TESTS: _skip,
    StageName.PUBLISH_DIAGNOSTICS: _publish,
    StageName.COLLECT_METRICS: _collect,
}
