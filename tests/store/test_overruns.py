"""A call that cost more than it had reserved is told of by each limit that it goes beyond, whoever closed that one."""

import pytest

from models.domain.budgets import Key, Owner, Scope
from models.domain.errors import Conflict
from models.store import alerts, ledger
from models.store.database import Database
from models.store.ledger import Place
from tests.fixtures.api import Team
from tests.fixtures.budgets import BOT, MONTH, at, cap, clock_moved, counters, ended, entries, place, run_of, told, usd

TICKET = Key(Scope.TICKET, Owner.TICKET, "T-1")
DAY = Key(Scope.AGENT_DAY, Owner.AGENT, "bot")
INTERNS = Key(Scope.RUN, Owner.LEVEL, "intern")
each_limit = pytest.mark.parametrize("key", [INTERNS, TICKET, DAY, MONTH], ids=lambda key: key.scope.value)


async def begun(db: Database, team: Team, amount: str = "0.1") -> Place:
    """A run with a call that has begun."""
    where = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1")
    await ledger.reserve(db, where, usd(amount), BOT)
    return where


async def what_holds(db: Database, where: Place) -> tuple[str | None, str | None]:
    run = await run_of(db, where)
    return run["status"], run["blocked_by"]


async def wide(db: Database, team: Team) -> None:
    """No limit is near."""
    for key in (INTERNS, TICKET, DAY, MONTH):
        await cap(db, team.workspace_id, key, "900")


async def near(db: Database, team: Team, key: Key, amount: str) -> None:
    """No limit is near but one."""
    await wide(db, team)
    await cap(db, team.workspace_id, key, amount)


async def standing(db: Database, team: Team) -> list[tuple[str, str]]:
    """The alerts that stand, each by its limit and window."""
    found = "SELECT details ->> 'scope' AS scope, details ->> 'period' AS period FROM alert WHERE status = 'open'"
    return sorted((row["scope"], row["period"]) for row in await db.alone(team.workspace_id, found, {}))


@each_limit
async def test_beyond_a_limit_that_a_lower_cap_closed(db: Database, team: Team, key: Key) -> None:
    await wide(db, team)
    where, other = await begun(db, team), await begun(db, team)
    await cap(db, team.workspace_id, key, "0.05")
    assert await standing(db, team) == []
    await ledger.settle(db, where, usd("9"), BOT)
    assert await what_holds(db, where) == ("blocked", key.scope)
    assert [scope for scope, _ in await standing(db, team)] == [key.scope]
    exceeded = await told(db, team.workspace_id, "budget.exceeded")
    assert [event["data"]["scope"] for event in exceeded] == [key.scope]
    asked = await db.alone(team.workspace_id, "SELECT binding ->> 'scope' AS scope FROM decision", {})
    assert [row["scope"] for row in asked] == [key.scope] * (key.scope in (Scope.RUN, Scope.TICKET))
    await ledger.settle(db, other, usd("0.1"), BOT)
    assert await what_holds(db, other) == (None, None), "it cost what it had reserved"


@each_limit
async def test_beyond_a_limit_that_another_call_closed(db: Database, team: Team, key: Key) -> None:
    """Whichever call is settled first: the run that each is of does not end well."""
    await near(db, team, key, "3")
    where = await begun(db, team)
    second = at(where, "2") if key is INTERNS else await begun(db, team)
    if key is INTERNS:
        await ledger.reserve(db, second, usd("0.1"), BOT)
    for one, amount in ((where, "9"), (second, "50")):
        await ledger.settle(db, one, usd(amount), BOT)
        assert await what_holds(db, one) == ("blocked", key.scope)
        with pytest.raises(Conflict, match="blocked"):
            await ended(db, one)
    assert len(await standing(db, team)) == len(await told(db, team.workspace_id, "budget.exceeded")) == 1
    asked = await db.alone(team.workspace_id, "SELECT status FROM decision ORDER BY requested_at", {})
    assert [row["status"] for row in asked] == ["canceled", "pending"] * (key.scope in (Scope.RUN, Scope.TICKET))


async def test_within_what_was_reserved_of_a_limit_that_another_call_closed(db: Database, team: Team) -> None:
    await near(db, team, MONTH, "3")
    where, second = await begun(db, team), await begun(db, team)
    await ledger.settle(db, where, usd("9"), BOT)
    await ledger.settle(db, second, usd("0.1"), BOT)
    assert await what_holds(db, second) == (None, None)


@pytest.mark.parametrize("settled", ["0", "0.1", "5"])
@pytest.mark.parametrize("is_late", [False, True], ids=["reserved", "released"])
async def test_a_limit_of_yesterday_holds_no_run(
    db: Database, team: Team, database_url: str, settled: str, is_late: bool
) -> None:
    """Its window will not turn any more: who is held by it would wait for ever."""
    await near(db, team, DAY, "1")
    where, second = await begun(db, team), await begun(db, team)
    await ledger.settle(db, where, usd("2"), BOT)
    async with clock_moved(database_url, "1 day"):
        await one_pass(db)
        await ledger.reserve(db, at(second, "today"), usd("0.01"), BOT)
        if is_late:
            await ledger.release(db, second, BOT)
        await ledger.settle(db, second, usd(settled), BOT)
        assert await what_holds(db, second) == (None, None)
        for one in (second, where):
            await ended(db, one)
    assert len(await told(db, team.workspace_id, "budget.exceeded")) == 1


async def test_beyond_a_limit_of_yesterday_that_a_lower_cap_closed(db: Database, team: Team, database_url: str) -> None:
    await wide(db, team)
    where, second = await begun(db, team), await begun(db, team)
    await cap(db, team.workspace_id, DAY, "0.05")
    async with clock_moved(database_url, "1 day"):
        for one in (where, second):
            await ledger.settle(db, one, usd("50"), BOT)
            await one_pass(db)
            assert len(await told(db, team.workspace_id, "budget.exceeded")) == 1
            assert len(await told(db, team.workspace_id, "alert.raised")) == 1


async def one_pass(db: Database) -> None:
    """Let what is over be over."""
    async with db.system() as session:
        await alerts.turn_windows(session, BOT, 200)


async def test_more_tokens_go_beyond_no_limit_of_dollars(db: Database, team: Team) -> None:
    await near(db, team, MONTH, "3")
    where, second = await begun(db, team), await place(db, team.workspace_id)
    await ledger.reserve(db, second, usd("0.1", tokens=100), BOT)
    await ledger.settle(db, where, usd("9"), BOT)
    await ledger.settle(db, second, usd("0.01", tokens=101), BOT)
    assert await what_holds(db, second) == (None, None)
    marks = {row["run_id"]: row["overrun"] for row in await entries(db, team.workspace_id) if row["kind"] == "settle"}
    assert marks == {where.run_id: True, second.run_id: True}


@pytest.mark.parametrize("key", [INTERNS, MONTH], ids=lambda key: key.scope.value)
async def test_tokens_beyond_a_limit_that_another_call_closed(db: Database, team: Team, key: Key) -> None:
    await wide(db, team)
    await cap(db, team.workspace_id, key, "900", tokens=100)
    where = await place(db, team.workspace_id, agent_id="bot")
    second = at(where, "2") if key is INTERNS else await place(db, team.workspace_id, agent_id="bot")
    for one in (where, second):
        await ledger.reserve(db, one, usd("0.1", tokens=10), BOT)
    await ledger.settle(db, where, usd("0.1", tokens=500), BOT)
    await ledger.settle(db, second, usd("0.1", tokens=11), BOT)
    assert await what_holds(db, second) == ("blocked", key.scope)


async def test_of_two_days_that_are_over_the_later_one_keeps_its_alert(
    db: Database, team: Team, database_url: str
) -> None:
    await near(db, team, DAY, "1")
    late = await begun(db, team)
    async with clock_moved(database_url, "1 day"):
        await ledger.settle(db, await begun(db, team), usd("2"), BOT)
        [(_, second)] = await standing(db, team)
    async with clock_moved(database_url, "2 days"):
        await ledger.settle(db, late, usd("2"), BOT)
    assert await standing(db, team) == [("agent_day", second)]


async def test_todays_alert_stands_whatever_was_reserved_while_the_clock_was_ahead(
    db: Database, team: Team, database_url: str
) -> None:
    await near(db, team, DAY, "1")
    async with clock_moved(database_url, "1 day"):
        early = await begun(db, team)
    await ledger.settle(db, await begun(db, team), usd("5"), BOT)
    before = await standing(db, team)
    assert len(before) == 1
    await ledger.settle(db, early, usd("3"), BOT)
    await one_pass(db)
    assert await standing(db, team) == before


async def test_raising_what_opens_another_days_limit_leaves_todays_alert(
    db: Database, team: Team, database_url: str
) -> None:
    await near(db, team, DAY, "1")
    async with clock_moved(database_url, "1 day"):
        await ledger.settle(db, await begun(db, team), usd("1.5"), BOT)
    await ledger.settle(db, await begun(db, team), usd("5"), BOT)
    before = await standing(db, team)
    await cap(db, team.workspace_id, DAY, "2")
    days = [row for row in await counters(db, team.workspace_id) if row["scope"] == Scope.AGENT_DAY]
    assert [row["crossed"] for row in days] == [True, False]
    assert await standing(db, team) == before


async def test_todays_limit_has_its_alert_though_the_clock_was_ahead(
    db: Database, team: Team, database_url: str
) -> None:
    await near(db, team, DAY, "0.1")
    async with clock_moved(database_url, "1 day"):
        with pytest.raises(Conflict):
            await ledger.spend(db, await place(db, team.workspace_id, agent_id="bot"), usd("0.2"), BOT)
    [(_, tomorrow)] = await standing(db, team)
    for _ in range(3):
        with pytest.raises(Conflict):
            await ledger.spend(db, await place(db, team.workspace_id, agent_id="bot"), usd("0.2"), BOT)
    [(_, today)] = await standing(db, team)
    assert today < tomorrow
    assert len(await told(db, team.workspace_id, "budget.exceeded")) == 2
    days = [row for row in await counters(db, team.workspace_id) if row["scope"] == Scope.AGENT_DAY]
    assert [(row["period"], row["crossings"]) for row in days] == [(today, 1), (tomorrow, 1)]
