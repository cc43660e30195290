"""Another cap is met by what can still be spent of, and has nothing to do with what is over."""

from decimal import Decimal

import psycopg

from models.domain.budgets import Key, Owner, RunStatus, Scope
from models.store import ledger, runs
from models.store.connections import plain
from models.store.database import Database
from models.store.ledger import Place
from tests.fixtures.api import Team
from tests.fixtures.budgets import BOT, cap, clock_moved, counters, place, run_of, start, usd

INTERNS = Key(Scope.RUN, Owner.LEVEL, "intern")
CATEGORY = Key(Scope.TICKET, Owner.CATEGORY, "default")


async def ended(db: Database, where: Place) -> None:
    async with db.workspace(where.workspace_id) as session:
        await runs.end(session, where.workspace_id, where.run_id, RunStatus.SUCCESS, None, BOT)


async def test_a_cap_waits_for_no_run_that_has_ended(db: Database, team: Team, database_url: str) -> None:
    """However many there were: their counters are neither read nor locked."""
    over = await place(db, team.workspace_id, agent_id="bot")
    going = await place(db, team.workspace_id, agent_id="bot")
    await ended(db, over)
    with psycopg.connect(plain(database_url)) as holder:
        holder.execute("SELECT FROM budget WHERE scope = 'run' AND subject = %s FOR UPDATE", [over.run_id])
        await cap(db, team.workspace_id, INTERNS, "3")
    assert [(await run_of(db, where))["cap_usd"] for where in (over, going)] == [Decimal("0.25"), 3]


async def test_a_day_that_is_over_keeps_the_cap_that_held(db: Database, team: Team, database_url: str) -> None:
    await start(db, team.workspace_id, agent_id="bot")
    async with clock_moved(database_url, "1 day"):
        await start(db, team.workspace_id, agent_id="bot")
        await cap(db, team.workspace_id, Key(Scope.AGENT_DAY, Owner.LEVEL, "intern"), "9")
    days = [each for each in await counters(db, team.workspace_id) if each["scope"] == "agent_day"]
    assert [day["cap_usd"] for day in days] == [2, 9]


async def test_a_ticket_comes_to_its_cap_with_the_next_run(db: Database, team: Team) -> None:
    first = await place(db, team.workspace_id, ticket_id="T-1")
    await ledger.spend(db, first, usd("0.1"), BOT)
    await ended(db, first)
    await cap(db, team.workspace_id, CATEGORY, "0.2")
    [ticket] = [each for each in await counters(db, team.workspace_id) if each["scope"] == "ticket"]
    assert ticket["cap_usd"] == 6, "nothing runs on it"
    await start(db, team.workspace_id, ticket_id="T-1")
    [ticket] = [each for each in await counters(db, team.workspace_id) if each["scope"] == "ticket"]
    assert (ticket["cap_usd"], ticket["crossed"]) == (Decimal("0.2"), False)


async def test_a_cap_below_what_was_spent_closes_a_ticket_for_its_next_run(db: Database, team: Team) -> None:
    first = await place(db, team.workspace_id, ticket_id="T-1")
    await ledger.spend(db, first, usd("0.1"), BOT)
    await ended(db, first)
    await cap(db, team.workspace_id, CATEGORY, "0.05")
    late = await place(db, team.workspace_id, ticket_id="T-1")
    assert (await run_of(db, late))["blocked_by"] == "ticket"
    await cap(db, team.workspace_id, CATEGORY, "5")
    assert (await run_of(db, late))["status"] is None


async def test_a_closed_ticket_is_opened_by_a_higher_cap_with_nothing_running(db: Database, team: Team) -> None:
    first = await place(db, team.workspace_id, ticket_id="T-1")
    await cap(db, team.workspace_id, CATEGORY, "0")
    await ended(db, first)
    await cap(db, team.workspace_id, CATEGORY, "5")
    assert (await run_of(db, await place(db, team.workspace_id, ticket_id="T-1")))["status"] is None
