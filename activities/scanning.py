"""Stage 4s: what the patch adds, seen by kept scanners (V-11). New high findings block, new medium ones ask a human.

It comes before the tests, which may print, or name their cases by, whatever the patch holds.
"""

import hashlib
from contextlib import suppress
from dataclasses import replace
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from activities.benches import Benches, Job
from activities.code import failed
from activities.heartbeats import heartbeating
from activities.logs import StageLog
from activities.recording import StageRecorder, Verdict
from activities.trials import Trials
from activities.workbench.scanners import Change, read_change, scan_change, text_of
from models.contracts.pipeline import StageInput, StageRef, StageResult
from models.domain.errors import StageFailed
from models.domain.scanning import ScanReport, gather
from models.domain.stages import StageName, StageStatus
from models.store import blobs, candidates, stages
from models.tables.missions import Stage

REMOVED = "The patch holds a secret, so its text was removed. Take the secret out, and revoke it: it was sent to us."


class ScanActivities:
    """Scans a candidate."""

    def __init__(self, recorder: StageRecorder, benches: Benches, trials: Trials) -> None:
        self._recorder, self._benches, self._trials = recorder, benches, trials
        # Fingerprints of secrets must not be open to guessing, and must be equal on every host.
        self._salt = hashlib.sha256(recorder.key.sign(b"fingerprints of findings").encode()).digest()

    async def security_scan(self, task: StageInput) -> StageResult:
        """Run bandit and detect-secrets on the patch, and the repository's registered scanner if it has one."""

        async def work(log: StageLog, record: Stage) -> Verdict:
            job = await self._benches.open(task.ref)
            await self._benches.require_head(job, task)
            change = await read_change(job.mirror, task.base_sha, task.head_sha)
            report = await self._scan(job, task, change, log)
            verdict = _verdict(task, report)
            if not report.secrets:
                return verdict
            # At once: checkouts and objects of the patch hold it as well, and the mission may live on for days.
            await job.bench.close()
            return replace(verdict, also=partial(_withhold, task.ref))

        return StageResult.model_validate(await self._recorder.run(task, work, failed))

    async def withhold_unapplied(self, ref: StageRef) -> None:
        """Take away the text of a candidate that became no commit, where it surely holds a secret."""
        async with heartbeating():
            job = await self._benches.job(ref.workspace_id, ref.mission_id)
            with suppress(StageFailed):  # its text is gone already, or no scanner reads it: the stage has failed anyway
                _, diff = await self._benches.candidate(ref)
                scan = await scan_change(job.mirror, text_of(diff or b""), self._salt, job.bench.root / ".scan")
                if gather(scan).secrets:
                    async with self._recorder.db.workspace(ref.workspace_id) as session:
                        await _withhold(ref, session)

    async def _scan(self, job: Job, task: StageInput, change: Change, log: StageLog) -> ScanReport:
        scans = [await scan_change(job.mirror, change, self._salt, job.bench.root / ".scan")]
        if job.commands.scan:
            scans.append(await self._trials.scan(job, task.base_sha, task.head_sha, change, log))
        return gather(*scans)


async def _withhold(ref: StageRef, session: AsyncSession) -> None:
    """Take away what must not stay in the database: the patch as filed and as git made it."""
    filed = (await candidates.of_mission(session, ref.workspace_id, ref.mission_id))[ref.candidate]
    made = await stages.load(session, ref.model_copy(update={"stage": StageName.BRANCH_AND_PATCH}))
    digests = {filed.digest, made.result.get("diff") if made else None}
    for digest in sorted(digest for digest in digests if digest):
        await blobs.remove(session, digest, REMOVED)


def _verdict(task: StageInput, report: ScanReport) -> Verdict:
    status = StageStatus.FAILED if report.blocking else StageStatus.PASSED
    found = ", ".join(f"{number} {level}" for level, number in report.counts.items() if number)
    reason = report.reason or (f"new findings: {found}" if found else "no new findings")
    details = report.model_dump(mode="json") | {"medium": report.counts["medium"]}
    return Verdict(StageResult(status=status, reason=reason), status, reason, details, git_sha=task.head_sha)
