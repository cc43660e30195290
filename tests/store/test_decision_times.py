"""Half time and expiry by the database's clock, however it is moved: each is told once."""

import asyncio

import pytest
from sqlalchemy import text

from models.domain.errors import Conflict
from models.domain.states import DecisionStatus
from models.store import decisions, governance
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.api import Team
from tests.fixtures.clocks import Clock, clock
from tests.fixtures.runs import human

__all__ = ["clock"]
RECONCILER = Actor("reconciler", "pass-1")
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
        await decisions.resolve(session, anna, name, DecisionStatus.APPROVED, "read it")


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
    with pytest.raises(Conflict, match="anna answered first"):
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
