"""What becomes of open streams when the database dies, comes back, or is another one."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from models.domain.events import Event
from models.settings import Settings
from models.store import tail as tails
from models.store.connections import plain
from models.store.database import Database
from models.store.events import Place
from models.store.migrate import migrate
from models.store.tail import Tail
from tests.fixtures.api import Team, make_team, served
from tests.fixtures.logs import Lines
from tests.fixtures.waiting import eventually
from tests.fixtures.watching import PATIENCE, tell, watching
from worker.dev.ports import free_port
from worker.dev.postgres import EmbeddedPostgres, installed_binaries


@pytest.fixture
async def own_postgres(open_dir: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A server that the test may kill."""
    async with EmbeddedPostgres(open_dir, Settings().cache_dir, free_port()) as server:
        await asyncio.to_thread(migrate, server.url)
        yield server


def on(settings: Settings, server: EmbeddedPostgres) -> Settings:
    """The settings, with another database."""
    return settings.model_copy(update={"database_url": SecretStr(server.url)})


async def kill(server: EmbeddedPostgres) -> None:
    """SIGKILL the server and all its backends."""
    assert server.child
    await server.child.kill()


async def test_postgres_is_killed_and_comes_back(settings: Settings, own_postgres: EmbeddedPostgres) -> None:
    theirs = on(settings, own_postgres)
    db = Database.from_settings(theirs)
    team = await make_team(db)
    async with served(theirs) as address, watching(address, team.observer) as watch:
        await tell(db, team.workspace_id, "before")
        assert await watch.subjects(1) == ["before"]
        await kill(own_postgres)
        await own_postgres.start()
        await db.close()
        db = Database.from_settings(theirs)
        await tell(db, team.workspace_id, "after", "and more")
        assert await watch.subjects(2) == ["after", "and more"]
    await db.close()


async def test_an_api_that_starts_before_its_database(settings: Settings, own_postgres: EmbeddedPostgres) -> None:
    theirs = on(settings, own_postgres)
    db = Database.from_settings(theirs)
    team = await make_team(db)
    await db.close()
    await own_postgres.stop()
    async with served(theirs) as address:
        await own_postgres.start()
        async with watching(address, team.observer) as watch:
            db = Database.from_settings(theirs)
            await tell(db, team.workspace_id, "first")
            assert await watch.subjects(1) == ["first"]
            await db.close()


async def test_dump_restore_into_a_new_cluster_and_the_stream_goes_on(
    settings: Settings, own_postgres: EmbeddedPostgres, open_dir: Path
) -> None:
    old = on(settings, own_postgres)
    db = Database.from_settings(old)
    team = await make_team(db)
    use_transaction_ids(own_postgres, 2000)
    last_seen = await tell(db, team.workspace_id, "seen")
    await tell(db, team.workspace_id, "missed")
    await db.close()
    async with EmbeddedPostgres(open_dir / "new", Settings().cache_dir, free_port()) as target:
        move(own_postgres, target, open_dir / "dump")
        new = on(settings, target)
        async with served(new) as address, httpx2.AsyncClient() as anyone:
            answer = await anyone.get(f"{address}/readyz")
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "restored_dump")
        await asyncio.to_thread(migrate, target.url)
        db = Database.from_settings(new)
        async with served(new) as address, watching(address, team.observer, last_id=str(last_seen)) as watch:
            place = await tell(db, team.workspace_id, "new")
            assert await watch.subjects(2) == ["missed", "new"]
            await tell(db, team.workspace_id, "newer")
            assert await watch.subjects(1) == ["newer"]
        assert place.epoch == last_seen.epoch + 1
        assert place.xid < last_seen.xid, "the new cluster counts transactions from the beginning: what epochs are for"
        await db.close()


async def tell_of_tomorrow(db: Database, workspace_id: str) -> None:
    """Write an event of a type that only a newer version knows, as its worker does while this API still runs."""
    async with db.workspace(workspace_id) as session:
        await session.execute(text(TOMORROWS), {"workspace_id": workspace_id})


TOMORROWS = (
    "INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)"
    " VALUES (:workspace_id, 'healing.started', 'subsystem', 'x', 'worker', 'c', '{}')"
)


async def test_types_of_a_newer_version_are_passed_on(
    settings: Settings, db: Database, team: Team, logged: Callable[[], Lines]
) -> None:
    lines, own = logged(), ["subsystem.report"]
    first = await tell(db, team.workspace_id, "first")
    async with served(settings) as address, watching(address, team.observer) as watch:
        for name in ("second", "third"):
            await tell_of_tomorrow(db, team.workspace_id)
            await tell(db, team.workspace_id, name)
        assert await watch.types(4) == ["healing.started", *own] * 2
        async with watching(address, team.observer, str(first), type="subsystem.*") as choosy:
            assert await choosy.subjects(2) == ["second", "third"]
    async with served(settings) as address, watching(address, team.observer, str(first)) as late:
        assert await late.types(4) == ["healing.started", *own] * 2
    told = [line["type"] for line in lines() if line["event"] == "event_type_unknown"]
    assert told == ["healing.started"], "said once, not with every event"


INTO = "INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)"
ODD: dict[str, tuple[str, str, str]] = {
    "no name": ("run", "''", "'{}'"),
    "a long name": ("run", "repeat('x', 3 * 256)", "'{}'"),
    "a long kind": ("k" * 65, "'x'", "'{}'"),
    "no object": ("run", "'x'", "'[1, 2]'"),
    "a number that is too long": ("run", "'x'", "'{\"number\": 1e9999}'"),
    "what nests too deep": ("run", "'x'", "CAST(repeat('{\"a\":', 5000) || '1' || repeat('}', 5000) AS jsonb)"),
    "what answers cannot hold": ("run", "'x'", "CAST(repeat('{\"a\":', 400) || '1' || repeat('}', 400) AS jsonb)"),
}
"""Kinds and names of subjects, and data, that the database takes and no event of ours has."""


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_one_odd_row_stops_nobody(
    settings: Settings, db: Database, team: Team, other_team: Team, odd: tuple[str, str, str]
) -> None:
    kind, name, data = odd
    first = await tell(db, team.workspace_id, "first")
    async with (
        served(settings) as address,
        watching(address, team.observer) as watch,
        watching(address, other_team.observer) as elsewhere,
    ):
        async with db.workspace(team.workspace_id) as session:
            row = f":workspace_id, 'run.ended', :kind, {name}, 'agent', 'c', {data}"
            await session.execute(text(f"{INTO} VALUES ({row})"), {"workspace_id": team.workspace_id, "kind": kind})
        for whose in (team, other_team):
            await tell(db, whose.workspace_id, "last")
        assert await elsewhere.subjects(1) == ["last"]
        assert await watch.types(2) == ["run.ended", "subsystem.report"]
        async with watching(address, team.observer, str(first)) as late:
            assert await late.types(2) == ["run.ended", "subsystem.report"]
        for key, path in ((team.admin, "audit"), (team.observer, "activity")):
            async with httpx2.AsyncClient(headers={"X-API-Key": key}, timeout=PATIENCE) as reader:
                answer = await reader.get(f"{address}/api/v1/{path}")
            assert answer.status_code == 200, answer.text
            assert answer.json()["data"]["items"][0]["action"] == "run.ended"


@pytest.mark.parametrize(("when", "replayed"), [("infinity", "subsystem.report"), ("-infinity", "replay.gap")])
async def test_a_time_that_no_calendar_has_stops_nobody(
    settings: Settings, db: Database, team: Team, when: str, replayed: str
) -> None:
    first = await tell(db, team.workspace_id, "first")
    async with served(settings) as address, watching(address, team.observer) as watch:
        async with db.workspace(team.workspace_id) as session:
            await session.execute(text(TIMELESS), {"workspace_id": team.workspace_id, "when": when})
        await tell(db, team.workspace_id, "last")
        assert await watch.subjects(2) == ["x", "last"]
        async with watching(address, team.observer, str(first)) as late:
            assert await late.types(2) == [replayed, "subsystem.report"]


TIMELESS = (
    "INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, occurred_at)"
    " VALUES (:workspace_id, 'subsystem.report', 'thing', 'x', 'worker', 'c', CAST(:when AS timestamptz))"
)


async def test_a_delivery_that_fails_is_made_again(db: Database, team: Team) -> None:
    tries: list[list[str]] = []
    done = asyncio.Event()

    def deliver(found: list[tuple[Place, Event]]) -> None:
        tries.append([event.subject.id for _, event in found if event.workspace_id == team.workspace_id])
        if len(tries) == 1:
            raise ValueError("a fault of ours")
        done.set()

    tail = Tail(db, deliver)
    following = asyncio.create_task(tail.run())
    try:
        await tail.ready()
        await tell(db, team.workspace_id, "kept")
        await asyncio.wait_for(done.wait(), PATIENCE)
    finally:
        following.cancel()
    assert tries == [["kept"], ["kept"]]


async def test_an_api_that_cannot_follow_is_not_ready(
    settings: Settings, own_postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "SILENT_SECONDS", 1.0)
    theirs = on(settings, own_postgres)
    async with served(theirs) as address, httpx2.AsyncClient(timeout=PATIENCE) as anyone:

        async def is_answered(status: int, code: str | None = None) -> bool:
            answer = await anyone.get(f"{address}/readyz")
            return (answer.status_code, answer.json().get("error", {}).get("code")) == (status, code)

        await eventually(lambda: is_answered(200))
        with psycopg.connect(plain(own_postgres.url), autocommit=True) as connection:
            connection.execute("ALTER TABLE event RENAME TO event_away")
            await eventually(lambda: is_answered(503, "events_stalled"))
            connection.execute("ALTER TABLE event_away RENAME TO event")
        await eventually(lambda: is_answered(200))


def use_transaction_ids(server: EmbeddedPostgres, count: int) -> None:
    """Move the cluster's transaction ids on, as use does."""
    with psycopg.connect(plain(server.url), autocommit=True) as connection:
        for _ in range(count):
            connection.execute("SELECT pg_current_xact_id()")


def move(source: EmbeddedPostgres, target: EmbeddedPostgres, file: Path) -> None:
    """Move a database as an operator does, with the tools of the server's own version: roles first, then the rest."""
    binaries = installed_binaries()
    roles = run(binaries / "pg_dumpall", "--roles-only", f"--dbname={plain(source.url)}")
    ours = "\n".join(line for line in roles.splitlines() if "mission_control_" in line)
    run(binaries / "psql", "--set=ON_ERROR_STOP=1", plain(target.url), given=ours)
    run(binaries / "pg_dump", "--format=custom", f"--file={file}", plain(source.url))
    run(binaries / "pg_restore", "--exit-on-error", f"--dbname={plain(target.url)}", str(file))


def run(*argv: str | Path, given: str = "") -> str:
    """Run a tool that must succeed; what it said."""
    done = subprocess.run([str(part) for part in argv], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
