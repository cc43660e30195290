"""Stage 4s: what the patch adds, seen by kept scanners (V-11). New high findings block, new medium ones ask a human."""

import hashlib
from dataclasses import replace
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from activities.benches import Benches
from activities.code import failed
from activities.logs import StageLog
from activities.recording import StageRecorder, Verdict
from activities.trials import Trials
from activities.workbench.scanners import read_change, scan_change
from models.contracts.pipeline import StageInput, StageRef, StageResult
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
            report = await self._scan(task, log)
            return replace(_verdict(task, report), also=partial(_withhold, task.ref) if report.secrets else None)

        return StageResult.model_validate(await self._recorder.run(task, work, failed))

    async def _scan(self, task: StageInput, log: StageLog) -> ScanReport:
        job = await self._benches.open(task.ref)
        await self._benches.require_head(job, task)
        git, path = self._benches.git, job.mirror.path
        change = await read_change(git, path, task.base_sha, task.head_sha)
        scans = [await scan_change(git, path, change, self._salt, job.bench.root / ".scan")]
        if job.commands.scan:
            scans.append(await self._trials.scan(job, task.base_sha, task.head_sha, change, log))
        return gather(*scans)


async def _withhold(ref: StageRef, session: AsyncSession) -> None:
    """Take away the patch as it was filed and as git made it: it holds a secret that must not stay in the database."""
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
