"""The ledger on a real database: four limits, promises, and who died."""

from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from models.domain.budgets import Category, RunStatus
from models.domain.errors import Conflict, NotFound
from models.domain.policy import Level
from models.domain.prices import Charge, Usage
from models.store import ledger, runs
from models.store.database import Database
from models.store.ledger import Place
from tests.fixtures.api import Team, make_team
from tests.fixtures.budgets import BOT, MONTH, at, cap, counters, entries, place, run_of, usd


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
            dead = [found for found in await ledger.overdue(session, 200) if found.workspace_id == team.workspace_id]
        assert dead == [where]


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
