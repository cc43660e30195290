"""Stage 10: looks at the world after the merge, and tests the merged branch once more at the end of the window."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.benches import Benches, Job
from activities.code import failed
from activities.heartbeats import heartbeating
from activities.logs import LOOKS_KEPT, LookLog, StageLog
from activities.recording import StageRecorder, Verdict, Work
from activities.trials import Trials, report_bytes, stored_results
from models.contracts.missions import AcceptanceCriteria, MetricTarget
from models.contracts.pipeline import (
    ObserveEnd,
    ObserveInput,
    ObserveResult,
    RollbackCheck,
    StageInput,
    StageRef,
    StageResult,
)
from models.domain.errors import MissionControlError, StageFailed
from models.domain.judging import still_failing
from models.domain.metrics import Sample, Shortfall, breaches, lasting, reporters, unmet_targets
from models.domain.stages import StageStatus
from models.domain.testing import TestReport
from models.store import blobs, metric_windows, running, stages
from models.store.metric_windows import Seen
from models.store.stages import NewEvidence
from models.tables.missions import Mission, Stage

logger = structlog.get_logger()


class ObservationActivities:
    """One look at a time; what was seen before comes with the question."""

    def __init__(self, recorder: StageRecorder, benches: Benches, trials: Trials) -> None:
        self._recorder, self._benches, self._trials = recorder, benches, trials

    @activity.defn
    async def look(self, seen: ObserveInput) -> ObserveResult:
        """Hold posted samples against the targets, and look for error events (a local activity)."""
        async with self._recorder.db.workspace(seen.ref.workspace_id) as session:
            return await self._judge(session, seen)

    @activity.defn
    async def probe(self, seen: ObserveInput) -> ObserveResult:
        """Run the repository's probe first, on the merged commit; then look."""
        async with heartbeating():
            job = await self._benches.open(seen.ref)
            measured: dict[str, float] = {}
            broken: tuple[str, ...] = ()
            log = LookLog()
            await log.line(f"look {seen.number}")
            try:
                await self._benches.require_base(job, seen.merge_sha)
                measured = await self._trials.probe(job, "merged", seen.merge_sha, log)
            except StageFailed as failure:
                broken = (f"the probe ({failure.message[:200]})",)
                await log.line(failure.message)
            async with self._recorder.db.workspace(seen.ref.workspace_id) as session:
                # A workflow that was reset counts its looks anew, in a window that begins later.
                source = f"probe/{seen.started_at.isoformat()}/{seen.number}"
                await metric_windows.add(session, seen.ref.workspace_id, seen.ref.mission_id, source, measured)
                return await self._judge(session, seen, broken, log)

    @activity.defn
    async def finish(self, seen: ObserveInput) -> ObserveEnd:
        """End the window: the must-pass tests run again on the branch as it is now, and the log goes on.

        A mission that passes needs its workbench no more.
        """
        result = ObserveEnd.model_validate(await self._recorder.run(seen, await self._ending(seen), failed))
        return result if result.failed else result.model_copy(update={"bench_closed": await self._close(seen.ref)})

    async def _close(self, ref: StageRef) -> bool:
        """Give the workbench back; false when that must be tried again, which is no reason to hold the mission."""
        try:
            async with heartbeating():
                await self._benches.close(ref.workspace_id, ref.mission_id)
        except (OSError, MissionControlError) as error:
            logger.warning("workbench_not_closed", mission_id=ref.mission_id, error=str(error))
            return False
        return True

    async def _ending(self, seen: ObserveInput) -> Work:
        looks = await self._looks(seen)

        async def work(log: StageLog, record: Stage) -> Verdict:
            await log.write(looks)
            job = await self._benches.open(seen.ref)
            names = AcceptanceCriteria.model_validate(job.mission.acceptance_criteria).must_pass_tests
            report, failing = await self._retest(job, log, names)
            async with self._recorder.db.workspace(seen.ref.workspace_id) as session:
                at = await metric_windows.now(session)
                samples = (await _samples(session, job.mission, at)).samples
                await metric_windows.snapshot(
                    session, seen.ref.workspace_id, seen.ref.mission_id, "after_merge", samples
                )
            return await asyncio.to_thread(_finished, seen, report, failing, samples)

        return work

    @activity.defn
    async def verify_rollback(self, task: StageInput) -> RollbackCheck:
        """Test the branch after the rollback; log and report are kept for the end of stage 11, which begins here."""
        ref = task.ref
        async with heartbeating():
            job = await self._benches.open(ref)
            async with self._recorder.db.workspace(ref.workspace_id) as session:
                record = await stages.begin(session, ref, activity.info().attempt)
            if record.ended_at is not None:
                raise MissionControlError("mission_ended", "the mission was closed from outside: nothing is tested")
            report: TestReport | None = None

            async def work(log: StageLog, record: Stage) -> tuple[TestReport, list[str]]:
                return await self._retest(job, log, ())

            async with StageLog(self._recorder.db, ref.workspace_id, record.log_id or "") as log:
                try:
                    report, failing = await self._recorder.patiently(record, log, work)
                except StageFailed as error:
                    failing = [error.message]
            return await self._checked(ref, log, report, failing)

    async def _checked(
        self, ref: StageRef, log: StageLog, report: TestReport | None, failing: Sequence[str]
    ) -> RollbackCheck:
        """Keep what the tests after a rollback left, and say how they went."""
        content = {"log_digest": log.content(), "report_digest": report_bytes(report) if report else None}
        async with self._recorder.db.workspace(ref.workspace_id) as session:
            kept = {name: await blobs.put(session, ref.workspace_id, data) for name, data in content.items() if data}
        return RollbackCheck(
            status=StageStatus.FAILED if failing else StageStatus.PASSED,
            reason=f"failing after the rollback: {', '.join(failing[:20])}" if failing else "the tests pass",
            tests=report.counts if report else {},
            isolation=log.isolation,
            **kept,
        )

    async def _retest(self, job: Job, log: StageLog, names: Sequence[str]) -> tuple[TestReport, list[str]]:
        """Test the branch as it is now; name what fails of the named tests, or of all where none is named.

        The whole command is run: names may be mere endings of ids, and do not say where their tests live.
        """
        await job.mirror.fetch()
        head, base_sha = await job.mirror.head(job.mission.branch), job.mission.context["git_sha"]
        bare = await self._trials.base(job, base_sha, log)
        report = await self._trials.test(job, "merged", head, base_sha, log)
        return report, await asyncio.to_thread(still_failing, names, bare, report)

    async def _looks(self, seen: ObserveInput) -> bytes:
        """Read what the looks printed, before the last try of the stage drops the pieces of those before it."""
        async with self._recorder.db.workspace(seen.ref.workspace_id) as session:
            record = await stages.load(session, seen.ref)
            return await blobs.printed(session, seen.ref.workspace_id, record.log_id) or b"" if record else b""

    async def _judge(
        self, session: AsyncSession, seen: ObserveInput, broken: tuple[str, ...] = (), log: LookLog | None = None
    ) -> ObserveResult:
        """Two breaches of one metric in a row, or one error event, are an anomaly (V-09); it ends stage 10 here."""
        mission = await running.load(session, seen.ref.workspace_id, seen.ref.mission_id)
        record = await stages.load(session, seen.ref)
        assert record is not None  # noqa: S101  # the merge's own transaction opened it
        if record.ended_at is not None:
            return ObserveResult(anomaly=record.reason if record.status == StageStatus.FAILED.value else "")
        if log is not None:
            await _keep(session, record, seen.number, log)
        errors = await metric_windows.error_events(
            session, mission.workspace_id, mission.subsystem_id, mission.merged_at or seen.started_at
        )
        at = await metric_windows.now(session)
        samples, doubted = await _samples(session, mission, at)
        unmet = await asyncio.to_thread(unmet_targets, _targets(mission), samples, at, doubted)
        now = (*breaches(unmet), *broken)
        outside = lasting(seen.breaches, now)
        anomaly = [_lasts(name, unmet) for name in outside]
        anomaly += [f"error in {mission.subsystem_id}: {error.message[:200]}" for error in errors]
        if anomaly:
            told_by = reporters(samples, outside) | {error.actor for error in errors}
            details = {"told_by": sorted(told_by)} | ({"isolation": log.isolation} if log else {})
            verdict = Verdict(failed("; ".join(anomaly)), StageStatus.FAILED, "; ".join(anomaly), details)
            printed = await blobs.printed(session, record.workspace_id, record.log_id)
            await self._recorder.close_in(session, record, verdict, printed)
        return ObserveResult(breaches=now, anomaly="; ".join(anomaly))


async def _keep(session: AsyncSession, record: Stage, number: int, log: LookLog) -> None:
    """Add a look's last words to the stage's log; of a long window it holds the latest looks."""
    log_id = record.log_id or ""
    await blobs.add_chunk(session, record.workspace_id, log_id, number, log.content())
    await blobs.forget_chunks(session, record.workspace_id, log_id, before=number - LOOKS_KEPT + 1)


def _lasts(name: str, unmet: Sequence[Shortfall]) -> str:
    """Say what was wrong twice, with what was seen the second time."""
    seen = "; ".join(str(found) for found in unmet if found.metric_id == name and found.observed is not None)
    return f"{name} was outside its target, or broken, twice in a row" + (f" ({seen})" if seen else "")


async def _samples(session: AsyncSession, mission: Mission, at: datetime) -> Seen:
    """Read what was measured from the merge until then."""
    return await metric_windows.samples(session, mission, _targets(mission), at, since=mission.merged_at or at)


def _targets(mission: Mission) -> tuple[MetricTarget, ...]:
    return AcceptanceCriteria.model_validate(mission.acceptance_criteria).metric_targets


def _finished(seen: ObserveInput, report: TestReport, failing: list[str], samples: list[Sample]) -> Verdict:
    """End stage 10: it passes unless the run at the window's end found something."""
    status = StageStatus.FAILED if failing else StageStatus.PASSED
    reason = f"no anomaly in {seen.number - 1} look(s)"
    if failing:
        reason = f"failing at the window's end: {', '.join(failing[:20])}"
    return Verdict(
        StageResult(status=status, reason=reason),
        status,
        reason,
        details={"looks": seen.number - 1, "samples": len(samples), "tests": report.counts},
        git_sha=seen.merge_sha,
        tests=stored_results("observe", report),
        evidence=(NewEvidence("test", report_bytes(report)),),
    )
