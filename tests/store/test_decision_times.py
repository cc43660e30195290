"""Half time and expiry by the database's clock, however it is moved, and races for the end: each is told once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import psycopg
import pytest
from sqlalchemy import text

from models.domain.errors import Conflict
from models.domain.states import DecisionStatus
from models.store import answers, governance
from models.store.connections import plain
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.api import Team
from tests.fixtures.clocks import Clock, clock
from tests.fixtures.runs import human
from tests.fixtures.waiting import until

__all__ = ["clock"]
RECONCILER, WORKER = Actor("reconciler", "pass-1"), Actor("worker", "task-1")
ASKED = """
INSERT INTO decision (workspace_id, decision_id, kind, round, candidate, status, risk, requested_by, expires_at)
SELECT :workspace, name, 'agent_question', 0, 0, 'pending', 'YELLOW', 'robot', mc_now() + interval '10 hours'
FROM unnest(ARRAY['one', 'two']) name
"""


@pytest.fixture
async def asked(db: Database, team: Team) -> None:
    """Two questions with ten hours' time."""
    async with db.workspace(team.workspace_id) as session:
        await session.execute(text(ASKED), {"workspace": team.workspace_id})


async def one_pass(db: Database) -> tuple[int, int]:
    """What the reconciler does: how many were reminded of, and how many expired."""
    async with db.system() as session:
        reminded = await governance.tell_half_time(session, RECONCILER, 100)
        return reminded, await governance.expire_overdue(session, RECONCILER, 100)


async def told(db: Database, team: Team) -> dict[str, int]:
    async with db.workspace(team.workspace_id) as session:
        return {row.type: row.n for row in await session.execute(text("SELECT type, count(*) n FROM event GROUP BY 1"))}


async def answer(db: Database, team: Team, name: str) -> None:
    async with db.workspace(team.workspace_id) as session:
        anna = human(team.workspace_id, "anna")
        await answers.give(session, anna, name, DecisionStatus.APPROVED, "read it")


async def test_half_time_once_then_the_end_once(db: Database, team: Team, asked: None, clock: Clock) -> None:
    found = []
    for hours in (0, 4, 6, 0, 6, 9, 24, -24, 24):
        clock.show(hours)
        found.append(await one_pass(db))
    assert found == [(0, 0), (0, 0), (2, 0), (0, 0), (0, 0), (0, 0), (0, 2), (0, 0), (0, 0)]
    assert await told(db, team) == {"decision.half_time": 2, "decision.expired": 2}


async def test_what_was_answered_in_time_neither_expires_nor_reminds(
    db: Database, team: Team, asked: None, clock: Clock
) -> None:
    await answer(db, team, "one")
    clock.show(24)
    assert await one_pass(db) == (1, 1)
    clock.show(-24)
    with pytest.raises(Conflict, match="its time is over"):
        await answer(db, team, "two")
    with pytest.raises(Conflict, match=r"^anna answered first"):
        await answer(db, team, "one")


async def test_over_is_over_also_before_anybody_has_looked(db: Database, team: Team, asked: None, clock: Clock) -> None:
    clock.show(11)
    with pytest.raises(Conflict, match="its time is over"):
        await answer(db, team, "one")
    clock.show(0)
    await answer(db, team, "one")


async def test_what_somebody_answers_now_holds_up_no_pass(db: Database, team: Team, asked: None, clock: Clock) -> None:
    clock.show(24)
    async with db.workspace(team.workspace_id) as answering:
        await answering.execute(text("SELECT FROM decision WHERE decision_id = 'one' FOR UPDATE"))
        async with asyncio.timeout(3):
            await one_pass(db)
        assert await told(db, team) == {"decision.half_time": 1, "decision.expired": 1}
    await one_pass(db)
    assert await told(db, team) == {"decision.half_time": 2, "decision.expired": 2}


async def test_a_pass_takes_so_many_at_once(db: Database, team: Team, asked: None, clock: Clock) -> None:
    clock.show(24)
    async with db.system() as session:
        assert await governance.expire_overdue(session, RECONCILER, 1) == 1
    await one_pass(db)
    assert (await told(db, team))["decision.expired"] == 2


Act = Callable[[Database, Team], AbstractAsyncContextManager[None]]
"""Done inside, and committed at the end."""


@asynccontextmanager
async def answered(db: Database, team: Team) -> AsyncIterator[None]:
    """By a human."""
    async with db.workspace(team.workspace_id) as session:
        anna = human(team.workspace_id, "anna")
        await answers.give(session, anna, "one", DecisionStatus.APPROVED, "read it")
        yield


@asynccontextmanager
async def expired(db: Database, team: Team) -> AsyncIterator[None]:
    """By the workflow, whose timer has ended."""
    async with db.workspace(team.workspace_id) as session:
        await governance.expire(session, team.workspace_id, "one", WORKER)
        yield


@asynccontextmanager
async def swept(db: Database, team: Team) -> AsyncIterator[None]:
    """By a pass of the reconciler, which leaves what others hold."""
    async with db.system() as session:
        await governance.expire_overdue(session, RECONCILER, 100)
        yield


@asynccontextmanager
async def canceled(db: Database, team: Team) -> AsyncIterator[None]:
    """By the workflow, whose mission is gone."""
    async with db.workspace(team.workspace_id) as session:
        await governance.withdraw(session, team.workspace_id, "one", WORKER)
        yield


FACTS = """
SELECT status, resolved_by, (SELECT count(*) FROM decision_answer WHERE decision_id = 'one') AS answers,
(SELECT string_agg(type, ' ') FROM event WHERE subject_id = 'one') AS events,
(SELECT string_agg(action || ' by ' || actor, ' ') FROM audit WHERE subject_id = 'one') AS audit
FROM decision WHERE decision_id = 'one'
"""
WAITS = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
"""Whether a transaction of this database waits for another's row."""


@dataclass(frozen=True)
class Race:
    """Two ends of the same question, each by its own clock: an answer in time, and another end when time is over."""

    db: Database
    team: Team
    clock: Clock
    owner: psycopg.Connection

    async def run(self, first: Act, second: Act, *, waits: bool = True) -> BaseException | None:
        """Begin the second while the first has yet to commit; what the second is refused with."""
        self._show(first)
        async with first(self.db, self.team):
            self._show(second)
            later = asyncio.create_task(self._whole(second))
            await until(lambda: later.done() or bool(self.owner.execute(WAITS).fetchall()), 4)
            assert later.done() != waits
        return (await asyncio.gather(later, return_exceptions=True))[0]

    async def facts(self) -> tuple[object, ...]:
        """What stands of it."""
        [row] = await self.db.alone(self.team.workspace_id, FACTS, {})
        return tuple(row.values())

    def _show(self, act: Act) -> None:
        self.clock.show(0 if act is answered else 24)

    async def _whole(self, act: Act) -> None:
        async with act(self.db, self.team):
            pass


class TestRaces:
    """The row of a decision is held by the first who ends it; whoever comes second finds it ended."""

    @pytest.fixture
    def race(self, db: Database, team: Team, asked: None, clock: Clock, database_url: str) -> Iterator[Race]:
        with psycopg.connect(plain(database_url), autocommit=True) as owner:
            yield Race(db, team, clock, owner)

    @pytest.mark.parametrize(("end", "waits"), [(expired, True), (swept, False), (canceled, True)])
    async def test_an_answer_is_first(self, race: Race, end: Act, waits: bool) -> None:
        assert await race.run(answered, end, waits=waits) is None
        for again in (expired, swept, canceled):
            async with again(race.db, race.team):
                pass
        assert await race.facts() == ("approved", "anna", 1, "decision.approved", "decision.approved by anna")

    @pytest.mark.parametrize(
        ("end", "status", "by", "why"),
        [
            (expired, "expired", "worker", "decision_expired"),
            (swept, "expired", "policy", "decision_expired"),
            (canceled, "canceled", "worker", "decision_canceled"),
        ],
    )
    async def test_an_answer_comes_second(self, race: Race, end: Act, status: str, by: str, why: str) -> None:
        refused = await race.run(end, answered)
        assert isinstance(refused, Conflict)
        assert refused.code == why, "by the row: the answer's own clock says that it is in time"
        actor = "reconciler" if end is swept else "worker"
        assert await race.facts() == (status, by, 0, f"decision.{status}", f"decision.{status} by {actor}")

    async def test_expiry_and_cancellation(self, race: Race) -> None:
        assert await race.run(canceled, expired) is None
        assert await race.facts() == ("canceled", "worker", 0, "decision.canceled", "decision.canceled by worker")
