"""Stages 4 and 5: the tests at the base, at the base with the patch's tests, and at the patch; then the stress runs."""

import asyncio
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from activities.benches import Benches, Job
from activities.code import failed
from activities.logs import StageLog
from activities.recording import StageRecorder, Verdict
from activities.trials import Trials, report_bytes, stored_results
from activities.workbench.patching import commit_only
from models.contracts.missions import AcceptanceCriteria
from models.contracts.pipeline import StageInput, StageRef, StageResult
from models.domain import judging
from models.domain.judging import MAX_REPEATED, Flaky, judge, settle, suspects, unrepeated
from models.domain.law import split_test_files, touches
from models.domain.patches import PatchSummary
from models.domain.stages import StageStatus
from models.domain.stress import StressRun, compare_stress, in_words
from models.domain.testing import TestReport
from models.store import metric_windows
from models.store.stages import NewEvidence
from models.tables.missions import Stage

REPEATS = 2


class TestingActivities:
    """Proves a candidate by the repository's own commands."""

    __test__ = False

    def __init__(self, recorder: StageRecorder, benches: Benches, trials: Trials) -> None:
        self._recorder, self._benches, self._trials = recorder, benches, trials

    async def run_tests(self, task: StageInput) -> StageResult:
        """Stage 4: fail-to-pass and pass-to-pass, judged by name."""

        async def work(log: StageLog, record: Stage) -> Verdict:
            return await self._test(task, log)

        return StageResult.model_validate(await self._recorder.run(task, work, failed))

    async def stress_tests(self, task: StageInput) -> StageResult:
        """Stage 5: the stress command at the base and at the patch."""

        async def work(log: StageLog, record: Stage) -> Verdict:
            return await self._stress(task, log)

        return StageResult.model_validate(await self._recorder.run(task, work, failed))

    async def _test(self, task: StageInput, log: StageLog) -> Verdict:
        job = await self._benches.open(task.ref)
        await self._benches.require_head(job, task)
        changes = await job.mirror.changed_files(task.base_sha, task.head_sha)
        bare = await self._trials.base(job, task.base_sha, log)
        before = await self._before(job, task, changes, bare, log)
        after = await self._trials.test(job, "patched", task.head_sha, task.base_sha, log)
        asked = (await asyncio.to_thread(touches, changes, job.commands.test_paths)).existing_tests
        names = await asyncio.to_thread(suspects, bare, after, asked)
        flaky = await self._repeat(job, task, bare, names, log)
        criteria = AcceptanceCriteria.model_validate(job.mission.acceptance_criteria)
        runs = (bare, before, after)
        # Reports are hostile until proven otherwise, and large: meanwhile the loop must heartbeat.
        verdict = await asyncio.to_thread(
            judge, *runs, criteria.must_pass_tests, criteria.pass_to_pass, flaky=flaky, asked_files=asked
        )
        verdict = verdict.model_copy(update={"notes": verdict.notes + unrepeated(names)})
        return await asyncio.to_thread(_judged, task, verdict, *runs)

    async def _before(
        self, job: Job, task: StageInput, changes: PatchSummary, bare: TestReport, log: StageLog
    ) -> TestReport:
        """Run the base with the patch's tests; where it brings none, that is the base itself."""
        tests, _ = await asyncio.to_thread(split_test_files, changes, job.commands.test_paths)
        if not tests:
            return bare
        sha = await commit_only(job.mirror, task.base_sha, task.head_sha, tests, job.author)
        return await self._trials.test(job, "before", sha, task.base_sha, log)

    async def _repeat(
        self, job: Job, task: StageInput, bare: TestReport, names: tuple[str, ...], log: StageLog
    ) -> tuple[Flaky, ...]:
        """Repeat on both sides what passed and now fails, to tell the flaky from the broken."""
        if not names or len(names) > MAX_REPEATED:
            return ()
        sides: dict[str, list[TestReport]] = {"base": [], "patched": []}
        for number in range(1, REPEATS + 1):
            await log.line(f"repeating {len(names)} test(s) that passed and now fail, {number} of {REPEATS}")
            for tree, sha in (("base", task.base_sha), ("patched", task.head_sha)):
                report = await self._trials.test(job, tree, sha, task.base_sha, log, only=names)
                if report.stopped:
                    return settle(names, bare, sides["base"], sides["patched"])
                sides[tree].append(report)
        return settle(names, bare, sides["base"], sides["patched"])

    async def _stress(self, task: StageInput, log: StageLog) -> Verdict:
        job = await self._benches.open(task.ref)
        await self._benches.require_head(job, task)
        base = await self._trials.stress(job, "base", task.base_sha, task.base_sha, log)
        patched = await self._trials.stress(job, "patched", task.head_sha, task.base_sha, log)
        targets = AcceptanceCriteria.model_validate(job.mission.acceptance_criteria).metric_targets
        verdict = compare_stress(base, patched, targets)
        status = StageStatus.PASSED if verdict.passed else StageStatus.FAILED
        reason = in_words(verdict)
        details = verdict.model_dump(mode="json")
        also = partial(_measured, task.ref, patched) if verdict.passed else None
        answer = StageResult(status=status, reason=reason)
        return Verdict(answer, status, reason, details, git_sha=task.head_sha, also=also)


async def _measured(ref: StageRef, run: StressRun, session: AsyncSession) -> None:
    """Keep what a patch that passes was measured at as samples, which stage 7 judges by as well."""
    source = f"stress/{ref.round}/{ref.candidate}"
    await metric_windows.add(session, ref.workspace_id, ref.mission_id, source, run.measured)


def _summary(verdict: judging.Verdict) -> str:
    """Say in a line what the tests showed."""
    counted = ", ".join(f"{number} {outcome}" for outcome, number in verdict.counts["after"].items() if number)
    proven = f"; {len(verdict.must_pass)} must-pass proven" if verdict.must_pass else ""
    flaky = f"; {len(verdict.flaky)} flaky, not counted" if verdict.flaky else ""
    return f"{counted or 'exit code 0'}{proven}{flaky}"


def _judged(
    task: StageInput, verdict: judging.Verdict, bare: TestReport, before: TestReport, after: TestReport
) -> Verdict:
    status = StageStatus.PASSED if verdict.passed else StageStatus.FAILED
    reason = "; ".join(verdict.reasons) or _summary(verdict)
    runs = (("base", bare), ("before", before), ("after", after))
    wanted = {found.id for found in verdict.must_pass}
    return Verdict(
        StageResult(status=status, reason=reason[:2000]),
        status,
        reason,
        details=verdict.model_dump(mode="json"),
        git_sha=task.head_sha,
        tests=tuple(result for run, report in runs for result in stored_results(run, report, wanted)),
        evidence=tuple(NewEvidence("test", report_bytes(report)) for _, report in runs),
    )
