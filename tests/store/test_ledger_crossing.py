"""A limit of the ledger that is crossed: who is told and asked, and what opens it again."""

from contextlib import suppress
from decimal import Decimal

import pytest
from sqlmodel import select

from models.domain.budgets import Key, Owner, Scope
from models.domain.errors import Conflict
from models.domain.principals import Role
from models.domain.states import DecisionStatus
from models.store import alerts, answers, corrections, ledger
from models.store.database import Database
from models.tables.missions import Decision
from tests.fixtures.api import Team
from tests.fixtures.budgets import (
    BOT,
    MONTH,
    OLGA,
    at,
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

    async def test_the_next_day_s_has_an_alert_of_its_own(self, db: Database, team: Team, database_url: str) -> None:
        """Also where the pass that resolves yesterday's comes later."""
        await cap(db, team.workspace_id, Key(Scope.AGENT_DAY, Owner.AGENT, "bot"), "0.1")
        where = await place(db, team.workspace_id, agent_id="bot")
        with pytest.raises(Conflict):
            await ledger.spend(db, at(where, "1"), usd("0.2"), BOT)
        async with clock_moved(database_url, "1 day"):
            with pytest.raises(Conflict):
                await ledger.spend(db, at(where, "2"), usd("0.2"), BOT)
            async with db.system() as session:
                await alerts.turn_windows(session, OLGA, limit=200)
            rows = await db.alone(team.workspace_id, "SELECT status FROM alert ORDER BY detected_at", {})
        assert [row["status"] for row in rows] == ["resolved", "open"]
        happened = [row["type"] for row in await told(db, team.workspace_id, "alert.%")]
        assert happened == ["alert.raised", "alert.resolved", "alert.raised"]

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
