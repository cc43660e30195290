"""The evidence records of stages: begun once, ended once, signed, and the mission's row moved in the same breath."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import uuid4

import structlog
from sqlalchemy import ColumnElement, event, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.contracts.missions import TestResult
from models.contracts.pipeline import StageRef
from models.domain.canonical import canonical_json, digest_of, sha256_digest
from models.domain.errors import MissionControlError
from models.domain.events import EventType, Subject
from models.domain.stages import StageName, StageStatus
from models.store import blobs, events
from models.store.database import clock, mark_events
from models.store.events import Actor
from models.tables.missions import Mission, Stage

WORKER = "worker"
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


def subject(mission_id: str) -> Subject:
    """Name a mission as the subject of an event."""
    return Subject(kind="mission", id=mission_id)


async def load(session: AsyncSession, ref: StageRef) -> Stage | None:
    """Find the record of one run of a stage."""
    key = (ref.workspace_id, ref.mission_id, ref.round, ref.candidate, ref.stage.value)
    return await session.get(Stage, key)


async def of_round(session: AsyncSession, workspace_id: str, mission_id: str, number: int) -> list[Stage]:
    """Read the records of one round, in the order of the pipeline."""
    statement = (
        select(Stage)
        .where(Stage.workspace_id == workspace_id, Stage.mission_id == mission_id, Stage.round == number)
        .order_by(col(Stage.candidate), col(Stage.position))
    )
    return list(await session.scalars(statement))


async def open_of(session: AsyncSession, workspace_id: str, mission_id: str) -> list[Stage]:
    """Read a mission's records that have not ended, oldest first."""
    statement = (
        select(Stage)
        .where(Stage.workspace_id == workspace_id, Stage.mission_id == mission_id, col(Stage.ended_at).is_(None))
        .order_by(col(Stage.started_at))
    )
    return list(await session.scalars(statement))


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


async def begin(session: AsyncSession, ref: StageRef, attempt: int) -> Stage:
    """Open a stage's record, or find it: one that has ended is returned as it is and must not be done again."""
    values = {**_key(ref), "attempt": attempt, "log_id": str(uuid4()), "told": canonical_json(_place(ref)).decode()}
    opened = await session.scalars(_BEGIN, values, execution_options={"populate_existing": True})
    mark_events(session)
    record = opened.one_or_none() or await load(session, ref)
    assert record is not None  # noqa: S101  # it was opened now, or has ended before
    return record


# One round trip: a stage that answers at once spends most of its time in them.
_BEGIN = select(Stage).from_statement(
    text(
        """
    WITH known AS (
        SELECT log_id FROM stage WHERE workspace_id = :workspace_id AND mission_id = :mission_id AND round = :round
        AND candidate = :candidate AND stage = :stage
    ), opened AS (
        INSERT INTO stage (workspace_id, mission_id, round, candidate, stage, position, status, attempt, reason, log_id)
        VALUES (:workspace_id, :mission_id, :round, :candidate, :stage, :position, 'running', :attempt, '', :log_id)
        ON CONFLICT ON CONSTRAINT stage_pkey
        DO UPDATE SET attempt = :attempt, log_id = :log_id, status = 'running' WHERE stage.ended_at IS NULL
        RETURNING *
    ), moved AS (
        UPDATE mission SET stage = :stage WHERE workspace_id = :workspace_id AND mission_id = :mission_id
        AND EXISTS (SELECT FROM opened) RETURNING correlation_id
    ), dropped AS (
        DELETE FROM log_chunk WHERE workspace_id = :workspace_id AND log_id IN (SELECT log_id FROM known)
        AND EXISTS (SELECT FROM opened)
    ), told AS (
        INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
        SELECT :workspace_id, 'stage.started', 'mission', :mission_id, 'worker', correlation_id, CAST(:told AS jsonb)
        FROM moved WHERE NOT EXISTS (SELECT FROM known)
    )
    SELECT * FROM opened
    """
    )
)


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
    ref = ref_of(record)
    log_digest = await blobs.put(session, ref.workspace_id, ending.log) if ending.log is not None else None
    values = _signed(record, ending, log_digest, clock(session), sign)
    told = (await session.execute(_END, _closing(record, ending, values))).one_or_none()
    if told is None:
        finished = await load(session, ref)
        assert finished is not None  # noqa: S101  # the update matched no open row, so there is a closed one
        await session.refresh(finished)
        if finished.ended_at is None:
            raise Superseded("stage_superseded", f"a later try of {ref.stage.value} has begun")
        return dict(finished.result["answer"])
    mark_events(session)
    for item in ending.evidence:
        await blobs.put(session, ref.workspace_id, item.content, item.digest)
    await _keep_tests(session, ref, ending.tests, log_digest)
    _log_when_committed(session, ref, ending, told.correlation_id)
    return ending.answer


def _log_when_committed(session: AsyncSession, ref: StageRef, ending: Ending, correlation_id: str) -> None:
    """Tell the log of a stage's end once it is a fact; the correlation id is the request's that filed the mission."""
    line = {"mission_id": ref.mission_id, "stage": ref.stage.value, "round": ref.round, "candidate": ref.candidate}
    line |= {"status": ending.status.value, "reason": ending.reason[:200], "correlation_id": correlation_id}
    event.listen(session.sync_session, "after_commit", lambda _: log.info("stage_ended", **line), once=True)


def _closing(record: Stage, ending: Ending, values: dict[str, Any]) -> dict[str, Any]:
    """Gather what the closing statement takes: the signed columns, and history, evidence and event made of them."""
    ref, status = ref_of(record), ending.status.value
    kept = [("log", values["log_digest"])] if values["log_digest"] else []
    kept += [(item.kind, item.digest) for item in ending.evidence]
    seconds = (values["ended_at"] - record.started_at).total_seconds()
    told = _place(ref) | {"reason": ending.reason, "seconds": round(seconds, 3)}
    return {
        **_key(ref),
        **values,
        "result": canonical_json(values["result"]).decode(),
        "log_id": record.log_id,
        "entry": f"{ref.stage.value}/{ref.round}/{ref.candidate}",
        "kinds": [kind for kind, _ in kept],
        "digests": [digest for _, digest in kept],
        "told_result": f"{status}: {ending.reason}" if ending.reason else status,
        "type": _EVENTS[ending.status].value,
        "told": canonical_json(told).decode(),
    }


# History and evidence have keys of their own, so a second try adds nothing.
_END = text(
    """
    WITH closed AS (
        UPDATE stage SET status = :status, reason = :reason, result = CAST(:result AS jsonb), git_sha = :git_sha,
        config_hash = :config_hash, log_digest = :log_digest, digest = :digest, signature = :signature,
        key_id = :key_id, ended_at = :ended_at
        WHERE workspace_id = :workspace_id AND mission_id = :mission_id AND round = :round AND candidate = :candidate
        AND stage = :stage AND ended_at IS NULL AND log_id = :log_id RETURNING 1
    ), dropped AS (
        DELETE FROM log_chunk WHERE workspace_id = :workspace_id AND log_id = :log_id
    ), kept AS (
        INSERT INTO evidence (workspace_id, mission_id, evidence_id, kind, stage, digest)
        SELECT :workspace_id, :mission_id, CAST(:entry AS text) || '/' || number - 1, kind, :stage, digest
        FROM closed, unnest(CAST(:kinds AS text[]), CAST(:digests AS text[]))
        WITH ORDINALITY AS t (kind, digest, number)
        ON CONFLICT DO NOTHING
    ), noted AS (
        INSERT INTO remediation_event
        (workspace_id, mission_id, entry_id, stage, actor, action, result, git_sha, config_hash)
        SELECT :workspace_id, :mission_id, :entry, :stage, 'worker', :stage, :told_result, :git_sha, :config_hash
        FROM closed ON CONFLICT DO NOTHING
    ), told AS (
        INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
        SELECT :workspace_id, :type, 'mission', :mission_id, 'worker', correlation_id, CAST(:told AS jsonb)
        FROM closed, mission WHERE workspace_id = :workspace_id AND mission_id = :mission_id
    )
    SELECT (SELECT correlation_id FROM mission WHERE workspace_id = :workspace_id AND mission_id = :mission_id)
    FROM closed
    """
)


def _signed(record: Stage, ending: Ending, log_digest: str | None, ended_at: datetime, sign: Sign) -> dict[str, Any]:
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
        "log_digest": log_digest,
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


async def _keep_tests(session: AsyncSession, ref: StageRef, tests: tuple[TestResult, ...], log: str | None) -> None:
    """Keep results by one statement: a large suite has tens of thousands, and the closing transaction seconds."""
    columns = {
        "runs": [test.run for test in tests],
        "names": [test.name for test in tests],
        "outcomes": [test.outcome for test in tests],
        "durations": [test.duration_ms for test in tests],
    }
    if tests:
        await session.execute(_KEEP_TESTS, {**_key(ref), **columns, "log_digest": log})


_KEEP_TESTS = text(
    """
    INSERT INTO test_result
    (workspace_id, mission_id, run, round, candidate, ordinal, name, outcome, duration_ms, log_digest)
    SELECT :workspace_id, :mission_id, run, :round, :candidate, number - 1, name, outcome, duration_ms, :log_digest
    FROM unnest(CAST(:runs AS text[]), CAST(:names AS text[]), CAST(:outcomes AS text[]), CAST(:durations AS float8[]))
    WITH ORDINALITY AS t (run, name, outcome, duration_ms, number)
    ON CONFLICT DO NOTHING
    """
)


async def tell(session: AsyncSession, ref: StageRef, kind: EventType, data: dict[str, Any]) -> None:
    """Write an event about a run of a stage."""
    actor = Actor(WORKER, await _correlation(session, ref))
    await events.append(session, ref.workspace_id, kind, subject(ref.mission_id), actor, _place(ref) | data)


def _place(ref: StageRef) -> dict[str, Any]:
    """Say in an event which run of a stage it is about."""
    return {"stage": ref.stage.value, "number": ref.stage.number, "round": ref.round, "candidate": ref.candidate}


def _key(ref: StageRef) -> dict[str, Any]:
    """Give the columns that name a run of a stage, and its place in the pipeline."""
    return ref.model_dump(mode="json") | {"position": ref.stage.order}


async def _correlation(session: AsyncSession, ref: StageRef) -> str:
    """All that a mission does belongs to the chain of the request that filed it."""
    statement = select(Mission.correlation_id).where(
        Mission.workspace_id == ref.workspace_id, Mission.mission_id == ref.mission_id
    )
    return str((await session.execute(statement)).scalar_one())
