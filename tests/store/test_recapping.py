"""Another cap is met by what can still be spent of, and has nothing to do with what is over."""

import asyncio
from decimal import Decimal

import psycopg
import pytest
from sqlalchemy import text

from models.domain.budgets import DEFAULTS, MONTH, Cap, Key, Owner, RunStatus, Scope
from models.domain.errors import Conflict, NotFound
from models.store import budgets, caps, corrections, ledger, runs
from models.store.connections import plain
from models.store.database import Database
from models.store.ledger import Place
from tests.fixtures.api import Team
from tests.fixtures.budgets import BOT, OLGA, cap, clock_moved, counters, ended, place, run_of, start, told, usd

INTERNS = Key(Scope.RUN, Owner.LEVEL, "intern")
CATEGORY = Key(Scope.TICKET, Owner.CATEGORY, "default")


async def test_a_cap_waits_for_no_run_that_has_ended(db: Database, team: Team, database_url: str) -> None:
    """However many there were: their counters are neither read nor locked."""
    over = await place(db, team.workspace_id, agent_id="bot")
    going = await place(db, team.workspace_id, agent_id="bot")
    await ended(db, over)
    with psycopg.connect(plain(database_url)) as holder:
        holder.execute("SELECT FROM budget WHERE scope = 'run' AND subject = %s FOR UPDATE", [over.run_id])
        await cap(db, team.workspace_id, INTERNS, "3")
    assert [(await run_of(db, where))["cap_usd"] for where in (over, going)] == [Decimal("0.25"), 3]


RUNS = """
INSERT INTO run (workspace_id, run_id, created_by, status, ended_at)
SELECT :workspace, 'run_' || n, 'x', 'success', now() FROM generate_series(1, 5000) n
"""
READ = """
SELECT COALESCE(seq_tup_read, 0) + COALESCE(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE relname = 'run'
"""


async def test_the_list_of_caps_reads_no_more_runs_than_have_one(db: Database, team: Team) -> None:
    over, going = [await place(db, team.workspace_id) for _ in range(2)]
    for where in (over, going):
        await cap(db, team.workspace_id, Key(Scope.RUN, Owner.RUN, where.run_id), "3")
    await ended(db, over)
    async with db.workspace(team.workspace_id) as session:
        await session.execute(text(RUNS), {"workspace": team.workspace_id})
    async with db.workspace(team.workspace_id) as session:
        before = (await session.scalars(text(READ))).one()
        listed = await budgets.views(session, team.workspace_id)
        assert (await session.scalars(text(READ))).one() - before <= 2
    assert [view.name for view in listed if view.owner is Owner.RUN] == [going.run_id]


@pytest.mark.parametrize(
    ("own", "wider"),
    [
        (Key(Scope.AGENT_DAY, Owner.AGENT, "bot"), Key(Scope.AGENT_DAY, Owner.LEVEL, "intern")),
        (Key(Scope.RUN, Owner.AGENT, "bot"), INTERNS),
        (Key(Scope.TICKET, Owner.TICKET, "T-1"), CATEGORY),
    ],
    ids=lambda key: f"{key.scope.value} of {key.owner.value}",
)
@pytest.mark.parametrize("amount", ["0.05", "50"])
async def test_a_wider_cap_leaves_a_nearer_one(db: Database, team: Team, own: Key, wider: Key, amount: str) -> None:
    await cap(db, team.workspace_id, own, "0.1")
    where = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1")
    await cap(db, team.workspace_id, wider, amount)
    await ledger.spend(db, where, usd("0.1"), BOT)
    with pytest.raises(Conflict, match=r"of 0.1 USD"):
        await ledger.spend(db, Place(team.workspace_id, where.run_id, "2"), usd("0.01"), BOT)
    await cap(db, team.workspace_id, wider, "60")
    assert (await run_of(db, where))["status"] == "blocked"
    await cap(db, team.workspace_id, own, None)
    assert (await run_of(db, where))["status"] is None


@pytest.mark.parametrize("wider", [INTERNS, Key(Scope.RUN, Owner.AGENT, "bot")], ids=lambda key: key.owner.value)
async def test_a_runs_own_cap_stands(db: Database, team: Team, wider: Key) -> None:
    where = await place(db, team.workspace_id, agent_id="bot")
    await cap(db, team.workspace_id, Key(Scope.RUN, Owner.RUN, where.run_id), "0.1")
    await cap(db, team.workspace_id, wider, "1.9")
    assert (await run_of(db, where))["cap_usd"] == Decimal("0.1")


async def test_a_day_that_is_over_keeps_the_cap_that_held(db: Database, team: Team, database_url: str) -> None:
    await start(db, team.workspace_id, agent_id="bot")
    async with clock_moved(database_url, "1 day"):
        await start(db, team.workspace_id, agent_id="bot")
        await cap(db, team.workspace_id, Key(Scope.AGENT_DAY, Owner.LEVEL, "intern"), "9")
    days = [each for each in await counters(db, team.workspace_id) if each["scope"] == "agent_day"]
    assert [day["cap_usd"] for day in days] == [2, 9]


async def test_a_cap_that_was_set_while_the_clock_was_ahead_holds_once_it_is_set_again(
    db: Database, team: Team, database_url: str
) -> None:
    where = await place(db, team.workspace_id, agent_id="bot")
    own = Key(Scope.AGENT_DAY, Owner.AGENT, "bot")
    async with clock_moved(database_url, "1 day"):
        await cap(db, team.workspace_id, own, "0.05")
    await cap(db, team.workspace_id, own, "0.05")
    [day] = [each for each in await counters(db, team.workspace_id) if each["scope"] == "agent_day"]
    assert day["cap_usd"] == Decimal("0.05")
    with pytest.raises(Conflict):
        await ledger.reserve(db, where, usd("0.06"), BOT)


async def test_a_late_call_is_judged_by_the_cap_that_its_ticket_has_by_now(db: Database, team: Team) -> None:
    await cap(db, team.workspace_id, Key(Scope.AGENT_DAY, Owner.LEVEL, "intern"), None)
    where = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1")
    await ledger.reserve(db, where, usd("0.1"), BOT)
    await ended(db, where)
    await cap(db, team.workspace_id, CATEGORY, "20")
    await ledger.settle(db, where, usd("7"), BOT)
    [ticket] = [each for each in await counters(db, team.workspace_id) if each["scope"] == "ticket"]
    assert (ticket["cap_usd"], ticket["settled_usd"], ticket["crossed"]) == (20, 7, False)
    assert await told(db, team.workspace_id, "budget.exceeded") == []
    late = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1")
    await ledger.reserve(db, late, usd("0.1"), BOT)
    await ended(db, late)
    await ledger.settle(db, late, usd("14"), BOT)
    [exceeded] = await told(db, team.workspace_id, "budget.exceeded")
    assert exceeded["data"]["cap_usd"] == "20"


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


async def test_a_limit_that_a_lower_cap_closed_is_asked_about_when_it_is_met(db: Database, team: Team) -> None:
    where = await place(db, team.workspace_id, agent_id="bot")
    await ledger.spend(db, where, usd("0.2"), BOT)
    await cap(db, team.workspace_id, INTERNS, "0.1")
    assert await decided(db, team) == [], "whoever lowered it knows"
    for cost_id in ("late", "later"):
        with pytest.raises(Conflict):
            await ledger.reserve(db, Place(team.workspace_id, where.run_id, cost_id), usd("0.01"), BOT)
    assert await decided(db, team) == ["pending"]
    for kind in ("budget.exceeded", "alert.raised", "run.blocked"):
        assert len(await told(db, team.workspace_id, kind)) == 1, kind


async def test_a_cap_that_was_held_above_what_was_meant_opens_with_a_higher_one(db: Database, team: Team) -> None:
    where = await place(db, team.workspace_id, agent_id="bot")
    await ledger.reserve(db, where, usd("0.2"), BOT)
    await cap(db, team.workspace_id, INTERNS, "0.15")
    await ledger.settle(db, where, usd("0.01"), BOT)
    await cap(db, team.workspace_id, INTERNS, "0.16")
    assert (await run_of(db, where))["cap_usd"] == Decimal("0.16")
    await ledger.spend(db, Place(team.workspace_id, where.run_id, "2"), usd("0.15"), BOT)


async def test_the_end_of_a_run_takes_its_question_and_its_alert_along(db: Database, team: Team) -> None:
    where = await place(db, team.workspace_id, agent_id="bot")
    with pytest.raises(Conflict):
        await ledger.spend(db, where, usd("0.3"), BOT)
    with pytest.raises(Conflict) as refused:
        await ended(db, where)
    assert refused.value.code == "run_blocked"
    async with db.workspace(team.workspace_id) as session:
        await runs.end(session, team.workspace_id, where.run_id, RunStatus.FAILED, "gave up", BOT)
    assert await decided(db, team) == ["canceled"]
    assert await db.alone(team.workspace_id, "SELECT FROM alert WHERE status <> 'resolved'", {}) == []


async def test_caps_of_runs_that_have_ended_are_not_listed(db: Database, team: Team) -> None:
    where = await place(db, team.workspace_id, agent_id="bot")
    await cap(db, team.workspace_id, Key(Scope.RUN, Owner.RUN, where.run_id), "1")
    assert where.run_id in await listed(db, team)
    await ended(db, where)
    assert where.run_id not in await listed(db, team)
    with pytest.raises(NotFound):
        await cap(db, team.workspace_id, Key(Scope.RUN, Owner.RUN, "run_nope"), "1")
    with pytest.raises(Conflict, match="has ended"):
        await cap(db, team.workspace_id, Key(Scope.RUN, Owner.RUN, where.run_id), "2")


async def test_one_part_of_a_cap_is_changed_beside_the_other(db: Database, team: Team) -> None:
    """Two admins at once, each of whom knows of one part only."""

    async def change(**part: object) -> None:
        async with db.workspace(team.workspace_id) as session:
            await caps.change_limit(session, team.workspace_id, MONTH, part, OLGA)

    await asyncio.gather(*(change(**part) for part in ({"usd": Decimal(5)}, {"tokens": 7}) for _ in range(3)))
    async with db.workspace(team.workspace_id) as session:
        assert (await budgets.limits(session, team.workspace_id))[MONTH] == Cap(Decimal(5), 7)


async def decided(db: Database, team: Team) -> list[str]:
    """How the questions about limits stand."""
    rows = await db.alone(team.workspace_id, "SELECT status FROM decision WHERE kind = 'budget'", {})
    return [row["status"] for row in rows]


async def listed(db: Database, team: Team) -> list[str]:
    """Whose caps are shown."""
    async with db.workspace(team.workspace_id) as session:
        return [view.name for view in await budgets.views(session, team.workspace_id)]


async def test_a_correction_of_another_day_opens_nothing_today(db: Database, team: Team, database_url: str) -> None:
    where = await place(db, team.workspace_id, agent_id="bot", level="lead")
    await cap(db, team.workspace_id, Key(Scope.RUN, Owner.RUN, where.run_id), None)
    await ledger.spend(db, where, usd("2"), BOT)
    async with clock_moved(database_url, "3 days"):
        await ledger.spend(db, Place(team.workspace_id, where.run_id, "today"), usd("0.5"), BOT)
        with pytest.raises(Conflict):
            await ledger.spend(db, Place(team.workspace_id, where.run_id, "dear"), usd("12"), BOT)
        async with db.workspace(team.workspace_id) as session:
            less = Place(team.workspace_id, where.run_id, "less")
            await corrections.adjust(session, less, -usd("1").usd, "twice", OLGA)
        days = [each for each in await counters(db, team.workspace_id) if each["scope"] == "agent_day"]
        shown = [(each["settled_usd"], each["crossed"]) for each in days]
        assert shown == [(1, False), (Decimal("0.5"), True)]
        with pytest.raises(Conflict) as refused:
            async with db.workspace(team.workspace_id) as session:
                await corrections.adjust(
                    session, Place(team.workspace_id, where.run_id, "more"), -usd("1.2").usd, "thrice", OLGA
                )
        assert refused.value.code == "below_zero"
    assert (await run_of(db, where))["usd"] == Decimal("1.5")


async def test_of_two_days_that_paid_so_much_the_last_one_is_corrected(
    db: Database, team: Team, database_url: str
) -> None:
    where = await place(db, team.workspace_id, agent_id="bot", level="lead")
    await ledger.spend(db, where, usd("0.7"), BOT)
    async with clock_moved(database_url, "1 day"):
        await ledger.spend(db, Place(team.workspace_id, where.run_id, "today"), usd("0.7"), BOT)
        async with db.workspace(team.workspace_id) as session:
            less = Place(team.workspace_id, where.run_id, "less")
            await corrections.adjust(session, less, -usd("0.5").usd, "twice", OLGA)
    days = [each["settled_usd"] for each in await counters(db, team.workspace_id) if each["scope"] == "agent_day"]
    assert days == [Decimal("0.7"), Decimal("0.2")]


async def test_a_correction_opens_what_it_leaves_something_of(db: Database, team: Team) -> None:
    await cap(db, team.workspace_id, Key(Scope.AGENT_DAY, Owner.AGENT, "bot"), "2")
    dear, next_one = [await place(db, team.workspace_id, agent_id="bot") for _ in range(2)]
    await ledger.reserve(db, dear, usd("0.1"), BOT)
    assert await ledger.settle(db, dear, usd("50"), BOT)
    with pytest.raises(Conflict):
        await ledger.spend(db, next_one, usd("0.1"), BOT)
    for amount, status in (("-47", "blocked"), ("-2.9", None)):
        async with db.workspace(team.workspace_id) as session:
            where = Place(team.workspace_id, dear.run_id, amount)
            await corrections.adjust(session, where, usd(amount).usd, "a hundredfold", OLGA)
        assert (await run_of(db, next_one))["status"] == status
    [day] = [each for each in await counters(db, team.workspace_id) if each["scope"] == "agent_day"]
    assert (day["cap_usd"], day["settled_usd"], day["crossed"]) == (2, Decimal("0.1"), False)
    alerts = await db.alone(team.workspace_id, "SELECT status FROM alert WHERE subject_id LIKE 'agent_day/%%'", {})
    assert {alert["status"] for alert in alerts} == {"resolved"}
    await ledger.spend(db, Place(team.workspace_id, next_one.run_id, "2"), usd("0.2"), BOT)


async def test_a_part_that_is_not_said_stays_that_of_the_level(db: Database, team: Team) -> None:
    own = Key(Scope.RUN, Owner.AGENT, "bot")
    async with db.workspace(team.workspace_id) as session:
        await caps.change_limit(session, team.workspace_id, own, {"tokens": 1000}, OLGA)
        known = (await budgets.limits(session, team.workspace_id, "bot"))[own]
    of_level = DEFAULTS[Key(Scope.RUN, Owner.LEVEL, "intern")].usd
    assert (known.usd, known.tokens) == (of_level, 1000)
    where = await place(db, team.workspace_id, agent_id="bot")
    async with db.workspace(team.workspace_id) as session:
        of_run = Key(Scope.RUN, Owner.RUN, where.run_id)
        await caps.change_limit(session, team.workspace_id, of_run, {"usd": Decimal("0.2")}, OLGA)
        known = (await budgets.limits(session, team.workspace_id, where.run_id))[of_run]
    assert (known.usd, known.tokens) == (Decimal("0.2"), 1000)


async def test_a_ticket_on_which_nothing_ran_keeps_the_cap_of_its_category(db: Database, team: Team) -> None:
    own = Key(Scope.TICKET, Owner.TICKET, "T-2")
    async with db.workspace(team.workspace_id) as session:
        await caps.change_limit(session, team.workspace_id, own, {"tokens": 1000}, OLGA)
        known = (await budgets.limits(session, team.workspace_id, "T-2"))[own]
    assert (known.usd, known.tokens) == (DEFAULTS[Key(Scope.TICKET, Owner.CATEGORY, "default")].usd, 1000)
