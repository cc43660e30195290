"""A limit that a lower cap closed without a word holds runs once one of them has met it, and is told then."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text

from models.domain.budgets import Key, Owner, Scope
from models.domain.errors import Conflict
from models.domain.prices import Charge
from models.domain.principals import Role
from models.domain.states import DecisionStatus
from models.store import answers, blocks, going_on, ledger
from models.store.database import Database
from models.store.events import Actor
from models.store.ledger import Place
from tests.fixtures.api import Team
from tests.fixtures.budgets import BOT, MONTH, OLGA, at, cap, clock_moved, place, run_of, told, usd
from tests.fixtures.runs import human

Spend = Callable[[Database, Place, Charge, Actor], Awaitable[None]]
TICKET = Key(Scope.TICKET, Owner.TICKET, "T-1")
DAY = Key(Scope.AGENT_DAY, Owner.AGENT, "bot")
shared = pytest.mark.parametrize("key", [TICKET, DAY, MONTH], ids=lambda key: key.scope.value)


async def refused(db: Database, where: Place, amount: str) -> str:
    """Spend what does not fit; the code of the refusal."""
    with pytest.raises(Conflict) as caught:
        await ledger.spend(db, where, usd(amount), BOT)
    return caught.value.code


async def held(db: Database, where: Place) -> tuple[Any, Any]:
    found = await run_of(db, where)
    return found["status"], found["blocked_by"]


async def exceeded(db: Database, team: Team) -> list[tuple[str, str]]:
    """Which limits were told to be crossed, and of which window."""
    events = await told(db, team.workspace_id, "budget.exceeded")
    return [(event["data"]["scope"], event["data"]["period"]) for event in events]


async def raised(db: Database, team: Team, of: Key) -> int:
    """How many alerts about a limit are not resolved."""
    found = "SELECT FROM alert WHERE subject_id LIKE %(like)s AND status = 'open'"
    return len(await db.alone(team.workspace_id, found, {"like": f"{of.scope.value}/%"}))


async def one_pass(db: Database) -> None:
    async with db.system() as session:
        await blocks.turn_windows(session, OLGA)


async def approve(db: Database, team: Team) -> None:
    """Approve the one question that waits."""
    [asked] = await db.alone(team.workspace_id, "SELECT decision_id FROM decision WHERE status = 'pending'", {})
    async with db.workspace(team.workspace_id) as session:
        anna = human(team.workspace_id, "anna", Role.ADMIN)
        await answers.give(session, anna, asked["decision_id"], DecisionStatus.APPROVED, "go")


async def over_by_yesterday(db: Database, team: Team, url: str, key: Key) -> Place:
    """A run that yesterday's limit of its agent blocks, and another limit that a lower cap closed today."""
    await cap(db, team.workspace_id, DAY, "0.1")
    async with clock_moved(url, "-1 day"):
        where = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1")
        assert await refused(db, where, "0.2") == "budget_exceeded"
    await ledger.spend(db, await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1"), usd("0.05"), BOT)
    await cap(db, team.workspace_id, key, "0.01")
    return where


@shared
async def test_a_run_whose_own_limit_was_raised_meets_it(db: Database, team: Team, key: Key) -> None:
    where = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1")
    await ledger.spend(db, where, usd("0.2"), BOT)
    assert await refused(db, at(where, "2"), "0.2") == "budget_exceeded"
    await cap(db, team.workspace_id, key, "0.1")
    await approve(db, team)
    assert (await held(db, where), await raised(db, team, key)) == ((None, None), 0)
    codes = [await refused(db, at(where, cost_id), "0.01") for cost_id in "34"]
    assert codes == ["budget_exceeded", "run_blocked"]
    assert (await held(db, where), await raised(db, team, key)) == (("blocked", key.scope), 1)
    assert [scope for scope, _ in await exceeded(db, team)] == ["run", key.scope]
    if key is TICKET:
        await approve(db, team)
        await ledger.spend(db, at(where, "5"), usd("0.01"), BOT)


@shared
async def test_a_run_whose_window_is_over_meets_it_unless_another_run_has(
    db: Database, team: Team, other_team: Team, database_url: str, key: Key
) -> None:
    quiet = await over_by_yesterday(db, team, database_url, key)
    known = await over_by_yesterday(db, other_team, database_url, key)
    await refused(db, await place(db, other_team.workspace_id, agent_id="bot", ticket_id="T-1"), "0.01")
    for _ in range(2):
        await one_pass(db)
        assert [await held(db, where) for where in (quiet, known)] == [(None, None), ("blocked", key.scope)]
    assert await refused(db, at(quiet, "2"), "0.01") == "budget_exceeded"
    assert (await held(db, quiet), await raised(db, team, key)) == (("blocked", key.scope), 1)
    assert [scope for scope, _ in await exceeded(db, team)] == ["agent_day", key.scope]


async def test_the_alert_of_yesterday_does_not_stand_for_today(db: Database, team: Team, database_url: str) -> None:
    where = await over_by_yesterday(db, team, database_url, DAY)
    assert await refused(db, at(where, "2"), "0.01") == "budget_exceeded"
    [(_, yesterday), (scope, today)] = await exceeded(db, team)
    assert (scope, yesterday < today) == ("agent_day", True)
    for _ in range(2):
        found = "SELECT details ->> 'period' AS period FROM alert WHERE status = 'open'"
        assert await db.alone(team.workspace_id, found, {}) == [{"period": today}]
        await one_pass(db)
    assert (await held(db, where)) == ("blocked", "agent_day")


async def spend_within(db: Database, where: Place, wanted: Charge, actor: Actor) -> None:
    """Reserve as a mission does."""
    async with db.workspace(where.workspace_id) as session:
        assert await ledger.reserve_within(session, where, wanted, actor) is None


@pytest.mark.parametrize("spend", [ledger.spend, spend_within], ids=lambda spend: spend.__name__)
@pytest.mark.parametrize("is_first", [True, False], ids=["first of its day", "after another"])
async def test_a_run_that_goes_on_by_its_own_call_is_told_of_once(
    db: Database, team: Team, database_url: str, spend: Spend, is_first: bool
) -> None:
    await cap(db, team.workspace_id, DAY, "0.1")
    async with clock_moved(database_url, "-1 day"):
        where = await place(db, team.workspace_id, agent_id="bot")
        assert await refused(db, where, "0.2") == "budget_exceeded"
    if not is_first:
        await place(db, team.workspace_id, agent_id="bot")  # makes the counter of today
    async with db.listener() as listener:
        _ = [hint async for hint in listener.notifies(timeout=0.1)]
        for cost_id, patience, hints in (("2", 10, 1), ("3", 0.1, 0)):
            await spend(db, at(where, cost_id), usd("0.01"), BOT)
            assert len([hint async for hint in listener.notifies(timeout=patience, stop_after=1)]) == hints
    await one_pass(db)
    [event] = await told(db, team.workspace_id, "run.unblocked")
    assert (event["subject_id"], event["actor"], event["data"]) == (where.run_id, "bot", {})


MANY = """
    WITH made AS (
        INSERT INTO budget (workspace_id, scope, subject, period, crossed)
        SELECT :w, 'run', 'run_' || n, '', true FROM generate_series(1, 2000) n
    )
    INSERT INTO run (workspace_id, run_id, created_by, status, reason, blocked_by, blocked_period)
    SELECT :w, 'run_' || n, 'bot', 'blocked', 'spent up', 'run', '' FROM generate_series(1, 2000) n
"""
READ = """
    SELECT seq_tup_read + COALESCE(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE relname = 'budget'
"""


async def test_each_blocked_run_is_compared_with_its_own_limit(db: Database, team: Team) -> None:
    async with db.workspace(team.workspace_id) as session:
        await session.execute(text(MANY), {"w": team.workspace_id})
    async with db.workspace(team.workspace_id) as session:
        of_run = {"workspace_id": team.workspace_id, "scope": "run"}
        await going_on.go_on(session, going_on.OPENED, of_run, OLGA)
        assert (await session.scalars(text(READ))).one() < 5 * 2000
