"""Stages 2 and 3, and giving the workbench back."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from itertools import accumulate

from temporalio import activity

from activities.benches import Benches
from activities.heartbeats import heartbeating
from activities.logs import StageLog
from activities.recording import StageRecorder, Verdict
from models.contracts.pipeline import CloseInput, StageInput, StageResult
from models.domain.law import touches
from models.domain.stages import StageStatus
from models.store.stages import NewEvidence
from models.tables.missions import Stage

MAX_FILES_SHOWN = 500
MAX_PATHS, MAX_PATH_LETTERS = 2_000, 400_000
"""Of a change, kept for the policy, whose patterns are held against each; of more, any may hold secrets."""


def failed(reason: str) -> StageResult:
    """Say that a stage did not pass."""
    return StageResult(status=StageStatus.FAILED, reason=reason)


class CodeActivities:
    """A mission's checkouts and its commit, on the host that holds them."""

    def __init__(self, recorder: StageRecorder, benches: Benches) -> None:
        self._recorder, self._benches = recorder, benches

    async def pull_code(self, task: StageInput) -> StageResult:
        """Stage 2: have a checkout of the base commit."""

        async def work(log: StageLog, record: Stage) -> Verdict:
            job = await self._benches.open(task.ref)
            await self._benches.require_base(job, task.base_sha)
            tree = await job.bench.open("base", task.base_sha)
            reason = f"checked out {tree.sha[:12]}"
            return Verdict(StageResult(status=StageStatus.PASSED), StageStatus.PASSED, reason, git_sha=tree.sha)

        return StageResult.model_validate(await self._recorder.run(task, work, failed))

    async def branch_and_patch(self, task: StageInput) -> StageResult:
        """Stage 3: apply the candidate to the base, as a signed commit that only this installation holds (ADR 13)."""

        async def work(log: StageLog, record: Stage) -> Verdict:
            return await self._patch(task)

        return StageResult.model_validate(await self._recorder.run(task, work, failed))

    @activity.defn
    async def close_workbench(self, task: CloseInput) -> None:
        """Remove all that the mission has on this host."""
        async with heartbeating():
            await self._benches.close(task.workspace_id, task.mission_id)

    async def _patch(self, task: StageInput) -> Verdict:
        job = await self._benches.open(task.ref)
        job.require_write()
        await self._benches.require_base(job, task.base_sha)
        applied = await self._benches.apply(job, task)
        head_sha = await self._benches.commit(job, task.ref, applied)
        diff = await job.mirror.diff(task.base_sha, head_sha)
        law = await asyncio.to_thread(touches, applied.summary, job.commands.test_paths, job.commands.lines, diff)
        paths = _kept(applied.summary.paths)
        details = {
            "touched": law.model_dump(mode="json"),
            "files": [asdict(file) for file in applied.summary.files[:MAX_FILES_SHOWN]],
            "paths": paths,
            "more_paths": len(applied.summary.paths) > len(paths),
            "diff": NewEvidence("log", diff).digest,
            "patch_id": applied.patch_id,
            "source": applied.source,
        }
        answer = StageResult(status=StageStatus.PASSED, head_sha=head_sha, patch_id=applied.patch_id)
        added, removed, count = applied.summary.added, applied.summary.removed, len(applied.summary.files)
        reason = f"{count} file(s), +{added} -{removed} as {head_sha[:12]}"
        evidence = (NewEvidence("log", diff),)
        return Verdict(answer, StageStatus.PASSED, reason, details, git_sha=head_sha, evidence=evidence)


def _kept(paths: Sequence[str]) -> tuple[str, ...]:
    """Take as many of a change's paths as a policy is shown."""
    ends = accumulate(map(len, paths[:MAX_PATHS]))
    return tuple(path for path, end in zip(paths, ends, strict=False) if end <= MAX_PATH_LETTERS)
