"""The evidence records of stages: begun once, ended once, signed, and the mission's row moved in the same breath."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from typing import Any
from uuid import uuid4

import structlog
from sqlalchemy import ColumnElement, event, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.contracts.missions import TestResult
from models.contracts.pipeline import StageRef
from models.domain.canonical import canonical_json, digest_of, sha256_digest
from models.domain.errors import MissionControlError
from models.domain.events import EventType, Subject
from models.domain.stages import StageName, StageStatus
from models.store import blobs
from models.store.database import Ask, Clock, Database, Rows, clock, mark_events, set_clock, within
from models.store.stage_statements import ANSWER, CLOSE, OF_ROUND, OPEN, RECORD, STILL_OPEN, TELL
from models.tables.missions import Stage

WORKER = "worker"
CLOCK_HOLDS = 10.0
"""Seconds for which a reading of the database's clock is carried on, before it is read again."""
log = structlog.get_logger()

_EVENTS = {
    StageStatus.PASSED: EventType.STAGE_PASSED,
    StageStatus.FAILED: EventType.STAGE_FAILED,
    StageStatus.SKIPPED: EventType.STAGE_SKIPPED,
    StageStatus.WAITING_DECISION: EventType.STAGE_WAITING_DECISION,
}

Sign = Callable[[bytes], tuple[str, str]]
"""Signs bytes; the signature, and the id of the key."""


class Superseded(MissionControlError):
    """This try of a stage is not the latest any more: what it found is not recorded."""

    status = 409
    retryable = True


@dataclass(frozen=True)
class NewEvidence:
    """Something to keep as evidence: bytes, and what kind of thing they are."""

    kind: str
    content: bytes

    @cached_property
    def digest(self) -> str:
        """The name under which it is kept."""
        return sha256_digest(self.content)

    @property
    def is_large(self) -> bool:
        """Whether it is kept in a transaction of its own."""
        return len(self.content) >= blobs.LARGE


@dataclass(frozen=True)
class Ending:
    """All that a stage leaves behind when it ends. `answer` is what the activity returns, also when asked again."""

    status: StageStatus
    reason: str
    answer: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    git_sha: str | None = None
    config_hash: str | None = None
    log: bytes | None = None
    tests: tuple[TestResult, ...] = ()
    evidence: tuple[NewEvidence, ...] = ()

    @cached_property
    def contents(self) -> tuple[NewEvidence, ...]:
        """All that is kept as bytes, the log first."""
        return self.evidence if self.log is None else (NewEvidence("log", self.log), *self.evidence)


def subject(mission_id: str) -> Subject:
    """Name a mission as the subject of an event."""
    return Subject(kind="mission", id=mission_id)


async def load(session: AsyncSession, ref: StageRef) -> Stage | None:
    """Find the record of one run of a stage."""
    key = (ref.workspace_id, ref.mission_id, ref.round, ref.candidate, ref.stage.value)
    return await session.get(Stage, key)


async def of_round(session: AsyncSession, workspace_id: str, mission_id: str, number: int) -> Rows:
    """Read the columns of the ended records of one round, in the order of the pipeline."""
    return await within(session)(OF_ROUND, {"workspace_id": workspace_id, "mission_id": mission_id, "round": number})


async def open_of(session: AsyncSession, workspace_id: str, mission_id: str) -> list[Stage]:
    """Read a mission's records that have not ended, oldest first."""
    values = {"workspace_id": workspace_id, "mission_id": mission_id}
    return [Stage(**row) for row in await within(session)(STILL_OPEN, values)]


async def source_of(session: AsyncSession, ref: StageRef) -> str:
    """Name the commit that a candidate's ref led to when it was first applied; "" if it was not yet, or is a diff."""
    source = col(Stage.result)["source"].astext
    statement = (
        select(source)
        .where(
            Stage.workspace_id == ref.workspace_id,
            Stage.mission_id == ref.mission_id,
            Stage.candidate == ref.candidate,
            Stage.stage == StageName.BRANCH_AND_PATCH.value,
            source.is_not(None),
        )
        .order_by(col(Stage.round))
        .limit(1)
    )
    return await session.scalar(statement) or ""


async def last_ref(session: AsyncSession, workspace_id: str, mission_id: str, stage: StageName) -> StageRef:
    """Name a stage's run in the round and with the candidate that the mission came to."""
    statement = (
        select(Stage.round, Stage.candidate)
        .where(Stage.workspace_id == workspace_id, Stage.mission_id == mission_id)
        .order_by(col(Stage.round).desc(), col(Stage.started_at).desc())
        .limit(1)
    )
    number, candidate = (await session.execute(statement)).one_or_none() or (0, 0)
    return StageRef(workspace_id=workspace_id, mission_id=mission_id, stage=stage, round=number, candidate=candidate)


@dataclass(frozen=True)
class Begun:
    """A record that is open, or has ended before, and the database's clock as it was read with it."""

    record: Stage
    clock: Clock


async def begin(session: AsyncSession, ref: StageRef, attempt: int) -> Stage:
    """Open a stage's record, or find it: one that has ended is returned as it is and must not be done again."""
    begun = await _begin(within(session), ref, attempt)
    set_clock(session, begun.clock)
    mark_events(session)
    return begun.record


async def begin_alone(db: Database, ref: StageRef, attempt: int) -> Begun:
    """Open a stage's record, or find it, in a transaction of its own."""
    return await _begin(partial(db.alone, ref.workspace_id, has_events=True), ref, attempt)


async def _begin(ask: Ask, ref: StageRef, attempt: int) -> Begun:
    values = {**_key(ref), "attempt": attempt, "log_id": str(uuid4()), "told": canonical_json(_place(ref)).decode()}
    # A record that ended while this waited for it is seen by a second look.
    [row] = await ask(OPEN, values) or await ask(OPEN, values)
    read = Clock.just_read(row.pop("clock"))
    return Begun(Stage(**row), read)


async def wait_for_decision(session: AsyncSession, record: Stage, decision_id: str) -> None:
    """Mark an open stage as waiting for a human; one that waited for this answer already is told of once."""
    inputs = {"decision_id": decision_id}
    is_news = record.inputs != inputs
    await session.execute(
        update(Stage).where(*is_of(ref_of(record))).values(status=StageStatus.WAITING_DECISION.value, inputs=inputs)
    )
    if is_news:
        await tell(session, ref_of(record), EventType.STAGE_WAITING_DECISION, inputs)


async def end(session: AsyncSession, record: Stage, ending: Ending, sign: Sign) -> dict[str, Any]:
    """Close an open record: result, log, evidence, signature, history and event in the caller's transaction."""
    for item in ending.contents:
        if item.is_large:
            await blobs.put(session, record.workspace_id, item.content, item.digest)
    values = _closing(record, ending, clock(session).now, sign)
    ask = within(session)
    told = await ask(CLOSE, values)
    if not told:
        return await _earlier(ask, record)
    mark_events(session)
    _log_after_commit(session, _line(record, ending, told))
    return ending.answer


async def record(
    session: AsyncSession, ref: StageRef, attempt: int, ending: Ending, sign: Sign
) -> dict[str, Any] | None:
    """Write the whole record of a stage that takes no time; None when it has one already. It has no log or results."""
    now = clock(session).now
    whole = Stage(**_key(ref), status=ending.status.value, attempt=attempt, started_at=now)
    values = _closing(whole, ending, now, sign)
    told = await within(session)(
        RECORD, values | {"attempt": attempt, "told_start": canonical_json(_place(ref)).decode()}
    )
    if not told:
        return None
    mark_events(session)
    _log_after_commit(session, _line(whole, ending, told))
    return ending.answer


async def answer_of(session: AsyncSession, ref: StageRef) -> dict[str, Any]:
    """Read what a stage that has ended answered."""
    [found] = await within(session)(ANSWER, _key(ref))
    return dict(found["result"]["answer"])


async def end_alone(db: Database, begun: Begun, ending: Ending, sign: Sign) -> dict[str, Any]:
    """Close an open record in a transaction of its own; what is large must have been kept before."""
    record = begun.record
    ask = partial(db.alone, record.workspace_id, has_events=True)
    told = await ask(CLOSE, _closing(record, ending, await _now(ask, begun.clock), sign))
    if not told:
        return await _earlier(ask, record)
    log.info("stage_ended", **_line(record, ending, told))
    return ending.answer


async def _now(ask: Ask, read: Clock) -> datetime:
    """Tell the database's time: read anew where the clocks may have parted since, so that no stage ends too late."""
    if read.age < CLOCK_HOLDS:
        return read.now
    [row] = await ask("SELECT clock_timestamp() AS now", {})
    now: datetime = row["now"]
    return now


async def _earlier(ask: Ask, record: Stage) -> dict[str, Any]:
    """Give the answer of an earlier delivery, which has closed the record."""
    [found] = await ask(ANSWER, _key(ref_of(record)))
    if found["ended_at"] is None:
        raise Superseded("stage_superseded", f"a later try of {record.stage} has begun")
    return dict(found["result"]["answer"])


def _log_after_commit(session: AsyncSession, line: dict[str, Any]) -> None:
    event.listen(session.sync_session, "after_commit", lambda _: log.info("stage_ended", **line), once=True)


def _line(record: Stage, ending: Ending, told: Rows) -> dict[str, Any]:
    """Tell the log of a stage's end once it is a fact; the correlation id is the request's that filed the mission."""
    return {
        "mission_id": record.mission_id,
        "stage": record.stage,
        "round": record.round,
        "candidate": record.candidate,
        "status": ending.status.value,
        "reason": ending.reason[:200],
        "correlation_id": told[0]["correlation_id"],
    }


def _closing(record: Stage, ending: Ending, ended_at: datetime, sign: Sign) -> dict[str, Any]:
    """Gather what the closing statement takes: the signed columns, and history, evidence and event made of them."""
    ref, status = ref_of(record), ending.status.value
    values = _signed(record, ending, ended_at, sign)
    small = [item for item in ending.contents if not item.is_large]
    seconds = (ended_at - record.started_at).total_seconds()
    told = _place(ref) | {"reason": ending.reason, "seconds": round(seconds, 3)}
    return {
        **_key(ref),
        **values,
        **_tests(ending.tests),
        "result": canonical_json(values["result"]).decode(),
        "log_id": record.log_id,
        "entry": f"{ref.stage.value}/{ref.round}/{ref.candidate}",
        "kinds": [item.kind for item in ending.contents],
        "digests": [item.digest for item in ending.contents],
        "blobs": [item.content for item in small],
        "blob_digests": [item.digest for item in small],
        "told_result": f"{status}: {ending.reason}" if ending.reason else status,
        "type": _EVENTS[ending.status].value,
        "told": canonical_json(told).decode(),
    }


def _tests(tests: tuple[TestResult, ...]) -> dict[str, Any]:
    """Give results by columns."""
    return {
        "runs": [test.run for test in tests],
        "names": [test.name for test in tests],
        "outcomes": [test.outcome for test in tests],
        "durations": [test.duration_ms for test in tests],
    }


def _signed(record: Stage, ending: Ending, ended_at: datetime, sign: Sign) -> dict[str, Any]:
    values: dict[str, Any] = {
        "status": ending.status.value,
        "reason": ending.reason,
        # What is kept is signed by its digests; inputs and answer by their content.
        "result": {
            **ending.details,
            "answer": ending.answer,
            "inputs": ending.inputs,
            "evidence": [item.digest for item in ending.evidence],
        },
        "git_sha": ending.git_sha,
        "config_hash": ending.config_hash,
        "log_digest": None if ending.log is None else ending.contents[0].digest,
        "ended_at": ended_at,
    }
    digest = digest_of(signed_content({**_identity(record), **values}))
    signature, key_id = sign(digest.encode())
    return {**values, "digest": digest, "signature": signature, "key_id": key_id}


def signed_content(record: dict[str, Any]) -> dict[str, Any]:
    """Pick what a stage's digest covers, in a form that JSON can say: give it a record's columns, or a row's."""
    content = {name: record[name] for name in SIGNED_FIELDS}
    return content | {name: content[name].isoformat() for name in ("started_at", "ended_at")}


SIGNED_FIELDS = (
    "workspace_id",
    "mission_id",
    "stage",
    "round",
    "candidate",
    "attempt",
    "status",
    "reason",
    "result",
    "git_sha",
    "config_hash",
    "log_digest",
    "started_at",
    "ended_at",
)


def _identity(record: Stage) -> dict[str, Any]:
    return {name: getattr(record, name) for name in SIGNED_FIELDS if hasattr(record, name)}


def is_of(ref: StageRef) -> tuple[ColumnElement[bool], ...]:
    """Find the record of one run of a stage, as the conditions of a WHERE clause."""
    return (
        col(Stage.workspace_id) == ref.workspace_id,
        col(Stage.mission_id) == ref.mission_id,
        col(Stage.round) == ref.round,
        col(Stage.candidate) == ref.candidate,
        col(Stage.stage) == ref.stage.value,
    )


def ref_of(record: Stage) -> StageRef:
    """Name the run of the stage that a record is of."""
    return StageRef(
        workspace_id=record.workspace_id,
        mission_id=record.mission_id,
        stage=record.stage,
        round=record.round,
        candidate=record.candidate,
    )


async def tell(session: AsyncSession, ref: StageRef, kind: EventType, data: dict[str, Any]) -> None:
    """Write an event about a run of a stage, in the chain of the request that filed the mission."""
    told = canonical_json(_place(ref) | data).decode()
    await within(session)(TELL, {**_key(ref), "type": kind.value, "told": told})
    mark_events(session)


def _place(ref: StageRef) -> dict[str, Any]:
    """Say in an event which run of a stage it is about."""
    return {"stage": ref.stage.value, "number": ref.stage.number, "round": ref.round, "candidate": ref.candidate}


def _key(ref: StageRef) -> dict[str, Any]:
    """Give the columns that name a run of a stage, and its place in the pipeline."""
    return ref.model_dump(mode="json") | {"position": ref.stage.order}
