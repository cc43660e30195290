"""However many runs a limit holds, it can be raised: some go on at once, the others soon after."""

import pytest
from sqlalchemy import text

from models.domain.budgets import MAX_OPEN_RUNS, Key, Owner, RunStatus, Scope
from models.domain.errors import Conflict
from models.domain.principals import Role
from models.domain.states import DecisionStatus
from models.store import alerts, answers, blocks, budgets, ledger, recapping, runs
from models.store.database import Database
from models.store.going_on import AT_ONCE
from models.store.ledger import Place
from tests.fixtures.api import Team
from tests.fixtures.budgets import BOT, OLGA, at, cap, ended, place, run_of, start, told, usd
from tests.fixtures.runs import human

DAY = Key(Scope.AGENT_DAY, Owner.AGENT, "bot")
INTERNS = Key(Scope.RUN, Owner.LEVEL, "intern")
MORE = 2 * AT_ONCE + 3

WAITING = """
    INSERT INTO run (workspace_id, run_id, agent_id, level, created_by, status, blocked_by, blocked_period, reason)
    SELECT r.workspace_id, r.run_id || '-' || n, r.agent_id, r.level, 'x', r.status, r.blocked_by, r.blocked_period, 'x'
    FROM run r, generate_series(1, :number) n
"""
COUNTERS = """
    INSERT INTO budget (workspace_id, scope, subject, period, agent_id, kind, cap_usd, settled_usd, crossed, crossings)
    SELECT b.workspace_id, b.scope, b.subject || '-' || n, '', b.agent_id, b.kind, b.cap_usd, b.settled_usd, true, 1
    FROM budget b, generate_series(1, :number) n WHERE b.scope = 'run'
"""
QUESTIONS = """
    INSERT INTO decision (workspace_id, decision_id, kind, round, candidate, status, risk, requested_by, binding,
    question)
    SELECT d.workspace_id, 'budget.run.' || r.run_id || '.1', d.kind, 0, 0, 'pending', d.risk, 'bot',
    d.binding || jsonb_build_object('subject', r.run_id), d.question || jsonb_build_object('subject', r.run_id)
    FROM decision d, run r WHERE r.created_by = 'x'
"""
ALERTS = """
    INSERT INTO alert (workspace_id, alert_id, kind, subject_kind, subject_id, summary, details, detected_at)
    SELECT a.workspace_id, 'a-' || r.run_id, a.kind, a.subject_kind, 'run/' || r.run_id, '',
    a.details || jsonb_build_object('subject', r.run_id), mc_now() FROM alert a, run r WHERE r.created_by = 'x'
"""


async def crossed(db: Database, team: Team, key: Key) -> Place:
    """A run that a limit holds."""
    await cap(db, team.workspace_id, key, "0.1")
    where = await place(db, team.workspace_id, agent_id="bot")
    await ledger.spend(db, where, usd("0.1"), BOT)
    with pytest.raises(Conflict, match="crossed"):
        await ledger.spend(db, at(where, "2"), usd("0.01"), BOT)
    return where


async def number(db: Database, team: Team, of: str) -> int:
    [found] = await db.alone(team.workspace_id, f"SELECT count(*) AS n FROM {of}", {})  # noqa: S608  # constants
    return int(found["n"])


async def one_pass(db: Database) -> bool:
    async with db.system() as session:
        return await blocks.turn_windows(session, OLGA)


async def left_over(db: Database, team: Team) -> list[tuple[str, str, str]]:
    """Limits of which something is asked or told that is over."""
    async with db.system() as session:
        found = await budgets.asked_of_open(session, 10_000)
    return [limit for limit in found if limit[0] == team.workspace_id]


BLOCKED, PENDING = "run WHERE status = 'blocked'", "decision WHERE status = 'pending'"
STANDING = "alert WHERE status = 'open'"


async def test_a_limit_that_holds_very_many_runs_is_raised(db: Database, team: Team) -> None:
    where = await crossed(db, team, DAY)
    async with db.workspace(team.workspace_id) as session:
        await session.execute(text(WAITING), {"number": MORE - 1})
    await cap(db, team.workspace_id, DAY, "9")
    assert await number(db, team, BLOCKED) == MORE - AT_ONCE
    last = Place(team.workspace_id, f"{where.run_id}-99", "1")  # by their ids, one of the last
    await ledger.spend(db, last, usd("0.01"), BOT)
    assert (await run_of(db, last))["status"] is None
    while await one_pass(db):
        pass
    assert await number(db, team, BLOCKED) == 0
    unblocked = [event["subject_id"] for event in await told(db, team.workspace_id, "run.unblocked")]
    assert len(unblocked) == len(set(unblocked)) == MORE


async def test_one_whose_turn_has_not_come_may_act_all_the_same(db: Database, team: Team) -> None:
    where = await crossed(db, team, DAY)
    async with db.workspace(team.workspace_id) as session:
        await session.execute(text(WAITING), {"number": MORE - 1})
    with pytest.raises(Conflict, match="blocked"):
        await ended(db, Place(team.workspace_id, f"{where.run_id}-99", "1"))
    await cap(db, team.workspace_id, DAY, "9")
    await ended(db, Place(team.workspace_id, f"{where.run_id}-99", "1"))
    async with db.workspace(team.workspace_id) as session:
        run = await runs.lock_open(session, team.workspace_id, f"{where.run_id}-98", BOT)
    assert run.status is None
    unblocked = await told(db, team.workspace_id, "run.unblocked")
    assert {event["actor"] for event in unblocked if event["subject_id"][-3:] in ("-99", "-98")} == {"bot"}


async def test_one_that_a_limit_holds_of_which_nobody_is_told_asks(db: Database, team: Team) -> None:
    """Its limit was raised, which told of nothing any more, and lowered again before the turn of this one came."""
    ticket = Key(Scope.TICKET, Owner.TICKET, "T-1")
    await cap(db, team.workspace_id, ticket, "0.1")
    where = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1")
    await ledger.spend(db, where, usd("0.1"), BOT)
    with pytest.raises(Conflict):
        await ledger.spend(db, at(where, "2"), usd("0.01"), BOT)
    async with db.workspace(team.workspace_id) as session:
        await session.execute(text(WAITING_ON_TICKET), {"number": AT_ONCE + 9})
    await cap(db, team.workspace_id, ticket, "9")
    await cap(db, team.workspace_id, ticket, "0.05")
    assert [await number(db, team, of) for of in (PENDING, STANDING)] == [0, 0]
    for code in ("budget_exceeded", "run_blocked"):
        with pytest.raises(Conflict) as refused:
            await ledger.spend(db, Place(team.workspace_id, f"{where.run_id}-99", "1"), usd("0.01"), BOT)
        assert refused.value.code == code
        assert [await number(db, team, of) for of in (PENDING, STANDING)] == [1, 1]


WAITING_ON_TICKET = WAITING.replace("level,", "level, ticket_id,").replace("r.level, 'x'", "r.level, r.ticket_id, 'x'")


async def test_of_two_questions_about_a_limit_the_newest_counts(db: Database, team: Team) -> None:
    """The older one was being answered while its limit was opened; then the limit was closed again."""
    where = await crossed(db, team, INTERNS)
    older = f"budget.run.{where.run_id}.1"
    async with db.workspace(team.workspace_id) as session:
        await session.execute(text("UPDATE budget SET crossed = false WHERE scope = 'run'"))
        await session.execute(text("UPDATE run SET status = NULL, blocked_by = NULL, blocked_period = NULL"))
        await session.execute(text("UPDATE alert SET status = 'resolved', resolved_by = 'x', resolved_at = now()"))
    with pytest.raises(Conflict):
        await ledger.spend(db, at(where, "3"), usd("0.2"), BOT)
    assert await number(db, team, PENDING) == 2
    anna = human(team.workspace_id, "anna", Role.ADMIN)
    async with db.workspace(team.workspace_id) as session:
        await answers.give(session, anna, older, DecisionStatus.DENIED, "no more")
        assert "denied" not in (await runs.find(session, team.workspace_id, where.run_id))["reason"]
        await session.rollback()
    async with db.workspace(team.workspace_id) as session:
        await answers.give(session, anna, older, DecisionStatus.APPROVED, "yes")
        await session.flush()
    assert (await run_of(db, where))["status"] == "blocked"
    assert await number(db, team, PENDING) == 1


async def test_an_older_question_about_a_closed_limit_is_taken_back(db: Database, team: Team) -> None:
    where = await crossed(db, team, INTERNS)
    async with db.workspace(team.workspace_id) as session:
        await session.execute(text("UPDATE budget SET crossings = 2 WHERE scope = 'run'"))
        await session.execute(text(NEWER), {"new": f"budget.run.{where.run_id}.2"})
    [limit] = await left_over(db, team)
    async with db.workspace(team.workspace_id) as session:
        await budgets.close_open(session, *limit, OLGA)
    assert await left_over(db, team) == []
    found = await db.alone(team.workspace_id, f"SELECT decision_id FROM {PENDING}", {})  # noqa: S608  # a constant
    assert (found, await number(db, team, STANDING)) == ([{"decision_id": f"budget.run.{where.run_id}.2"}], 1)


NEWER = """
    INSERT INTO decision (workspace_id, decision_id, kind, round, candidate, status, risk, requested_by, binding,
    question)
    SELECT workspace_id, :new, kind, 0, 0, 'pending', risk, 'bot', binding, question FROM decision
"""


async def test_what_is_asked_and_told_of_an_open_limit_is_taken_back_together(db: Database, team: Team) -> None:
    """One that is closed anew before its turn comes keeps both."""
    where = await crossed(db, team, INTERNS)
    async with db.workspace(team.workspace_id) as session:
        await session.execute(text("UPDATE budget SET crossed = false WHERE scope = 'run'"))
    assert await left_over(db, team) == [(team.workspace_id, "run", where.run_id)]
    async with db.system() as session:
        await alerts.turn_windows(session, OLGA, MORE)
    assert [await number(db, team, of) for of in (PENDING, STANDING)] == [1, 1]
    for is_crossed, left in ((True, 1), (False, 0)):
        async with db.workspace(team.workspace_id) as session:
            await session.execute(text("UPDATE budget SET crossed = :is WHERE scope = 'run'"), {"is": is_crossed})
            await budgets.close_open(session, team.workspace_id, "run", where.run_id, OLGA)
        assert [await number(db, team, of) for of in (PENDING, STANDING)] == [left, left]


async def test_the_limits_of_very_many_runs_are_raised(db: Database, team: Team) -> None:
    """Each was crossed, is asked about and has an alert: what is not taken back at once is so in the next passes."""
    await crossed(db, team, INTERNS)
    async with db.workspace(team.workspace_id) as session:
        for each in (WAITING, COUNTERS):
            await session.execute(text(each), {"number": MORE - 1})
        for each in (QUESTIONS, ALERTS):
            await session.execute(text(each))
    assert [await number(db, team, of) for of in (BLOCKED, PENDING, STANDING)] == [MORE] * 3
    await cap(db, team.workspace_id, INTERNS, "9")
    assert [await number(db, team, of) for of in (BLOCKED, PENDING, STANDING)] == [MORE - AT_ONCE] * 3
    left = await left_over(db, team)
    assert len(left) == MORE - AT_ONCE
    for limit in left:
        async with db.workspace(team.workspace_id) as session:
            await budgets.close_open(session, *limit, OLGA)
    while await one_pass(db):
        pass
    assert [await number(db, team, of) for of in (BLOCKED, PENDING, STANDING)] == [0] * 3
    assert len(await told(db, team.workspace_id, "alert.resolved")) == MORE


READ = """
    SELECT sum(COALESCE(seq_tup_read, 0) + COALESCE(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables
    WHERE relname IN ('run', 'budget')
"""


async def test_another_cap_reads_each_open_run_once(db: Database, team: Team) -> None:
    """However young its table is: with each run compared to each counter, it took longer than a transaction may."""
    await cap(db, team.workspace_id, INTERNS, "0.1")
    await start(db, team.workspace_id, agent_id="bot")
    async with db.workspace(team.workspace_id) as session:
        for each in (WAITING, COUNTERS):
            await session.execute(text(each), {"number": MORE})
    async with db.workspace(team.workspace_id) as session:
        before = (await session.scalars(text(READ))).one()
        await recapping.touched(session, team.workspace_id, INTERNS)
        assert (await session.scalars(text(READ))).one() - before < 5 * MORE


async def test_an_alert_about_a_closed_limit_stands(db: Database, team: Team) -> None:
    await crossed(db, team, DAY)
    async with db.system() as session:
        await alerts.turn_windows(session, OLGA, MORE)
    assert await number(db, team, STANDING) == 1


async def test_somebody_has_so_many_open_runs_and_no_more(db: Database, team: Team, other_team: Team) -> None:
    """An agent; and who starts runs of no agent, beside those of agents that they start. Missions' own count not."""
    first = await place(db, team.workspace_id, agent_id="bot")
    async with db.workspace(team.workspace_id) as session:
        await session.execute(text(OPEN), {"workspace": team.workspace_id, "number": MAX_OPEN_RUNS - 2})
    await start(db, team.workspace_id, agent_id="bot")
    with pytest.raises(Conflict, match="'bot' has 1000 open runs; end those") as refused:
        await start(db, team.workspace_id, agent_id="bot")
    assert refused.value.code == "too_many_runs"
    await start(db, other_team.workspace_id, agent_id="bot")
    await start(db, team.workspace_id, agent_id="other")
    async with db.workspace(team.workspace_id) as session:
        await runs.end(session, team.workspace_id, first.run_id, RunStatus.SUCCESS, None, OLGA)
    await start(db, team.workspace_id)  # begun by `bot`, who is counted as the agent, too
    with pytest.raises(Conflict, match="'bot' has 1000 open runs"):
        await start(db, team.workspace_id)


OPEN = """
    INSERT INTO run (workspace_id, run_id, mission_id, agent_id, created_by)
    SELECT :workspace, 'm-' || n, 'm-' || n, NULL, 'bot' FROM generate_series(1, 50) n
    UNION ALL SELECT :workspace, 'run-' || n, NULL, 'bot', 'olga' FROM generate_series(1, :number) n
"""
