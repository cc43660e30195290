"""Does a stage and records it in the same breath, however often it is asked to."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.heartbeats import heartbeating
from activities.logs import StageLog
from activities.patience import Patience
from activities.workbench.git import GitError
from activities.workbench.signing import ServiceKey
from models.configuration import load_prices
from models.contracts.missions import TestResult
from models.contracts.pipeline import Payload, StageTask
from models.domain.errors import StageFailed, Unavailable, WorkbenchLost
from models.domain.stages import StageName, StageStatus
from models.store import blobs, stages
from models.store.database import Database
from models.store.stages import Begun, Ending, NewEvidence
from models.tables.missions import Stage

PATIENCE = 300.0
"""Seconds for which a stage that is done waits for Postgres, before all its work is thrown away and done again."""
MAX_REASON = 20_000
"""Characters: a stage names each test that it holds against a patch, and its log is stored besides."""

T = TypeVar("T")
log = structlog.get_logger()

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

    def __init__(self, db: Database, key: ServiceKey, config_dir: Path | None = None) -> None:
        self.db, self.key, self._config_dir = db, key, config_dir
        self.patience = Patience()

    def second(self, day: date) -> Decimal | None:
        """What a second of a host costs on a day; None where nobody said, or what was said cannot be read."""
        try:
            return load_prices(self._config_dir).of_compute(day) if self._config_dir else None
        except Unavailable as error:
            log.warning("compute_not_priced", error=error.message)
            return None

    async def run(self, task: StageTask, work: Work, failed: Failure) -> dict[str, Any]:
        """Do `work` unless the record says that it was done; `StageFailed` becomes a failed record.

        Returns the answer as data, so that a repeated call returns what the first one did.
        """
        ref = task.ref
        async with heartbeating():
            begun = await stages.begin_alone(self.db, ref, activity.info().attempt)
            record = begun.record
            if record.ended_at is not None:
                return dict(record.result["answer"])
            async with StageLog(self.db, ref.workspace_id, record.log_id or "") as log:
                try:
                    verdict = await self.patiently(record, log, work)
                except StageFailed as error:
                    details = {"code": error.code, **error.details}
                    verdict = Verdict(failed(error.message), StageStatus.FAILED, error.message, details)
            verdict.inputs = task.inputs
            verdict.details |= {"isolation": log.isolation} if log.isolation else {}
            return await self._close(begun, verdict, log.content())

    async def patiently(self, record: Stage, log: StageLog, work: Callable[[StageLog, Stage], Awaitable[T]]) -> T:
        """Do the work of a stage; where git fails it, say in its log what the next try waits for.

        Raises:
            StageFailed: no later try can help, or none has for long enough. But a merge is asked about until an answer
                comes: nobody knows whether the last try reached the branch.
        """
        stage = f"{record.workspace_id}/{record.mission_id}/{record.stage}/{record.round}/{record.candidate}"
        try:
            done = await work(log, record)
        except (GitError, WorkbenchLost) as error:
            refused = self.patience.judge(stage, error)
            if refused is not None and record.stage != StageName.MERGE.value:
                self.patience.forget(stage)
                raise refused from error
            await log.line(f"try {activity.info().attempt}: {error.message.rstrip('.')}; trying again")
            await log.flush()
            raise
        except BaseException:
            self.patience.forget(stage)
            raise
        self.patience.forget(stage)
        return done

    async def _close(self, begun: Begun, verdict: Verdict, log: bytes | None) -> dict[str, Any]:
        """Sign and close an open record: what is large first, so that the transaction that counts is a short one.

        What is kept for a record that is never closed has no name by which anyone could ask for it; the next try finds
        the same bytes kept.
        """
        ending, also = _ending(verdict, log), verdict.also
        for item in ending.contents:
            if item.is_large:
                await self._keep(begun.record.workspace_id, item)
        if also is None:
            return await outlasting(lambda: stages.end_alone(self.db, begun, ending, self._sign))
        return await outlasting(lambda: self._close_with(begun.record, ending, also))

    async def _keep(self, workspace_id: str, item: NewEvidence) -> None:
        digest = await asyncio.to_thread(lambda: item.digest)
        await outlasting(lambda: self._put(workspace_id, item.content, digest))

    async def _put(self, workspace_id: str, content: bytes, digest: str) -> None:
        async with self.db.workspace(workspace_id) as session:
            await blobs.put(session, workspace_id, content, digest)

    async def _close_with(self, record: Stage, ending: Ending, also: Also) -> dict[str, Any]:
        async with self.db.workspace(record.workspace_id) as session:
            return await self._end(session, record, ending, also)

    async def close_in(
        self, session: AsyncSession, record: Stage, verdict: Verdict, log: bytes | None
    ) -> dict[str, Any]:
        """Sign and close an open record in a transaction that also does something else."""
        return await self._end(session, record, _ending(verdict, log), verdict.also)

    async def record_in(self, session: AsyncSession, task: StageTask, verdict: Verdict) -> dict[str, Any]:
        """Write the whole record of a stage that only looked, unless it has one: its answer counts."""
        verdict.inputs = task.inputs
        ending = _ending(verdict, None)
        answer = await stages.record(session, task.ref, activity.info().attempt, ending, self._sign)
        if answer is None:
            return await stages.answer_of(session, task.ref)
        if verdict.also is not None:
            await verdict.also(session)
        return answer

    async def _end(self, session: AsyncSession, record: Stage, ending: Ending, also: Also | None) -> dict[str, Any]:
        answer = await stages.end(session, record, ending, self._sign)
        if also is not None:
            await also(session)
        return answer

    def _sign(self, payload: bytes) -> tuple[str, str]:
        return self.key.sign(payload), self.key.key_id


def _ending(verdict: Verdict, log: bytes | None) -> Ending:
    return Ending(
        status=verdict.status,
        reason=verdict.reason[:MAX_REASON],
        answer=verdict.answer.model_dump(mode="json"),
        details=verdict.details,
        inputs=verdict.inputs,
        git_sha=verdict.git_sha,
        config_hash=verdict.config_hash,
        log=log,
        tests=verdict.tests,
        evidence=verdict.evidence,
    )


async def outlasting(act: Callable[[], Awaitable[T]]) -> T:
    """Do a transaction that may run twice again where Postgres cut it off; any other error is the caller's at once."""
    until, pause = time.monotonic() + PATIENCE, 0.1
    while True:
        try:
            return await act()
        except (DBAPIError, NoConnection) as error:
            if not _was_cut_off(error) or time.monotonic() > until:
                raise
            log.warning("transaction_cut_off", error=str(error).splitlines()[0])
        await asyncio.sleep(pause)
        pause = min(2 * pause, 2.0)


def _was_cut_off(error: DBAPIError | NoConnection) -> bool:
    return isinstance(error, OperationalError | NoConnection) or error.connection_invalidated
