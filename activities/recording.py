"""Does a stage and records it in the same breath, however often it is asked to."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.heartbeats import heartbeating
from activities.logs import StageLog
from activities.workbench.signing import ServiceKey
from models.contracts.missions import TestResult
from models.contracts.pipeline import Payload, StageTask
from models.domain.errors import StageFailed
from models.domain.stages import StageStatus
from models.store import stages
from models.store.database import Database
from models.store.stages import Ending, NewEvidence
from models.tables.missions import Stage

Also = Callable[[AsyncSession], Awaitable[None]]


@dataclass
class Verdict:
    """What a stage found: the answer for the workflow, and what to keep. `also` is written in the same transaction."""

    answer: Payload
    status: StageStatus
    reason: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    git_sha: str | None = None
    config_hash: str | None = None
    tests: tuple[TestResult, ...] = ()
    evidence: tuple[NewEvidence, ...] = ()
    also: Also | None = None


Work = Callable[[StageLog, Stage], Awaitable[Verdict]]
Failure = Callable[[str], Payload]


class StageRecorder:
    """Wraps the work of a stage: opens its record, heartbeats, follows its log, signs and closes it."""

    def __init__(self, db: Database, key: ServiceKey) -> None:
        self.db, self.key = db, key

    async def run(self, task: StageTask, work: Work, failed: Failure) -> dict[str, Any]:
        """Do `work` unless the record says that it was done; `StageFailed` becomes a failed record.

        Returns the answer as data, so that a repeated call returns what the first one did.
        """
        ref = task.ref
        async with heartbeating():
            async with self.db.workspace(ref.workspace_id) as session:
                record = await stages.begin(session, ref, activity.info().attempt)
            if record.ended_at is not None:
                return dict(record.result["answer"])
            async with StageLog(self.db, ref.workspace_id, record.log_id or "") as log:
                try:
                    verdict = await work(log, record)
                except StageFailed as error:
                    details = {"code": error.code, **error.details}
                    verdict = Verdict(failed(error.message), StageStatus.FAILED, error.message, details)
            verdict.inputs = task.model_dump(mode="json", exclude={"ref"})
            verdict.details |= {"isolation": log.isolation} if log.isolation else {}
            return await self.close(record, verdict, log.content())

    async def close(self, record: Stage, verdict: Verdict, log: bytes | None = None) -> dict[str, Any]:
        """Sign and close an open record."""
        async with self.db.workspace(record.workspace_id) as session:
            return await self.close_in(session, record, verdict, log)

    async def close_in(
        self, session: AsyncSession, record: Stage, verdict: Verdict, log: bytes | None
    ) -> dict[str, Any]:
        """Sign and close an open record in a transaction that also does something else."""
        ending = Ending(
            status=verdict.status,
            reason=verdict.reason,
            answer=verdict.answer.model_dump(mode="json"),
            details=verdict.details,
            inputs=verdict.inputs,
            git_sha=verdict.git_sha,
            config_hash=verdict.config_hash,
            log=log,
            tests=verdict.tests,
            evidence=verdict.evidence,
        )
        answer = await stages.end(session, record, ending, self._sign)
        if verdict.also is not None:
            await verdict.also(session)
        return answer

    def _sign(self, payload: bytes) -> tuple[str, str]:
        return self.key.sign(payload), self.key.key_id
