"""Stage 4s: what the patch adds, seen by kept scanners (V-11). New high findings block, new medium ones ask a human."""

import hashlib
import re
from contextlib import suppress
from dataclasses import replace
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from activities.benches import Benches, Job
from activities.code import failed
from activities.logs import StageLog
from activities.recording import StageRecorder, Verdict
from activities.trials import Trials
from activities.workbench.scanners import Change, read_change, scan_change
from models.contracts.pipeline import StageInput, StageRef, StageResult
from models.domain.errors import Gone
from models.domain.scanning import ScanReport, gather
from models.domain.stages import StageName, StageStatus
from models.store import blobs, candidates, stages
from models.tables.missions import Stage

REMOVED = "The patch holds a secret, so its text was removed. Take the secret out, and revoke it: it was sent to us."
_LONG_ENOUGH = 8
"""Characters from which on a text is looked for in what tests printed; shorter ones are everywhere."""
_QUOTED = r"[\"'`]([^\"'`]+)[\"'`]"


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
            return replace(verdict, also=partial(_withhold, task.ref, _secret_texts(report, change)))

        return StageResult.model_validate(await self._recorder.run(task, work, failed))

    async def _scan(self, job: Job, task: StageInput, change: Change, log: StageLog) -> ScanReport:
        scans = [await scan_change(job.mirror, change, self._salt, job.bench.root / ".scan")]
        if job.commands.scan:
            scans.append(await self._trials.scan(job, task.base_sha, task.head_sha, change, log))
        return gather(*scans)


async def _withhold(ref: StageRef, secrets: frozenset[bytes], session: AsyncSession) -> None:
    """Take away what must not stay in the database: the patch as filed and as git made it, and what quotes it."""
    filed = (await candidates.of_mission(session, ref.workspace_id, ref.mission_id))[ref.candidate]
    made = await stages.load(session, ref.model_copy(update={"stage": StageName.BRANCH_AND_PATCH}))
    digests = {filed.digest, made.result.get("diff") if made else None, await _quoting_log(ref, secrets, session)}
    for digest in sorted(digest for digest in digests if digest):
        await blobs.remove(session, digest, REMOVED)


async def _quoting_log(ref: StageRef, secrets: frozenset[bytes], session: AsyncSession) -> str | None:
    """Name what the tests printed, if a secret is in it."""
    tested = await stages.load(session, ref.model_copy(update={"stage": StageName.RUN_TESTS}))
    digest = tested.log_digest if tested else None
    with suppress(Gone):
        printed = await blobs.get(session, ref.workspace_id, digest) if digest else None
        return digest if any(secret in (printed or b"") for secret in secrets) else None
    return None  # another mission printed the same, and it was removed then


def _secret_texts(report: ScanReport, change: Change) -> frozenset[bytes]:
    """Gather the texts that give the secrets away: each line that holds one, and what it quotes."""
    added = {file.path: file.added for file in change.files}
    lines = [added.get(found.path, {}).get(found.line, "").strip() for found in report.blocking if found.is_secret]
    texts = (text for line in lines for text in (line, *re.findall(_QUOTED, line)))
    return frozenset(text.encode() for text in texts if len(text) >= _LONG_ENOUGH)


def _verdict(task: StageInput, report: ScanReport) -> Verdict:
    status = StageStatus.FAILED if report.blocking else StageStatus.PASSED
    found = ", ".join(f"{number} {level}" for level, number in report.counts.items() if number)
    reason = report.reason or (f"new findings: {found}" if found else "no new findings")
    details = report.model_dump(mode="json") | {"medium": report.counts["medium"]}
    return Verdict(StageResult(status=status, reason=reason), status, reason, details, git_sha=task.head_sha)
