"""The narrow door: one statement, one transaction, one workspace; whatever goes wrong leaves nothing behind."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg
import pytest
from psycopg.rows import TupleRow
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError

from models.settings import Settings
from models.store.connections import plain
from models.store.database import Database
from tests.fixtures.api import Team, make_team
from tests.fixtures.waiting import eventually
from worker.dev.ports import free_port

KEEP = (
    "INSERT INTO log_chunk (workspace_id, log_id, seq, content) VALUES (%(workspace)s, %(log)s, 0, 'x')"
    " RETURNING log_id, seq, content"
)
SEEN = "SELECT log_id FROM log_chunk ORDER BY log_id"

Look = Callable[[str], Awaitable[list[TupleRow]]]


@pytest.fixture
async def narrow(settings: Settings) -> AsyncIterator[Database]:
    """A database with a single connection: whoever comes next gets the one that was given back."""
    database = Database.from_settings(settings, pool_size=1)
    yield database
    await database.close()


@pytest.fixture
async def look(database_url: str) -> AsyncIterator[Look]:
    """Ask the server as its superuser."""
    async with await psycopg.AsyncConnection.connect(plain(database_url), autocommit=True) as connection:

        async def ask(statement: str) -> list[TupleRow]:
            return await (await connection.execute(statement.encode())).fetchall()

        yield ask


def kept(team: Team, log: str) -> dict[str, Any]:
    return {"workspace": team.workspace_id, "log": log}


async def seen(db: Database, team: Team) -> list[str]:
    return [row["log_id"] for row in await db.alone(team.workspace_id, SEEN, {})]


async def test_it_sees_and_writes_its_own_workspace_alone(narrow: Database, team: Team) -> None:
    other = await make_team(narrow)
    assert await narrow.alone(team.workspace_id, KEEP, kept(team, "a")) == [{"log_id": "a", "seq": 0, "content": b"x"}]
    assert await seen(narrow, team) == ["a"]
    assert await seen(narrow, other) == []
    assert await narrow.alone("", SEEN, {}) == []
    with pytest.raises(DBAPIError, match="row-level security"):
        await narrow.alone(other.workspace_id, KEEP, kept(team, "b"))
    assert await seen(narrow, team) == ["a"]


async def test_no_workspace_is_left_on_the_connection(narrow: Database, team: Team) -> None:
    await narrow.alone(team.workspace_id, KEEP, kept(team, "a"))
    async with narrow._alone.borrow("") as connection:
        assert await (await connection.execute(SEEN)).fetchall() == []
        [left] = await (await connection.execute("SELECT current_setting('app.workspace', true)")).fetchall()
        assert left[0] in (None, "")


async def test_the_wide_door_still_rolls_back(narrow: Database, team: Team) -> None:
    await narrow.alone(team.workspace_id, KEEP, kept(team, "a"))
    async with narrow.workspace(team.workspace_id) as session:
        await session.execute(text("DELETE FROM log_chunk"))
        await session.rollback()
    assert await seen(narrow, team) == ["a"]


@pytest.mark.parametrize("tries", [1, 12])
async def test_an_error_undoes_the_statement_and_the_next_one_works(narrow: Database, team: Team, tries: int) -> None:
    broken = KEEP.replace("RETURNING", "RETURNING 1 / (seq - seq),")
    for _ in range(tries):  # more often than the driver takes to prepare a statement
        with pytest.raises(DBAPIError) as failure:
            await narrow.alone(team.workspace_id, broken, kept(team, "a"), has_events=True)
    assert not failure.value.connection_invalidated
    assert team.workspace_id not in str(failure.value)
    assert await seen(narrow, team) == []
    async with narrow.workspace(team.workspace_id) as session:
        assert (await session.execute(text(SEEN))).all() == []


async def test_what_cannot_be_sent_is_the_drivers_error_as_elsewhere(narrow: Database, team: Team) -> None:
    with pytest.raises(DBAPIError, match="NUL"):
        await narrow.alone(team.workspace_id, KEEP, kept(team, "\0"))
    assert await seen(narrow, team) == []


async def test_several_are_done_together_or_not_at_all(narrow: Database, team: Team) -> None:
    first, second = (KEEP, kept(team, "a")), (KEEP, kept(team, "b"))
    for broken in ((KEEP, kept(team, "\0")), (KEEP, {}), (KEEP.replace("RETURNING", "RETURNING 1 / seq,"), second[1])):
        with pytest.raises(DBAPIError):
            await narrow.together(team.workspace_id, first, broken)
        assert await seen(narrow, team) == []
    assert len(await narrow.together(team.workspace_id, first, second)) == 2
    assert await seen(narrow, team) == ["a", "b"]


async def test_a_cancelled_statement_is_stopped_and_undone(narrow: Database, team: Team, look: Look) -> None:
    slow = KEEP.replace("RETURNING", "RETURNING pg_sleep(4),")
    running = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    call = asyncio.create_task(narrow.alone(team.workspace_id, slow, kept(team, "a")))
    await eventually(lambda: look(running))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await look(running) == []
    assert await seen(narrow, team) == []
    await narrow.alone(team.workspace_id, KEEP, kept(team, "a"))
    assert await seen(narrow, team) == ["a"]


async def test_a_call_cancelled_before_it_has_a_connection_takes_none(narrow: Database, team: Team) -> None:
    calls = [asyncio.create_task(narrow.alone(team.workspace_id, KEEP, kept(team, str(n)))) for n in range(8)]
    for turns, call in enumerate(calls):
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await narrow.alone(team.workspace_id, KEEP, kept(team, "z"))
    assert (await seen(narrow, team))[-1] == "z"


async def test_a_lost_server_is_told_of_once(db: Database, team: Team, look: Look) -> None:
    await asyncio.gather(*(seen(db, team) for _ in range(5)))
    gone = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mission_control_app'"
    assert len(await look(f"{gone} AND datname = current_database()")) > 1
    with pytest.raises(DBAPIError) as failure:
        await db.alone(team.workspace_id, KEEP, kept(team, "a"))
    assert failure.value.connection_invalidated
    await asyncio.gather(*(seen(db, team) for _ in range(5)))


async def test_a_key_is_looked_up_after_a_lost_server_without_a_word(db: Database, look: Look) -> None:
    asked = "SELECT pg_backend_pid() AS pid"
    [before] = await db.look(asked, {})
    assert await look(f"SELECT pg_terminate_backend({before['pid']})")
    [after] = await db.look(asked, {})
    assert after != before


async def test_a_server_that_is_away_is_told_of_at_once(database_url: str) -> None:
    nowhere = make_url(database_url).set(port=free_port()).render_as_string(hide_password=False)
    database = Database(nowhere, nowhere)
    async with asyncio.timeout(2):
        with pytest.raises(OperationalError) as failure:
            await database.alone("", SEEN, {})
    assert failure.value.connection_invalidated


async def test_who_finds_all_connections_in_use_waits_for_one(narrow: Database, team: Team) -> None:
    async with narrow._alone.borrow(""):
        call = asyncio.create_task(seen(narrow, team))
        assert await asyncio.wait([call], timeout=0.1) == (set(), {call})
    assert await call == []


async def test_a_commit_with_events_is_announced(db: Database, team: Team) -> None:
    async with db.listener() as listener:
        await db.alone(team.workspace_id, KEEP, kept(team, "a"))
        assert [hint async for hint in listener.notifies(timeout=0.1, stop_after=1)] == []
        await db.alone(team.workspace_id, KEEP, kept(team, "b"), has_events=True)
        assert len([hint async for hint in listener.notifies(timeout=10, stop_after=1)]) == 1
