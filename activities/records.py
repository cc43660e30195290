"""What only touches Postgres: skipped stress, diagnostics, metrics, controls, the end. Local activities."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.concluding import conclude
from activities.recording import StageRecorder, Verdict
from models.contracts.missions import AcceptanceCriteria, MetricTarget
from models.contracts.pipeline import (
    Conclusion,
    ControlRecord,
    RunsCheck,
    RunsKnown,
    StageInput,
    StageRef,
    StageResult,
)
from models.domain.canonical import canonical_json
from models.domain.events import EventType
from models.domain.metrics import Sample, Shortfall, met_in_words, missing_proof, unmet_targets
from models.domain.stages import StageName, StageStatus
from models.store import blobs, blocks, metric_windows, probes, running, stages
from models.store.probes import Probed
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
    async def heed_runs(self, asked: RunsCheck) -> RunsKnown:
        """Write down whether a limit blocks one of a mission's runs now, for its workflow knows with the answer."""
        key = (asked.workspace_id, asked.mission_id)
        async with self._db.workspace(asked.workspace_id) as session:
            return RunsKnown(is_blocked=await blocks.heed(session, *key, is_paused=asked.is_paused))

    @activity.defn
    async def conclude(self, end: Conclusion) -> None:
        """Stage 11: close the mission, with its CAPA where it did not end well, and whatever it left open."""
        async with self._db.workspace(end.ref.workspace_id) as session:
            await conclude(self._recorder, session, end, stages.WORKER)


def facts_before(task: StageInput, *, stressed: bool) -> list[StageInput]:
    """Ask for the stages before this one that only touch Postgres: 5 only where nothing was stressed."""
    names = [name for name in _FACTS if name.order < task.ref.stage.order]
    if stressed:
        names.remove(StageName.STRESS_TESTS)
    return [task.model_copy(update={"ref": task.ref.model_copy(update={"stage": name})}) for name in names]


async def record_fact(
    recorder: StageRecorder, session: AsyncSession, mission: Mission, task: StageInput
) -> StageResult:
    """Judge and record stage 5 (where nothing stresses), 6 or 7, which only touch Postgres."""
    if task.ref.stage is StageName.COLLECT_METRICS and mission.commands.get("probe"):
        return await _collect_probed(recorder, session, mission, task)
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

    reason = f"a report of {len(done)} stage(s) is stored"
    answer, evidence = StageResult(status=StageStatus.PASSED), (NewEvidence("diagnostics", canonical_json(report)),)
    return Verdict(answer, StageStatus.PASSED, reason, evidence=evidence, also=also)


async def _collect_probed(
    recorder: StageRecorder, session: AsyncSession, mission: Mission, task: StageInput
) -> StageResult:
    """Stage 7 of a repository with a probe; where that ran, it has begun the record, and its last words are the log."""
    record = await stages.load(session, task.ref)
    probed = probes.noted(record) if record else None
    verdict = await _collect(session, mission, task.ref, probed)
    if record is None or record.ended_at is not None:
        return StageResult.model_validate(await recorder.record_in(session, task, verdict))
    verdict.inputs = task.inputs
    verdict.details |= {"isolation": probed.isolation} if probed else {}
    log = await blobs.printed(session, record.workspace_id, record.log_id)
    return StageResult.model_validate(await recorder.close_in(session, record, verdict, log))


async def _collect(session: AsyncSession, mission: Mission, ref: StageRef, probed: Probed | None = None) -> Verdict:
    """Hold the acceptance targets against real samples; no data is not met (PIPE-07).

    Neither is anything where the probe broke: it would break twice after the merge, too, and cost a rollback.
    """
    found = await _measured(session, mission)

    async def also(session: AsyncSession) -> None:
        await metric_windows.snapshot(session, ref.workspace_id, ref.mission_id, "before_merge", found.samples)

    against = missing_proof(found.unmet, probed and probed.broken)
    status = StageStatus.FAILED if against else StageStatus.PASSED
    reason = against or found.met or "the mission has no metric targets"
    answer = StageResult(status=status, reason=reason)
    evidence = (NewEvidence("metric", canonical_json(found.details)),)
    return Verdict(answer, status, reason, found.details, evidence=evidence, also=also)


class _Measured(NamedTuple):
    """A mission's targets, the samples at hand in their windows, what these do not prove, and in words what they do."""

    targets: tuple[MetricTarget, ...]
    samples: list[Sample]
    unmet: list[Shortfall]
    met: str = ""

    @property
    def details(self) -> dict[str, Any]:
        """The data of it, as a record shows it."""
        found = {"targets": self.targets, "samples": self.samples, "unmet": self.unmet}
        return {name: [one.model_dump(mode="json") for one in rows] for name, rows in found.items()}


async def _measured(session: AsyncSession, mission: Mission) -> _Measured:
    """Hold the acceptance targets against what was measured until now."""
    targets = AcceptanceCriteria.model_validate(mission.acceptance_criteria).metric_targets
    if not targets:
        return _Measured((), [], [])
    now = await metric_windows.now(session)
    samples, doubted = await metric_windows.samples(session, mission, targets, now)
    unmet = await asyncio.to_thread(unmet_targets, targets, samples, now, doubted)
    return _Measured(targets, samples, unmet, "" if unmet else met_in_words(targets, samples, now))


_FACTS: dict[StageName, Judge] = {
    StageName.STRESS_TESTS: _skip,
    StageName.PUBLISH_DIAGNOSTICS: _publish,
    StageName.COLLECT_METRICS: _collect,
}
