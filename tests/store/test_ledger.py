"""The ledger on a real database: four limits, crossing, raising, windows, and who died."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from decimal import Decimal

import pytest
from psycopg import AsyncConnection
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from models.domain.budgets import Category, Key, Owner, RunStatus, Scope
from models.domain.errors import Conflict, NotFound
from models.domain.policy import Level
from models.domain.prices import Charge, Usage
from models.domain.principals import Role
from models.domain.states import DecisionStatus
from models.store import answers, corrections, ledger, runs
from models.store.connections import plain
from models.store.database import Database
from models.store.ledger import Place
from models.tables.missions import Decision
from tests.fixtures.api import Team, make_team
from tests.fixtures.budgets import (
    BOT,
    MONTH,
    OLGA,
    cap,
    clock_moved,
    counters,
    entries,
    place,
    run_of,
    told,
    usd,
)
from tests.fixtures.runs import human


def at(where: Place, cost_id: str) -> Place:
    return Place(where.workspace_id, where.run_id, cost_id)


class TestLimits:
    @pytest.mark.parametrize(
        ("level", "amount"), [(Level.INTERN, "0.25"), (Level.SPECIALIST, "0.75"), (Level.LEAD, "1.5")]
    )
    async def test_a_run_is_held_to_its_level(self, db: Database, team: Team, level: Level, amount: str) -> None:
        where = await place(db, team.workspace_id, agent_id="bot", level=level)
        await ledger.spend(db, where, usd(amount), BOT)
        with pytest.raises(Conflict, match="the run's limit") as refused:
            await ledger.spend(db, at(where, "2"), usd("0.01"), BOT)
        assert (refused.value.code, refused.value.details["limit"]) == ("budget_exceeded", "run")
        found = await run_of(db, where)
        assert (found["status"], found["blocked_by"], found["usd"]) == ("blocked", "run", Decimal(amount))

    async def test_an_agents_day_over_several_runs(self, db: Database, team: Team) -> None:
        for cost in [*["0.25"] * 7, "0.24"]:
            await ledger.spend(db, await place(db, team.workspace_id, agent_id="bot"), usd(cost), BOT)
        last = await place(db, team.workspace_id, agent_id="bot")
        with pytest.raises(Conflict, match="agent 'bot' for") as refused:
            await ledger.spend(db, last, usd("0.02"), BOT)
        assert refused.value.details["limit"] == "agent_day"
        other = await place(db, team.workspace_id, agent_id="bert")
        await ledger.spend(db, other, usd("0.02"), BOT)
        with pytest.raises(Conflict, match="agent 'bot' for"):
            await ledger.spend(db, at(last, "2"), usd("0.001"), BOT)
        assert len(await entries(db, team.workspace_id)) == 2 * 9, "no row after it"

    @pytest.mark.parametrize(("category", "amount"), [("engineering", "8"), ("content", "6"), (None, "6")])
    async def test_a_ticket(self, db: Database, team: Team, category: Category | None, amount: str) -> None:
        where = await place(db, team.workspace_id, ticket_id="T-1", category=category)
        await ledger.spend(db, where, usd(amount), BOT)
        with pytest.raises(Conflict, match="ticket 'T-1'"):
            await ledger.spend(db, at(where, "2"), usd("0.01"), BOT)

    async def test_a_workspaces_tokens_of_a_month_stop_it_alone(self, db: Database, team: Team) -> None:
        await cap(db, team.workspace_id, MONTH, None, 100)
        where = await place(db, team.workspace_id)
        await ledger.spend(db, where, usd("0", 100), BOT)
        with pytest.raises(Conflict, match="the workspace's limit"):
            await ledger.spend(db, at(where, "2"), usd("0", 1), BOT)
        assert (await run_of(db, await place(db, team.workspace_id)))["blocked_by"] == "workspace_month"
        other = await make_team(db)
        await ledger.spend(db, await place(db, other.workspace_id), usd("0", 1000), BOT)

    async def test_the_first_one_hit_is_named(self, db: Database, team: Team) -> None:
        await cap(db, team.workspace_id, MONTH, "0.1")
        where = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1")
        with pytest.raises(Conflict) as refused:
            await ledger.reserve(db, where, usd("100"), BOT)
        assert refused.value.details["limit"] == "run"


class TestReservations:
    async def test_it_is_promised_paid_and_given_back(self, db: Database, team: Team) -> None:
        where = await place(db, team.workspace_id, agent_id="bot")
        for _ in range(2):
            await ledger.reserve(db, where, usd("0.2", 10), BOT)
        assert {row["reserved_usd"] for row in await counters(db, team.workspace_id)} == {Decimal("0.2")}
        assert [await ledger.settle(db, where, usd("0.1", 7), BOT) for _ in range(2)] == [True, False]
        await ledger.reserve(db, at(where, "2"), usd("0.15"), BOT)
        assert [await ledger.release(db, at(where, "2"), BOT) for _ in range(2)] == [True, False]
        for row in await counters(db, team.workspace_id):
            assert (row["settled_usd"], row["reserved_usd"], row["settled_tokens"]) == (Decimal("0.1"), 0, 7)
        kinds = [(row["cost_id"], row["kind"], row["usd"]) for row in await entries(db, team.workspace_id)]
        assert sorted(kinds) == [
            ("1", "reserve", Decimal("0.2")),
            ("1", "settle", Decimal("0.1")),
            ("2", "release", 0),
            ("2", "reserve", Decimal("0.15")),
        ]

    async def test_what_is_promised_to_others_blocks_nobody_for_good(self, db: Database, team: Team) -> None:
        where = await place(db, team.workspace_id, agent_id="bot")
        await ledger.reserve(db, where, usd("0.2"), BOT)
        with pytest.raises(Conflict) as refused:
            await ledger.reserve(db, at(where, "2"), usd("0.1"), BOT)
        assert refused.value.code == "budget_reserved"
        assert (await run_of(db, where))["status"] is None
        await ledger.settle(db, where, usd("0.05"), BOT)
        await ledger.reserve(db, at(where, "2"), usd("0.1"), BOT)

    async def test_a_call_that_costs_more_is_paid_marked_and_blocks(self, db: Database, team: Team) -> None:
        where = await place(db, team.workspace_id, agent_id="bot", level=Level.SPECIALIST)
        await ledger.reserve(db, where, usd("0.5"), BOT)
        await ledger.reserve(db, at(where, "2"), usd("0.2"), BOT)
        assert await ledger.settle(db, where, usd("0.76"), BOT)
        found = await run_of(db, where)
        assert (found["status"], found["usd"]) == ("blocked", Decimal("0.76"))
        assert [row["overrun"] for row in await entries(db, team.workspace_id) if row["kind"] == "settle"] == [True]
        assert await ledger.settle(db, at(where, "2"), usd("0.2"), BOT), "what has begun is paid"

    async def test_what_was_given_back_may_still_be_paid(self, db: Database, team: Team) -> None:
        where = await place(db, team.workspace_id, agent_id="bot")
        await ledger.reserve(db, where, usd("0.2"), BOT)
        await ledger.release(db, where, BOT)
        assert await ledger.settle(db, where, usd("0.2"), BOT)
        [settled] = [row for row in await entries(db, team.workspace_id) if row["kind"] == "settle"]
        assert settled["overrun"]

    async def test_what_is_not_there(self, db: Database, team: Team) -> None:
        nowhere = Place(team.workspace_id, "run_x", "1")
        with pytest.raises(NotFound) as refused:
            await ledger.reserve(db, nowhere, usd("1"), BOT)
        assert refused.value.code == "run_not_found"
        with pytest.raises(NotFound) as refused:
            await ledger.settle(db, nowhere, usd("1"), BOT)
        assert refused.value.code == "reservation_not_found"

    async def test_the_end_of_a_run_gives_back(self, db: Database, team: Team) -> None:
        where = await place(db, team.workspace_id, agent_id="bot")
        await ledger.reserve(db, where, usd("0.2"), BOT)
        async with db.workspace(team.workspace_id) as session:
            await runs.end(session, team.workspace_id, where.run_id, RunStatus.SUCCESS, None, BOT)
        assert {row["reserved_usd"] for row in await counters(db, team.workspace_id)} == {Decimal(0)}
        with pytest.raises(Conflict) as refused:
            await ledger.reserve(db, at(where, "2"), usd("0.1"), BOT)
        assert refused.value.code == "run_ended"

    async def test_the_reconciler_gives_back_what_a_dead_holder_held(self, db: Database, team: Team) -> None:
        where = await place(db, team.workspace_id, agent_id="bot")
        await ledger.reserve(db, where, usd("0.1"), BOT, timedelta(0))
        await ledger.reserve(db, at(where, "2"), usd("0.1"), BOT)
        async with db.system() as session:
            dead = [found for found in await ledger.overdue(session) if found.workspace_id == team.workspace_id]
        assert dead == [where]


class TestCrossing:
    async def test_it_is_told_once_and_asked_once(self, db: Database, team: Team) -> None:
        where = await place(db, team.workspace_id, agent_id="bot")
        for cost_id in "12":
            with pytest.raises(Conflict):
                await ledger.reserve(db, at(where, cost_id), usd("0.26"), BOT)
        assert [row["type"] for row in await told(db, team.workspace_id, "%")][-4:] == [
            "budget.exceeded",
            "run.blocked",
            "decision.requested",
            "alert.raised",
        ]
        [asked] = await db.alone(team.workspace_id, "SELECT * FROM decision", {})
        assert (asked["kind"], asked["status"], asked["requested_by"]) == ("budget", "pending", "bot")
        assert asked["question"]["proposed"] == {"cap_usd": "0.50", "cap_tokens": None}

    @pytest.mark.parametrize(
        ("key", "asks"),
        [
            (Key(Scope.RUN, Owner.LEVEL, "intern"), True),
            (Key(Scope.TICKET, Owner.TICKET, "T-1"), True),
            (Key(Scope.AGENT_DAY, Owner.AGENT, "bot"), False),
            (MONTH, False),
        ],
        ids=lambda value: value.scope.value if isinstance(value, Key) else "asks" if value else "waits",
    )
    async def test_each_limit_stops_all_cost_and_a_run_s_and_a_ticket_s_ask(
        self, db: Database, team: Team, key: Key, asks: bool
    ) -> None:
        await cap(db, team.workspace_id, key, "0.1")
        first, second = [await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1") for _ in range(2)]
        await ledger.spend(db, first, usd("0.1"), BOT)
        paid = await entries(db, team.workspace_id)
        for where in (first,) if key.scope is Scope.RUN else (first, second):
            for act, code in (
                (ledger.reserve, "budget_exceeded"),
                (ledger.reserve, "run_blocked"),
                (ledger.spend, "run_blocked"),
            ):
                with pytest.raises(Conflict) as refused:
                    await act(db, at(where, "later"), usd("0.01"), BOT)
                assert refused.value.code == code
        assert await entries(db, team.workspace_id) == paid, "no row after it"
        found = await run_of(db, first)
        assert (found["status"], found["blocked_by"]) == ("blocked", key.scope.value)
        asked = await db.alone(team.workspace_id, "SELECT kind, status, binding FROM decision", {})
        assert [(one["kind"], one["status"], one["binding"]["scope"]) for one in asked] == (
            [("budget", "pending", key.scope.value)] if asks else []
        )
        assert len(await told(db, team.workspace_id, "alert.raised")) == 1

    async def test_an_approval_that_the_spending_overtook_is_asked_again(self, db: Database, team: Team) -> None:
        where = await place(db, team.workspace_id, agent_id="bot")
        for cost_id in "12":
            await ledger.reserve(db, at(where, cost_id), usd("0.01"), BOT)
        await ledger.settle(db, where, usd("1"), BOT)
        async with db.workspace(team.workspace_id) as session:
            [asked] = await session.scalars(select(Decision).with_for_update())
            await ledger.settle(db, at(where, "2"), usd("9"), BOT)
            person = human(team.workspace_id, "olga", Role.ADMIN)
            await answers.give(session, person, asked.decision_id, DecisionStatus.APPROVED, "go")
        found = await run_of(db, where)
        assert (found["status"], found["usd"], found["cap_usd"]) == ("blocked", 10, Decimal("0.25"))
        rows = await db.alone(team.workspace_id, "SELECT * FROM decision ORDER BY decision_id", {})
        assert [(row["status"], row["requested_by"]) for row in rows] == [("approved", "bot"), ("pending", "bot")]
        assert Decimal(rows[1]["binding"]["cap_usd"]) == 20

    async def test_a_day_asks_nobody_and_opens_with_the_next(self, db: Database, team: Team, database_url: str) -> None:
        await cap(db, team.workspace_id, Key(Scope.AGENT_DAY, Owner.AGENT, "bot"), "0.1")
        where = await place(db, team.workspace_id, agent_id="bot")
        await ledger.spend(db, where, usd("0.09"), BOT)
        with pytest.raises(Conflict):
            await ledger.spend(db, at(where, "2"), usd("0.02"), BOT)
        assert await db.alone(team.workspace_id, "SELECT * FROM decision", {}) == []
        async with clock_moved(database_url, "1 day"):
            await ledger.spend(db, at(where, "3"), usd("0.02"), BOT)
            assert (await run_of(db, where))["status"] is None
        with pytest.raises(Conflict, match="agent 'bot'"):
            await ledger.spend(db, at(where, "4"), usd("0.001"), BOT)

    async def test_a_clock_that_moves_resets_no_cap_twice(self, db: Database, team: Team, database_url: str) -> None:
        await cap(db, team.workspace_id, Key(Scope.AGENT_DAY, Owner.LEVEL, "intern"), "0.1")
        where = await place(db, team.workspace_id, agent_id="bot")
        paid = []
        for number, moved in enumerate(("0", "1 day", "0", "-1 day", "1 day", "-1 day", "0")):
            async with clock_moved(database_url, moved):
                with suppress(Conflict):
                    await ledger.spend(db, at(where, str(number)), usd("0.06"), BOT)
                    paid.append(number)
        assert paid == [0, 1, 3]
        days = [row["settled_usd"] for row in await counters(db, team.workspace_id) if row["scope"] == "agent_day"]
        assert days == [Decimal("0.06")] * 3

    async def test_a_raised_cap_lets_it_go_on_and_takes_the_question_back(self, db: Database, team: Team) -> None:
        where = await place(db, team.workspace_id, agent_id="bot")
        with pytest.raises(Conflict):
            await ledger.reserve(db, where, usd("0.3"), BOT)
        await cap(db, team.workspace_id, Key(Scope.RUN, Owner.LEVEL, "intern"), "0.2")
        assert (await run_of(db, where))["status"] == "blocked"
        await cap(db, team.workspace_id, Key(Scope.RUN, Owner.RUN, where.run_id), "0.3")
        assert (await run_of(db, where))["status"] is None
        await ledger.reserve(db, where, usd("0.3"), BOT)
        [asked] = await db.alone(team.workspace_id, "SELECT status FROM decision", {})
        assert asked["status"] == "canceled"
        assert [row["subject_id"] for row in await told(db, team.workspace_id, "run.unblocked")] == [where.run_id]
        assert len(await told(db, team.workspace_id, "budget.changed")) == 2

    async def test_a_lowered_cap_takes_no_promise_back_and_grants_none(self, db: Database, team: Team) -> None:
        where = await place(db, team.workspace_id, agent_id="bot")
        await ledger.reserve(db, where, usd("0.2"), BOT)
        await cap(db, team.workspace_id, Key(Scope.RUN, Owner.LEVEL, "intern"), "0.1")
        with pytest.raises(Conflict):
            await ledger.reserve(db, at(where, "2"), usd("0.01"), BOT)
        assert await ledger.settle(db, where, usd("0.2"), BOT)
        assert not any(row["overrun"] for row in await entries(db, team.workspace_id))

    async def test_an_adjustment_is_no_matter_of_caps(self, db: Database, team: Team) -> None:
        where = await place(db, team.workspace_id, agent_id="bot")
        await ledger.spend(db, where, usd("0.2"), BOT)
        for _ in range(2):
            async with db.workspace(team.workspace_id) as session:
                await corrections.adjust(session, at(where, "a"), Decimal("-0.15"), "billed twice", OLGA)
        assert (await run_of(db, where))["usd"] == Decimal("0.05")
        await ledger.spend(db, at(where, "2"), usd("0.2"), BOT)
        assert len(await told(db, team.workspace_id, "budget.adjusted")) == 1


async def test_two_hundred_at_once_spend_a_cap_to_the_cent(db: Database, team: Team, database_url: str) -> None:
    await cap(db, team.workspace_id, MONTH, "10")
    places = [await place(db, team.workspace_id, str(number)) for number in range(20)]
    calls = [at(places[number % 20], f"{number}") for number in range(200)]
    async with watched(database_url, team.workspace_id) as seen:
        answers = await asyncio.gather(
            *(ledger.spend(db, where, usd("0.1"), BOT) for where in calls), return_exceptions=True
        )
    assert len({one for one in seen if one < 10}) > 5, "it was looked at while they spent"
    assert max(seen) <= 10
    refused = [answer for answer in answers if answer is not None]
    assert {error.code for error in refused if isinstance(error, Conflict)} <= {"budget_exceeded", "run_blocked"}
    assert all(isinstance(error, Conflict) for error in refused)
    assert len(refused) == 100
    [month] = [row for row in await counters(db, team.workspace_id) if row["scope"] == "workspace_month"]
    assert (month["settled_usd"], month["reserved_usd"], month["crossings"]) == (Decimal(10), 0, 1)
    paid = [row["usd"] for row in await entries(db, team.workspace_id) if row["kind"] == "settle"]
    assert sum(paid) == 10


async def test_no_commit_goes_beyond_the_cap_while_two_hundred_reserve_and_settle(
    db: Database, team: Team, database_url: str
) -> None:
    await cap(db, team.workspace_id, MONTH, "10")
    places = [await place(db, team.workspace_id, str(number)) for number in range(20)]

    async def call(number: int) -> None:
        mine = at(places[number % 20], f"{number}")
        with suppress(Conflict):
            await ledger.reserve(db, mine, usd("0.1"), BOT)
            await (ledger.settle(db, mine, usd("0.07"), BOT) if number % 4 else ledger.release(db, mine, BOT))

    async with watched(database_url, team.workspace_id) as seen:
        await asyncio.gather(*(call(number) for number in range(200)))
    assert len(set(seen)) > 5, "it was looked at while they spent"
    assert max(seen) <= 10
    [month] = [row for row in await counters(db, team.workspace_id) if row["scope"] == "workspace_month"]
    paid = [row["usd"] for row in await entries(db, team.workspace_id) if row["kind"] == "settle"]
    assert (month["settled_usd"], month["reserved_usd"]) == (sum(paid), 0)


@asynccontextmanager
async def watched(url: str, workspace_id: str) -> AsyncIterator[list[Decimal]]:
    """Look, as often as one can, at what was settled and promised of the month; each look sees what is committed."""
    seen: list[Decimal] = []
    async with await AsyncConnection.connect(plain(url), autocommit=True) as connection:

        async def look() -> None:
            while True:
                found = await connection.execute(SPOKEN_FOR, [workspace_id])
                seen.extend(row[0] for row in await found.fetchall())

        watching = asyncio.create_task(look())
        try:
            yield seen
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching


SPOKEN_FOR = "SELECT settled_usd + reserved_usd FROM budget WHERE scope = 'workspace_month' AND workspace_id = %s"


async def test_all_four_limits_at_once_meet_without_a_deadlock(db: Database, team: Team) -> None:
    agents = [f"bot-{number}" for number in range(5)]
    made = [
        await place(db, team.workspace_id, agent_id=agents[number % 5], ticket_id=f"T-{number % 3}", level=Level.LEAD)
        for number in range(30)
    ]

    async def call(where: Place, number: int) -> None:
        mine = at(where, f"c{number}")
        await ledger.reserve(db, mine, usd("0.01", 5), BOT)
        await (ledger.settle(db, mine, usd("0.02", 9), BOT) if number % 3 else ledger.release(db, mine, BOT))

    async def turn_a_cap() -> None:
        for amount in ("3", "2", "3"):
            await cap(db, team.workspace_id, Key(Scope.RUN, Owner.LEVEL, "lead"), amount)

    await asyncio.gather(turn_a_cap(), *(call(where, number) for where in made for number in range(6)))
    sums: dict[str, Decimal] = {}
    for row in await counters(db, team.workspace_id):
        assert row["reserved_usd"] == row["reserved_tokens"] == 0
        sums[row["scope"]] = sums.get(row["scope"], Decimal(0)) + row["settled_usd"]
    assert set(sums.values()) == {Decimal("0.02") * 30 * 4}


async def test_a_call_of_no_price_and_no_tokens(db: Database, team: Team) -> None:
    where = await place(db, team.workspace_id)
    await ledger.spend(db, where, Charge(Usage(), Decimal(0)), BOT)
    assert (await run_of(db, where))["calls"] == 1


async def test_nobody_changes_the_ledger(db: Database, team: Team) -> None:
    await ledger.spend(db, await place(db, team.workspace_id), usd("1"), BOT)
    refused = []
    for change in ("UPDATE ledger SET usd = 0", "DELETE FROM ledger", "TRUNCATE ledger"):
        for role in ("mission_control_app", "mission_control_owner"):
            try:
                async with db.system() as session:
                    await session.execute(text("RESET ROLE"))
                    await session.execute(text(f"SET ROLE {role}"))
                    await session.execute(text(change))
            except DBAPIError as error:
                refused.append(str(error.orig).splitlines()[0])
    closed, final = "permission denied for table ledger", "the ledger is only added to"
    assert [said.partition(":")[0] for said in refused] == [closed, final] * 3
