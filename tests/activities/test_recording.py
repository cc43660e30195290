"""A stage's end: what is large beforehand, then one short transaction that outlasts a Postgres that goes away."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from temporalio.testing import ActivityEnvironment

from activities.logs import StageLog
from activities.recording import StageRecorder, Verdict
from activities.trials import stored_results
from activities.workbench.signing import ServiceKey
from models.contracts.missions import TestResult
from models.contracts.pipeline import StageInput, StageRef, StageResult
from models.domain.canonical import digest_of
from models.domain.stages import StageName, StageStatus
from models.domain.testing import Outcome, Source, TestCase, TestReport
from models.store import blobs, stages
from models.store.connections import plain
from models.store.database import Clock, Database, clock, set_clock
from models.store.stages import Ending, NewEvidence
from models.tables.missions import Stage
from tests.fixtures.api import Team, database_url, db, migrated_template, settings, team
from tests.fixtures.logs import Lines
from tests.fixtures.servers import PostgresServer
from tests.fixtures.stages import service_key
from tests.fixtures.waiting import eventually, somebody_waits, until

__all__ = ["database_url", "db", "migrated_template", "service_key", "settings", "team"]

PASSED = StageResult(status=StageStatus.PASSED, reason="well")


class Door:
    """Shuts a database as a restart does: who is inside is thrown out, and nobody is let in."""

    def __init__(self, server: PostgresServer, url: str) -> None:
        self._server, self._name = server, str(make_url(url).database)

    async def shut(self) -> None:
        await asyncio.to_thread(self._set, False)

    async def open(self) -> None:
        await asyncio.to_thread(self._set, True)

    def _set(self, is_open: bool) -> None:
        name, allowed = sql.Identifier(self._name), sql.Literal(is_open)
        with psycopg.connect(plain(self._server.url), autocommit=True) as connection:
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(name, allowed))
            if not is_open:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self._name]
                )


@pytest.fixture
def door(postgres_server: PostgresServer, database_url: str) -> Door:
    return Door(postgres_server, database_url)


@pytest.fixture
async def task(db: Database, team: Team) -> StageInput:
    """A stage of a mission that is filed, without a repository behind it."""
    async with db.workspace(team.workspace_id) as session:
        for line in (
            "INSERT INTO repository (workspace_id, repository_id, name, url, place, target_branch, protected, env,"
            " created_by) VALUES (:w, 'r', 'r', '/r', '/r', 'main', false, 'dev', 'x')",
            "INSERT INTO mission (workspace_id, mission_id, repository_id, subsystem_id, severity, severity_rank,"
            " status, paused, control_version, mission_type, branch, env, protected, created_by, correlation_id)"
            " VALUES (:w, 'm', 'r', 's', 'low', 3, 'in_progress', false, 0, 'coding', 'main', 'dev', false, 'x', 'c')",
        ):
            await session.execute(text(line), {"w": team.workspace_id})
    return StageInput(ref=StageRef(workspace_id=team.workspace_id, mission_id="m", stage=StageName.RUN_TESTS))


Work = Callable[[StageLog, Stage], Awaitable[Verdict]]
Beats = list[tuple[Any, ...]]


@pytest.fixture
def beats() -> Beats:
    """The heartbeats that the stage sent by now."""
    return []


@pytest.fixture
def run(db: Database, service_key: ServiceKey, task: StageInput, beats: Beats) -> Callable[[Work], Awaitable[None]]:
    """Do the stage as a worker does."""

    async def act(work: Work) -> None:
        environment = ActivityEnvironment()
        environment.on_heartbeat = lambda *details: beats.append(details)
        await environment.run(StageRecorder(db, service_key).run, task, work, lambda why: PASSED)

    return act


async def rows(db: Database, task: StageInput, statement: str) -> list[tuple[Any, ...]]:
    async with db.workspace(task.ref.workspace_id) as session:
        return [tuple(row) for row in await session.execute(text(statement))]


async def test_a_restart_at_the_end_repeats_the_closing_alone(
    db: Database,
    door: Door,
    run: Callable[[Work], Awaitable[None]],
    task: StageInput,
    logged: Callable[[], Lines],
    beats: Beats,
) -> None:
    lines = logged()
    tries: list[asyncio.Task[None]] = []

    def outlasts() -> bool:
        """Whether the closing was cut off, and the stage still says that it lives."""
        return len(beats) >= 2 and "transaction_cut_off" in [line["event"] for line in lines()]

    async def open_later() -> None:
        await until(outlasts)
        await door.open()

    async def work(log: StageLog, record: Stage) -> Verdict:
        await door.shut()
        tries.append(asyncio.create_task(open_later()))
        evidence = NewEvidence("test", b"x" * blobs.LARGE)
        return Verdict(PASSED, StageStatus.PASSED, "well", evidence=(evidence,))

    await run(work)
    [opened] = tries
    await opened
    said = [line["event"] for line in lines()]
    assert said.count("stage_ended") == 1
    assert await rows(db, task, "SELECT status FROM stage") == [("passed",)]
    assert await rows(db, task, "SELECT count(*) FROM event WHERE type = 'stage.passed'") == [(1,)]


async def test_what_postgres_will_never_take_is_not_tried_again(run: Callable[[Work], Awaitable[None]]) -> None:
    async def work(log: StageLog, record: Stage) -> Verdict:
        return Verdict(PASSED, StageStatus.PASSED, "\0")

    with pytest.raises(DBAPIError):
        await run(work)


async def test_large_evidence_is_kept_before_and_small_with_the_record(
    db: Database, run: Callable[[Work], Awaitable[None]], task: StageInput
) -> None:
    large, small = NewEvidence("test", b"x" * blobs.LARGE), NewEvidence("test", b"small")

    async def work(log: StageLog, record: Stage) -> Verdict:
        return Verdict(PASSED, StageStatus.PASSED, evidence=(large, small))

    await run(work)
    [[closing]] = await rows(db, task, "SELECT xmin::text FROM stage")
    kept = dict(await rows(db, task, "SELECT digest, xmin::text FROM blob"))
    assert kept[small.digest] == closing
    assert kept[large.digest] != closing
    assert set(kept) == {digest for (digest,) in await rows(db, task, "SELECT digest FROM evidence")}


async def test_a_large_suite_is_recorded_in_order_and_signed(
    db: Database, run: Callable[[Work], Awaitable[None]], task: StageInput
) -> None:
    tests = tuple(
        TestResult(name=f"tests/test_{number}.py::test {{\"'\\,é", outcome="passed", duration_ms=number / 4, run=run_)
        for run_ in ("base", "before", "after")
        for number in range(20_000)
    )
    report = NewEvidence("test", b"r" * 1024 * 1024)

    async def work(log: StageLog, record: Stage) -> Verdict:
        await log.line("well")
        return Verdict(PASSED, StageStatus.PASSED, tests=tests, evidence=(report,))

    await run(work)
    await run(work)  # a second delivery changes nothing
    found = await rows(db, task, "SELECT run, name, outcome, duration_ms, ordinal FROM test_result ORDER BY ordinal")
    assert found == [(t.run, t.name, t.outcome, t.duration_ms, place) for place, t in enumerate(tests)]
    async with db.workspace(task.ref.workspace_id) as session:
        record = await stages.load(session, task.ref)
    assert record is not None
    assert record.result["evidence"] == [report.digest]
    assert record.log_digest is not None
    signed = stages.signed_content({name: getattr(record, name) for name in stages.SIGNED_FIELDS})
    assert record.digest == digest_of(signed)


async def test_a_try_that_waits_for_the_end_of_another_finds_it_ended(
    db: Database, service_key: ServiceKey, task: StageInput
) -> None:
    first = await stages.begin_alone(db, task.ref, 1)
    async with db.workspace(task.ref.workspace_id) as session:
        ending = Ending(StageStatus.PASSED, "well", {"status": "passed"})
        await stages.end(session, first.record, ending, lambda data: (service_key.sign(data), service_key.key_id))
        second = asyncio.create_task(stages.begin_alone(db, task.ref, 2))
        await eventually(lambda: somebody_waits(session))
    again = await second
    assert (again.record.attempt, again.record.status) == (1, "passed")
    assert again.record.ended_at is not None
    assert again.record.result["answer"] == ending.answer


async def test_a_stage_that_took_long_ends_by_the_databases_clock(
    db: Database, service_key: ServiceKey, task: StageInput
) -> None:
    begun = await stages.begin_alone(db, task.ref, 1)
    long_ago = Clock(begun.clock.read - timedelta(days=1), begun.clock.at - 2 * stages.CLOCK_HOLDS)
    ending = Ending(StageStatus.PASSED, "", {})
    sign = service_key.sign
    await stages.end_alone(db, replace(begun, clock=long_ago), ending, lambda data: (sign(data), service_key.key_id))
    [[ended, now]] = await rows(db, task, "SELECT ended_at, clock_timestamp() FROM stage")
    assert begun.clock.read < ended < now


async def test_no_stage_ends_before_it_begins_where_the_process_is_behind(
    db: Database, service_key: ServiceKey, task: StageInput
) -> None:
    async with db.workspace(task.ref.workspace_id) as session:
        known = clock(session)
        set_clock(session, Clock(known.read - timedelta(seconds=1), known.at))  # as if the answer had come late
        record = await stages.begin(session, task.ref, 1)
        ending = Ending(StageStatus.PASSED, "", {})
        await stages.end(session, record, ending, lambda data: (service_key.sign(data), service_key.key_id))
    [[began, ended]] = await rows(db, task, "SELECT started_at, ended_at FROM stage")
    assert began <= ended


async def test_a_try_that_was_overtaken_records_nothing(
    db: Database, service_key: ServiceKey, task: StageInput
) -> None:
    overtaken = await stages.begin_alone(db, task.ref, 1)
    await stages.begin_alone(db, task.ref, 2)
    ending = Ending(StageStatus.PASSED, "", {}, log=b"late", evidence=(NewEvidence("test", b"late too"),))
    with pytest.raises(stages.Superseded):
        await stages.end_alone(db, overtaken, ending, lambda data: (service_key.sign(data), service_key.key_id))
    assert await rows(db, task, "SELECT status, attempt FROM stage") == [("running", 2)]
    assert await rows(db, task, "SELECT 1 FROM blob") == []


@pytest.mark.parametrize(("length", "stored"), [(100, 20_000), (2000, 2097)])
def test_as_many_results_are_stored_as_one_short_transaction_takes(length: int, stored: int) -> None:
    cases = [TestCase(id="x" * length, outcome=Outcome.PASSED)] * 30_000
    assert len(stored_results("after", TestReport(source=Source.JUNIT, cases=tuple(cases)))) == stored
