"""The order in which counters are taken: who ends or corrects a run waits in no circle with those who spend."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from typing import Any

import pytest
from psycopg import AsyncConnection
from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.budgets import Key, Owner, RunStatus, Scope
from models.domain.errors import Conflict
from models.domain.policy import Level
from models.store import agents, budgets, caps, corrections, ledger, runs
from models.store.connections import plain
from models.store.database import Database, within
from models.store.ledger import Place
from models.store.ledger_statements import LOCK, LOCK_RUN, RESERVE
from tests.fixtures.api import Team
from tests.fixtures.budgets import BOT, OLGA, at, cap, clock_moved, counters, place, usd
from tests.fixtures.waiting import eventually

Act = Callable[[Database, Place], Coroutine[Any, Any, None]]
Done = asyncio.Task[Any]


async def end(db: Database, where: Place) -> None:
    async with db.workspace(where.workspace_id) as session:
        await runs.end(session, where.workspace_id, where.run_id, RunStatus.FAILED, None, OLGA)


async def correct(db: Database, where: Place) -> None:
    async with db.workspace(where.workspace_id) as session:
        await corrections.adjust(session, at(where, "less"), Decimal("-0.01"), "billed twice", OLGA)


async def reserved(session: AsyncSession, where: Place) -> str:
    """Reserve for the first call of a window, as those do who spend: what became of it."""
    await budgets.prepare(session, where.workspace_id, where.run_id)
    await within(session)(LOCK, where.key)
    asked = {"usd": Decimal("0.02"), "lasts": ledger.LASTS, "most": None, "holder": "bot", "correlation_id": "c"}
    [said] = await within(session)(RESERVE, where.key | ledger.NOTHING | asked)
    return str(said["reply"])


@asynccontextmanager
async def owner(url: str) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(plain(url)) as connection:
        yield connection


async def hold(connection: AsyncConnection, team: Team, scope: str) -> None:
    """Take a counter, until the connection's transaction ends."""
    found = "SELECT FROM budget WHERE workspace_id = %s AND scope = %s FOR UPDATE"
    await connection.execute(found, [team.workspace_id, scope])


class Waiters:
    """Begins what then waits for a row, one after another."""

    def __init__(self, watch: AsyncConnection) -> None:
        self._watch = watch

    async def begin(self, act: Coroutine[Any, Any, Any], number: int) -> Done:
        """Begin it, and return when so many transactions wait."""
        begun = asyncio.create_task(act)
        await self.are(number)
        return begun

    async def are(self, number: int) -> None:
        async def found() -> bool:
            await self._watch.rollback()
            waits = await self._watch.execute(WAITS)
            return waits.rowcount == number

        await eventually(found, 4)


WAITS = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.mark.parametrize("act", [end, correct])
async def test_who_ends_or_corrects_a_run_beside_its_first_call_of_a_day_waits_in_no_circle(
    db: Database, team: Team, database_url: str, act: Act
) -> None:
    async with clock_moved(database_url, "-1 day"):
        where = await place(db, team.workspace_id, "before", agent_id="bot", ticket_id="T-1")
        if act is correct:
            await ledger.spend(db, where, usd("0.02"), BOT)
    other = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1")
    async with owner(database_url) as holder, owner(database_url) as watch:
        waiters = Waiters(watch)
        async with db.workspace(team.workspace_id) as session:
            await within(session)(LOCK, where.key)
            acting = await waiters.begin(act(db, where), 1)
            assert await reserved(session, at(where, "first")) == "granted"
            await corrections.adjust(session, at(where, "more"), Decimal("0.02"), "billed too little", OLGA)
            # Between the counters that it takes and the row that it writes.
            holding = await waiters.begin(holder.execute("LOCK TABLE ledger IN SHARE MODE"), 2)
        await holding
        await waiters.are(1)
        reserving = await waiters.begin(ledger.reserve(db, other, usd("0.02"), BOT), 2)
        await holder.rollback()
        await asyncio.gather(acting, reserving)
    [ticket] = [row for row in await counters(db, team.workspace_id) if row["scope"] == "ticket"]
    held = (ticket["settled_usd"], ticket["reserved_usd"], ticket["reservations"])
    assert held == ((Decimal("0.02"), Decimal("0.02"), 1) if act is end else (Decimal("0.03"), Decimal("0.04"), 2))


async def test_what_a_run_spends_meanwhile_is_taken_too(db: Database, team: Team, database_url: str) -> None:
    where = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1")
    await place(db, team.workspace_id, agent_id="cat")

    async def free_while_all_is_taken() -> list[tuple[str, ...]]:
        async with db.workspace(team.workspace_id) as session, owner(database_url) as looking:
            await ledger.lock_all(session, where.key)
            return await (await looking.execute(FREE, [team.workspace_id])).fetchall()

    async with owner(database_url) as month, owner(database_url) as watch:
        waiters = Waiters(watch)
        await hold(month, team, "workspace_month")
        spending = await waiters.begin(ledger.spend(db, where, usd("0.02"), BOT), 1)
        taking = await waiters.begin(free_while_all_is_taken(), 2)
        await month.rollback()
        await spending
        assert await taking == [("agent_day", "cat")]


FREE = """
SELECT scope, subject FROM budget WHERE workspace_id = %s AND NOT (scope = 'run' AND agent_id = 'cat')
FOR UPDATE SKIP LOCKED
"""


async def test_a_correction_of_yesterday_beside_a_call_of_yesterday_waits_in_no_circle(
    db: Database, team: Team, database_url: str
) -> None:
    async with clock_moved(database_url, "-1 day"):
        paid = await place(db, team.workspace_id, agent_id="bot")
        begun = await place(db, team.workspace_id, agent_id="bot")
        await ledger.spend(db, paid, usd("0.02"), BOT)
        await ledger.reserve(db, begun, usd("0.02"), BOT)
    await place(db, team.workspace_id, agent_id="bot")  # of today, with its counters
    async with owner(database_url) as month, owner(database_url) as watch:
        waiters = Waiters(watch)
        await hold(month, team, "workspace_month")
        correcting = await waiters.begin(correct(db, paid), 1)
        settling = await waiters.begin(ledger.settle(db, begun, usd("0.02"), BOT), 2)
        await month.rollback()
        await asyncio.gather(correcting, settling)
    days = [row["settled_usd"] for row in await counters(db, team.workspace_id) if row["scope"] == "agent_day"]
    assert days == [Decimal("0.03"), 0]


async def test_the_caps_of_an_agent_beside_the_end_of_its_run_wait_in_no_circle(
    db: Database, team: Team, database_url: str
) -> None:
    where = await place(db, team.workspace_id, agent_id="agent")
    await ledger.spend(db, where, usd("0.02"), BOT)

    async def change() -> None:
        async with db.workspace(team.workspace_id) as session:
            agent = await agents.require(session, team.workspace_id, "agent", for_update=True)
            await caps.change_agent(session, agent, Level.LEAD, {Scope.RUN: Decimal(9)}, OLGA)

    async with owner(database_url) as watch:
        async with db.workspace(team.workspace_id) as session:
            await within(session)(LOCK_RUN, where.key)  # as its end begins
            changing = await Waiters(watch).begin(change(), 1)
            await runs.end(session, team.workspace_id, where.run_id, RunStatus.FAILED, None, OLGA)
        await changing
    assert (await counters(db, team.workspace_id))[0]["cap_usd"] == 12, "its day's of its new level"


async def test_runs_that_end_while_they_and_others_spend_meet_without_a_deadlock(db: Database, team: Team) -> None:
    for key in (Key(Scope.AGENT_DAY, Owner.AGENT, "bot"), Key(Scope.TICKET, Owner.TICKET, "T-1")):
        await cap(db, team.workspace_id, key, None)
    others = [await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1") for _ in range(4)]

    async def call(where: Place) -> None:
        with suppress(Conflict):  # its run may have ended
            await ledger.reserve(db, where, usd("0.000001"), BOT)

    for number in range(40):
        where = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1")
        await asyncio.gather(call(where), end(db, where), *(call(at(one, f"{number}")) for one in others))
    held = {row["scope"]: row["reservations"] for row in await counters(db, team.workspace_id) if row["scope"] != "run"}
    assert held == {"agent_day": 160, "ticket": 160, "workspace_month": 160}
