"""The evidence records of stages: begun once, ended once, signed, and the mission's row moved in the same breath."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.contracts.missions import TestResult
from models.contracts.pipeline import StageRef
from models.domain.canonical import digest_of, sha256_digest
from models.domain.events import EventType, Subject
from models.domain.stages import StageStatus
from models.store import blobs, events
from models.store.events import Actor
from models.tables.missions import EvidenceRow, Mission, RemediationRow, Stage, TestResultRow

WORKER = "worker"

_EVENTS = {
    StageStatus.PASSED: EventType.STAGE_PASSED,
    StageStatus.FAILED: EventType.STAGE_FAILED,
    StageStatus.SKIPPED: EventType.STAGE_SKIPPED,
    StageStatus.WAITING_DECISION: EventType.STAGE_WAITING_DECISION,
}

Sign = Callable[[bytes], tuple[str, str]]
"""Signs bytes; the signature, and the id of the key."""


@dataclass(frozen=True)
class NewEvidence:
    """Something to keep as evidence: bytes, and what kind of thing they are."""

    kind: str
    content: bytes

    @property
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


async def begin(session: AsyncSession, ref: StageRef, attempt: int) -> Stage:
    """Open a stage's record, or find it: one that has ended is returned as it is and must not be done again."""
    known = await load(session, ref)
    if known is not None and known.ended_at is not None:
        return known
    log_id = str(uuid4())
    values = {
        "workspace_id": ref.workspace_id,
        "mission_id": ref.mission_id,
        "round": ref.round,
        "candidate": ref.candidate,
        "stage": ref.stage.value,
        "position": ref.stage.order,
        "status": StageStatus.RUNNING.value,
        "attempt": attempt,
        "reason": "",
        "log_id": log_id,
    }
    statement = (
        insert(Stage)
        .values(**values)
        .on_conflict_do_update(
            constraint="stage_pkey", set_={"attempt": attempt, "log_id": log_id, "status": "running"}
        )
        .returning(Stage)
    )
    record = (await session.scalars(statement, execution_options={"populate_existing": True})).one()
    await session.execute(
        update(Mission)
        .where(col(Mission.workspace_id) == ref.workspace_id, col(Mission.mission_id) == ref.mission_id)
        .values(stage=ref.stage.value)
    )
    if known is None:
        await tell(session, ref, EventType.STAGE_STARTED, {})
    else:
        await blobs.drop_log(session, ref.workspace_id, known.log_id)
    return record


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
    await blobs.drop_log(session, ref.workspace_id, record.log_id)
    ended_at: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    values = _signed(record, ending, log_digest, ended_at, sign)
    changed = await session.execute(update(Stage).where(*is_of(ref), col(Stage.ended_at).is_(None)).values(**values))
    if changed.rowcount == 0:  # type: ignore[attr-defined]  # an UPDATE's result has it
        finished = await load(session, ref)
        assert finished is not None  # noqa: S101  # the update matched no open row, so there is a closed one
        await session.refresh(finished)
        return dict(finished.result["answer"])
    await _keep(session, ref, ending, log_digest)
    duration = (ended_at - record.started_at).total_seconds()
    await tell(session, ref, _EVENTS[ending.status], {"reason": ending.reason, "seconds": round(duration, 3)})
    return ending.answer


def _signed(record: Stage, ending: Ending, log_digest: str | None, ended_at: datetime, sign: Sign) -> dict[str, Any]:
    values: dict[str, Any] = {
        "status": ending.status.value,
        "reason": ending.reason,
        "result": {"answer": ending.answer, **ending.details},
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


async def _keep(session: AsyncSession, ref: StageRef, ending: Ending, log_digest: str | None) -> None:
    """Write history, tests and evidence rows; each has a key of its own, so a second try adds nothing."""
    scope = {"workspace_id": ref.workspace_id, "mission_id": ref.mission_id}
    entry = f"{ref.stage.value}/{ref.round}/{ref.candidate}"
    kept = [("log", log_digest)] if log_digest else []
    for item in ending.evidence:
        kept.append((item.kind, await blobs.put(session, ref.workspace_id, item.content)))
    if kept:
        rows = [
            {**scope, "evidence_id": f"{entry}/{n}", "kind": kind, "stage": ref.stage.value, "digest": digest}
            for n, (kind, digest) in enumerate(kept)
        ]
        await session.execute(insert(EvidenceRow).values(rows).on_conflict_do_nothing())
    history = {
        **scope,
        "entry_id": entry,
        "stage": ref.stage.value,
        "actor": WORKER,
        "action": ref.stage.value,
        "result": f"{ending.status.value}: {ending.reason}" if ending.reason else ending.status.value,
        "git_sha": ending.git_sha,
        "config_hash": ending.config_hash,
    }
    await session.execute(insert(RemediationRow).values(**history).on_conflict_do_nothing())
    await _keep_tests(session, ref, ending.tests, log_digest)


async def _keep_tests(session: AsyncSession, ref: StageRef, tests: tuple[TestResult, ...], log: str | None) -> None:
    rows = [
        {
            "workspace_id": ref.workspace_id,
            "mission_id": ref.mission_id,
            "run": test.run,
            "round": ref.round,
            "candidate": ref.candidate,
            "ordinal": ordinal,
            "name": test.name,
            "outcome": test.outcome,
            "duration_ms": test.duration_ms,
            "log_digest": log,
        }
        for ordinal, test in enumerate(tests)
    ]
    if rows:
        await session.execute(insert(TestResultRow).on_conflict_do_nothing(), rows)


async def tell(session: AsyncSession, ref: StageRef, kind: EventType, data: dict[str, Any]) -> None:
    """Write an event about a run of a stage."""
    correlation = await _correlation(session, ref)
    place = {"stage": ref.stage.value, "number": ref.stage.number, "round": ref.round, "candidate": ref.candidate}
    await events.append(
        session, ref.workspace_id, kind, subject(ref.mission_id), Actor(WORKER, correlation), place | data
    )


async def _correlation(session: AsyncSession, ref: StageRef) -> str:
    """All that a mission does belongs to the chain of the request that filed it."""
    statement = select(Mission.correlation_id).where(
        Mission.workspace_id == ref.workspace_id, Mission.mission_id == ref.mission_id
    )
    return str((await session.execute(statement)).scalar_one())
