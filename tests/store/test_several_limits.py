"""One call that goes beyond several limits closes each of them, and the last that opens lets its run go on."""

from decimal import Decimal
from typing import Any

import pytest

from models.domain.budgets import Key, Owner, RunStatus, Scope
from models.domain.errors import Conflict
from models.domain.principals import Role
from models.domain.states import DecisionStatus
from models.store import answers, blocks, budgets, corrections, ledger, runs
from models.store.database import Database
from models.store.ledger import Place
from models.tables.missions import Decision
from tests.fixtures.api import Team
from tests.fixtures.budgets import BOT, MONTH, OLGA, at, cap, clock_moved, counters, place, run_of, told, usd
from tests.fixtures.runs import human

TICKET = Key(Scope.TICKET, Owner.TICKET, "T-1")
NAMES = {"ticket": "limit of ticket 'T-1'", "workspace_month": "the workspace's limit"}
DAY = Key(Scope.AGENT_DAY, Owner.AGENT, "bot")


async def overrun(db: Database, team: Team, paid: str = "5") -> Place:
    """A run whose call cost more than it, its ticket and the month may, and not more than its agent's day."""
    await cap(db, team.workspace_id, TICKET, "0.3")
    await cap(db, team.workspace_id, DAY, "90")
    await cap(db, team.workspace_id, MONTH, "0.5")
    where = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1")
    await ledger.reserve(db, at(where, "late"), usd("0.01"), BOT)
    await ledger.reserve(db, where, usd("0.1"), BOT)
    await ledger.settle(db, where, usd(paid), BOT)
    return where


async def end(db: Database, where: Place) -> None:
    async with db.workspace(where.workspace_id) as session:
        await runs.end(session, where.workspace_id, where.run_id, RunStatus.FAILED, None, OLGA)


async def closed(db: Database, team: Team) -> list[str]:
    return [row["scope"] for row in await counters(db, team.workspace_id) if row["crossed"]]


async def asked(db: Database, team: Team) -> dict[str, str]:
    """How the questions stand, by their limit."""
    rows = await db.alone(team.workspace_id, "SELECT binding ->> 'scope' AS scope, status FROM decision", {})
    assert len({row["scope"] for row in rows}) == len(rows), "each is asked once"
    return {row["scope"]: row["status"] for row in rows}


async def alerts(db: Database, team: Team) -> dict[str, str]:
    """How the alerts stand, by their limit."""
    rows = await db.alone(team.workspace_id, "SELECT details ->> 'scope' AS scope, status FROM alert", {})
    assert len({row["scope"] for row in rows}) == len(rows), "each is raised once"
    return {row["scope"]: row["status"] for row in rows}


async def held(db: Database, where: Place) -> tuple[Any, Any]:
    found = await run_of(db, where)
    return found["status"], found["blocked_by"]


async def test_each_is_closed_told_and_asked_about_once(db: Database, team: Team) -> None:
    where = await overrun(db, team)
    assert not await ledger.settle(db, where, usd("5"), BOT), "it was paid"
    assert await ledger.settle(db, at(where, "late"), usd("0.02"), BOT)
    assert await closed(db, team) == ["run", "ticket", "workspace_month"]
    assert [row["data"]["scope"] for row in await told(db, team.workspace_id, "budget.exceeded")] == [
        "run",
        "ticket",
        "workspace_month",
    ]
    assert await alerts(db, team) == {"run": "open", "ticket": "open", "workspace_month": "open"}
    assert await asked(db, team) == {"run": "pending", "ticket": "pending"}
    [event] = await told(db, team.workspace_id, "run.blocked")
    assert (event["data"]["by"], await held(db, where)) == ("run", ("blocked", "run"))
    crossings = {row["scope"]: row["crossings"] for row in await counters(db, team.workspace_id)}
    assert crossings == {"agent_day": 0, "run": 1, "ticket": 1, "workspace_month": 1}


async def test_the_end_of_the_run_takes_back_its_own_alone(db: Database, team: Team) -> None:
    await end(db, await overrun(db, team))
    assert await alerts(db, team) == {"run": "resolved", "ticket": "open", "workspace_month": "open"}
    assert await asked(db, team) == {"run": "canceled", "ticket": "pending"}
    assert "workspace_month" in await closed(db, team)


async def test_one_that_was_closed_before_does_not_hide_another(db: Database, team: Team) -> None:
    where = await overrun(db, team, "0.28")
    assert await closed(db, team) == ["run"]
    await ledger.settle(db, at(where, "late"), usd("3"), BOT)
    assert await closed(db, team) == ["run", "ticket", "workspace_month"]
    assert len(await told(db, team.workspace_id, "run.blocked")) == 1
    rows = await db.alone(team.workspace_id, "SELECT status, binding FROM decision ORDER BY decision_id", {})
    shown = [(row["binding"]["scope"], row["status"], row["binding"]["cap_usd"]) for row in rows]
    assert shown == [("run", "canceled", "0.58"), ("run", "pending", "6.56"), ("ticket", "pending", "6.56")]


async def test_the_last_that_is_raised_lets_the_run_go_on(db: Database, team: Team) -> None:
    where = await overrun(db, team)
    for key, by in ((Key(Scope.RUN, Owner.RUN, where.run_id), "ticket"), (TICKET, "workspace_month"), (MONTH, None)):
        await cap(db, team.workspace_id, key, "20")
        assert await held(db, where) == (by and "blocked", by)
        assert [row["subject_id"] for row in await told(db, team.workspace_id, "run.unblocked")] == (
            [] if by else [where.run_id]
        )
        if by:
            with pytest.raises(Conflict, match=NAMES[by]) as refused:
                await ledger.reserve(db, at(where, "next"), usd("0.1"), BOT)
            assert (refused.value.code, refused.value.details["blocked_by"]) == ("run_blocked", by)
    shown = [(row["data"]["by"], row["actor"]) for row in await told(db, team.workspace_id, "run.blocked")]
    assert shown == [("run", "bot"), ("ticket", "olga"), ("workspace_month", "olga")]
    await ledger.reserve(db, at(where, "next"), usd("0.1"), BOT)


async def test_the_one_that_blocks_is_raised_last(db: Database, team: Team) -> None:
    where = await overrun(db, team)
    for key in (MONTH, TICKET):
        await cap(db, team.workspace_id, key, "20")
        assert await held(db, where) == ("blocked", "run")
    await cap(db, team.workspace_id, Key(Scope.RUN, Owner.RUN, where.run_id), "20")
    assert await held(db, where) == (None, None)
    assert len(await told(db, team.workspace_id, "run.blocked")) == 1


async def test_an_approved_question_leaves_the_run_to_the_month(db: Database, team: Team) -> None:
    where = await overrun(db, team)
    found = "SELECT decision_id FROM decision ORDER BY decision_id"
    for row in await db.alone(team.workspace_id, found, {}):
        async with db.workspace(team.workspace_id) as session:
            anna = human(team.workspace_id, "anna", Role.ADMIN)
            await answers.give(session, anna, row["decision_id"], DecisionStatus.APPROVED, "go")
    assert await asked(db, team) == {"run": "approved", "ticket": "approved"}
    assert await held(db, where) == ("blocked", "workspace_month")
    assert await alerts(db, team) == {"run": "resolved", "ticket": "resolved", "workspace_month": "open"}
    assert [row["data"]["by"] for row in await told(db, team.workspace_id, "run.blocked")][1:] == [
        "ticket",
        "workspace_month",
    ]


async def test_a_correction_opens_all_that_it_leaves_something_of(db: Database, team: Team) -> None:
    where = await overrun(db, team)
    async with db.workspace(team.workspace_id) as session:
        await corrections.adjust(session, at(where, "less"), Decimal("-4.9"), "a hundredfold", OLGA)
    assert (await closed(db, team), await held(db, where)) == ([], (None, None))
    assert [row["type"] for row in await told(db, team.workspace_id, "run.%")] == [
        "run.started",
        "run.blocked",
        "run.unblocked",
    ]


async def test_a_window_that_turns_leaves_a_run_to_what_is_still_closed(
    db: Database, team: Team, database_url: str
) -> None:
    await cap(db, team.workspace_id, DAY, "0.2")
    where, other = [await place(db, team.workspace_id, agent_id=name, ticket_id="T-1") for name in ("bot", "cat")]
    with pytest.raises(Conflict, match="agent 'bot'"):
        await ledger.reserve(db, where, usd("0.25"), BOT)
    await cap(db, team.workspace_id, TICKET, "0.1")
    with pytest.raises(Conflict, match="ticket 'T-1'"):
        await ledger.reserve(db, other, usd("0.2"), BOT)
    assert await one_pass(db, where) == ("blocked", "agent_day")
    async with clock_moved(database_url, "1 day"):
        for _ in range(2):
            assert await one_pass(db, where) == ("blocked", "ticket")
    assert [row["data"]["by"] for row in await told(db, team.workspace_id, "run.blocked")] == [
        "agent_day",
        "ticket",
        "ticket",
    ]
    # As where somebody opens it at the moment at which the run is moved to it.
    await db.alone(team.workspace_id, "UPDATE budget SET crossed = false RETURNING 1", {})
    assert await one_pass(db, where) == (None, None)
    assert len(await told(db, team.workspace_id, "run.unblocked")) == 2


async def test_a_call_of_yesterday_takes_no_alert_of_today_away(db: Database, team: Team, database_url: str) -> None:
    await cap(db, team.workspace_id, DAY, "0.2")
    async with clock_moved(database_url, "-1 day"):
        late = await place(db, team.workspace_id, agent_id="bot")
        await ledger.reserve(db, late, usd("0.1"), BOT)
        await cap(db, team.workspace_id, DAY, "0.2")
    with pytest.raises(Conflict, match="agent 'bot'"):
        await ledger.reserve(db, await place(db, team.workspace_id, agent_id="bot"), usd("0.25"), BOT)
    today = "SELECT details ->> 'period' AS period, status FROM alert"
    [before] = await db.alone(team.workspace_id, today, {})
    assert await ledger.settle(db, late, usd("0.24"), BOT)
    assert [row["crossed"] for row in await counters(db, team.workspace_id) if row["scope"] == "agent_day"] == [
        True
    ] * 2
    assert await db.alone(team.workspace_id, today, {}) == [before]


async def one_pass(db: Database, where: Place) -> tuple[Any, Any]:
    async with db.system() as session:
        await blocks.turn_windows(session, OLGA)
    return await held(db, where)


class TestEnded:
    async def test_nobody_is_asked_or_alarmed_about_a_run_that_is_over(self, db: Database, team: Team) -> None:
        where = await place(db, team.workspace_id, agent_id="bot")
        await ledger.reserve(db, where, usd("0.1"), BOT)
        await end(db, where)
        assert await ledger.settle(db, where, usd("1"), BOT)
        assert (await run_of(db, where))["usd"] == 1
        assert (await asked(db, team), await alerts(db, team), await closed(db, team)) == ({}, {}, [])
        kinds = {row["type"] for row in await told(db, team.workspace_id, "%")}
        assert not kinds & {"budget.exceeded", "decision.requested", "alert.raised", "run.blocked"}

    async def test_its_wider_limits_are_closed_told_and_asked_about(self, db: Database, team: Team) -> None:
        await cap(db, team.workspace_id, TICKET, "0.3")
        await cap(db, team.workspace_id, MONTH, "0.5")
        where = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1")
        await ledger.reserve(db, where, usd("0.1"), BOT)
        await end(db, where)
        for answer in (True, False):
            assert await ledger.settle(db, where, usd("1"), BOT) is answer
        assert await closed(db, team) == ["ticket", "workspace_month"]
        assert await asked(db, team) == {"ticket": "pending"}
        assert await alerts(db, team) == {"ticket": "open", "workspace_month": "open"}
        assert (await held(db, where)) == ("failed", None)
        late = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1")
        assert await held(db, late) == ("blocked", "ticket")

    async def test_a_question_that_outlived_the_run_is_not_put_again(self, db: Database, team: Team) -> None:
        where = await overrun(db, team)
        async with db.workspace(team.workspace_id) as session:
            await session.get_one(Decision, (team.workspace_id, f"budget.run.{where.run_id}.1"), with_for_update=True)
            await end(db, where)
        await ledger.settle(db, at(where, "late"), usd("50"), BOT)
        found = "SELECT status FROM decision WHERE about = %(about)s"
        rows = await db.alone(team.workspace_id, found, {"about": f"run/{where.run_id}"})
        assert [row["status"] for row in rows] == ["pending"], "the reconciler takes it back"


async def test_a_closed_limit_leaves_nothing(db: Database, team: Team) -> None:
    where = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1")
    await ledger.spend(db, where, usd("0.05"), BOT)
    with pytest.raises(Conflict):
        await ledger.spend(db, at(where, "2"), usd("0.3"), BOT)
    async with db.workspace(team.workspace_id) as session:
        assert await budgets.left(session, team.workspace_id, where.run_id) == 0
