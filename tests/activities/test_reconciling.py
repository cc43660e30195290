"""What the reconciler's activities put right against a real Temporal server that knows none of these missions."""

from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.reconciling import ReconcileActivities
from models.domain.budgets import Key, Owner, Scope
from models.domain.errors import Conflict, Unavailable
from models.domain.prices import Charge, Usage
from models.domain.principals import Kind, Role
from models.domain.states import DecisionStatus, MissionOutcome
from models.schemas.runs import RunCreate
from models.store import alerts, answers, ledger, principals, runs
from models.store.going_on import AT_ONCE
from models.store.ledger import Place
from models.tables.budgets import Entry
from models.tables.missions import Capa, Decision
from tests.fixtures.access import make_key
from tests.fixtures.api import add_agents
from tests.fixtures.budgets import BOT, cap, clock_moved, counters, place, start, told, usd
from tests.fixtures.killing import eventually_whole, require_whole, spend_until_killed
from tests.fixtures.runs import human
from tests.fixtures.sql import rows
from tests.fixtures.stage_hosts import OPERATOR, Case, Shop, do


async def approved(case: Case) -> None:
    """Ask whether to merge, and let a person say yes."""
    asked = (await case.settle()).answer
    assert asked is not None
    async with case.db.workspace(case.workspace_id) as session:
        anna = human(case.workspace_id, "anna")
        await answers.give(session, anna, asked.decision_id, DecisionStatus.APPROVED, "yes")


async def closed(reconciler: ReconcileActivities) -> int:
    return await ActivityEnvironment().run(reconciler.close_ended)


async def test_a_mission_whose_workflow_vanished_is_closed_once(shop: Shop, reconciler: ReconcileActivities) -> None:
    case = await (await shop.mission()).begun()
    assert await closed(reconciler) >= 1, "and what other tests left"
    assert await closed(reconciler) == 0
    row = await case.row()
    assert (row.outcome, row.reason) == (MissionOutcome.TERMINATED, "its workflow vanished from Temporal")
    assert await case.told("mission.escalated") == 1


async def test_an_unobserved_merge_is_a_critical_matter(shop: Shop, reconciler: ReconcileActivities) -> None:
    case = await (await shop.mission()).merged()
    await closed(reconciler)
    [capa] = await case.rows(Capa)
    assert (capa.severity, "nobody observed" in capa.cause) == ("critical", True)


async def test_a_merge_that_was_taken_back_is_not(shop: Shop, reconciler: ReconcileActivities) -> None:
    case = await shop.mission()
    revert_sha = await case.rolled_back()
    await closed(reconciler)
    [capa] = await case.rows(Capa)
    assert (capa.severity, capa.corrective) == ("low", f"The merge was taken back by {revert_sha}.")


async def test_an_answer_that_nobody_can_hear_is_laid_aside(shop: Shop, reconciler: ReconcileActivities) -> None:
    case = await (await shop.mission(registered={"protected": True})).patched()
    await approved(case)
    for _ in (1, 2):
        assert await ActivityEnvironment().run(reconciler.repeat_answers) == 0
    [decision] = await case.rows(Decision)
    assert decision.acknowledged_at is not None


async def test_workbenches_of_ended_missions_are_listed_until_they_are_closed(
    shop: Shop, reconciler: ReconcileActivities
) -> None:
    case = await (await shop.mission()).patched()
    await closed(reconciler)
    left = await ActivityEnvironment().run(reconciler.leftovers)
    assert [(one.host, one.task) for one in left if one.task == case.close] == [("one", case.close)]
    await do(case.host.code.close_workbench, case.close)
    assert case.close not in [one.task for one in await ActivityEnvironment().run(reconciler.leftovers)]


async def test_keeping_house_twice_is_harmless(reconciler: ReconcileActivities) -> None:
    for _ in (1, 2):
        await ActivityEnvironment().run(reconciler.keep_house)


BREAK = """
CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'broken'; END$$;
CREATE TRIGGER broken BEFORE UPDATE ON run FOR EACH ROW WHEN (NEW.run_id = '{0}') EXECUTE FUNCTION broken();
CREATE TRIGGER broken BEFORE INSERT ON ledger FOR EACH ROW WHEN (NEW.run_id = '{1}') EXECUTE FUNCTION broken();
ALTER FUNCTION mc_event_partitions RENAME TO mended;
"""
MEND = "DROP FUNCTION broken CASCADE; ALTER FUNCTION mended RENAME TO mc_event_partitions"


async def test_a_part_that_fails_hides_no_other(shop: Shop, reconciler: ReconcileActivities, database_url: str) -> None:
    async with shop.db.system() as session:
        await add_agents(session, shop.workspace_id, "gone")
    ended = [await start(shop.db, shop.workspace_id, agent_id="gone") for _ in range(2)]
    held = [await start(shop.db, shop.workspace_id) for _ in range(2)]
    for run_id in held:
        await ledger.reserve(shop.db, Place(shop.workspace_id, run_id, "1"), usd("0.1"), BOT, timedelta(0))
    async with shop.db.system() as session:
        await session.execute(text("UPDATE agent SET registration = 'deactivated' WHERE name = 'gone'"))
        first = next(run_id for _, run_id, _ in await runs.orphans(session, 100) if run_id in ended)
    rows(database_url, BREAK.format(first, held[0]))
    try:
        with pytest.raises(Unavailable) as told:
            await ActivityEnvironment().run(reconciler.keep_house)
    finally:
        rows(database_url, MEND)
    assert told.value.code == "pass_incomplete"
    assert ": end_orphans, make_partitions, release_overdue; the worker's log" in told.value.message
    assert await done(shop) == ([one for one in ended if one != first], held[1:])
    await ActivityEnvironment().run(reconciler.keep_house)
    assert await done(shop) == (ended, held)


async def done(shop: Shop) -> tuple[list[str], list[str]]:
    """The runs that have ended, and those that were given back what they held, in the order of their start."""
    runs_in_order = "SELECT run_id FROM run WHERE {} ORDER BY started_at"
    given_back = "run_id IN (SELECT run_id FROM ledger WHERE kind = 'release')"
    ended, given = [
        [row["run_id"] for row in await shop.db.alone(shop.workspace_id, runs_in_order.format(which), {})]
        for which in ("ended_at IS NOT NULL", given_back)
    ]
    return ended, given


async def test_an_expiry_that_fails_hides_no_answer(
    shop: Shop, reconciler: ReconcileActivities, database_url: str
) -> None:
    case = await (await shop.mission(registered={"protected": True})).patched()
    await approved(case)
    rows(database_url, "ALTER TABLE memory_note RENAME TO mended")
    try:
        with pytest.raises(Unavailable, match="expire"):
            await ActivityEnvironment().run(reconciler.repeat_answers)
    finally:
        rows(database_url, "ALTER TABLE mended RENAME TO memory_note")
    [decision] = await case.rows(Decision)
    assert decision.acknowledged_at is not None


async def test_one_pass_lets_many_runs_go_on(shop: Shop, reconciler: ReconcileActivities) -> None:
    """More than go on in one transaction."""
    await start(shop.db, shop.workspace_id, agent_id="bot")
    async with shop.db.workspace(shop.workspace_id) as session:
        await session.execute(text(OF_YESTERDAY), {"number": 2 * AT_ONCE + 1})
    await ActivityEnvironment().run(reconciler.repeat_answers)
    held = "SELECT run_id FROM run WHERE status IS NOT NULL"
    assert await shop.db.alone(shop.workspace_id, held, {}) == []


OF_YESTERDAY = """
    INSERT INTO run (workspace_id, run_id, agent_id, created_by, status, blocked_by, blocked_period, reason)
    SELECT r.workspace_id, r.run_id || '-' || n, r.agent_id, 'x', 'blocked', 'agent_day', '2020-01-01', 'x'
    FROM run r, generate_series(1, :number) n
"""


@pytest.mark.timeout(120)
async def test_what_a_killed_process_held_is_given_back_in_time(
    shop: Shop, reconciler: ReconcileActivities, database_url: str
) -> None:
    made = [await start(shop.db, shop.workspace_id) for _ in range(8)]
    await spend_until_killed(shop.db, database_url, shop.workspace_id, "kill", made, 40)
    held = await eventually_whole(shop.db, database_url, shop.workspace_id)
    await ActivityEnvironment().run(reconciler.keep_house)
    assert await require_whole(shop.db, shop.workspace_id) == held, "its time is not over"
    async with clock_moved(database_url, "16 minutes"):
        await ActivityEnvironment().run(reconciler.keep_house)
    assert await require_whole(shop.db, shop.workspace_id) == set()
    assert {row["reserved_usd"] for row in await counters(shop.db, shop.workspace_id)} == {0}


@pytest.mark.parametrize("amount", ["0.1", "0"])
async def test_what_a_dead_holder_reserved_is_given_back(
    shop: Shop, reconciler: ReconcileActivities, amount: str
) -> None:
    case = await shop.mission()
    async with case.db.workspace(case.workspace_id) as session:
        new = RunCreate(agent_id="bot", mission_id=case.mission_id)
        run_id = await runs.start(session, case.workspace_id, new, OPERATOR)
    place = Place(case.workspace_id, run_id, "1")
    await ledger.reserve(case.db, place, Charge(Usage(), Decimal(amount)), OPERATOR, timedelta(0))
    for _ in (1, 2):
        await ActivityEnvironment().run(reconciler.keep_house)
    async with case.db.workspace(case.workspace_id) as session:
        assert (await runs.find(session, case.workspace_id, run_id))["reserved_usd"] == 0
    assert {row.kind for row in await case.rows(Entry)} == {"reserve", "release"}


async def over_its_day(shop: Shop, agent: str) -> str:
    """Let an agent spend all that its day has; the run that this blocks."""
    await cap(shop.db, shop.workspace_id, Key(Scope.AGENT_DAY, Owner.AGENT, agent), "0.1")
    where = await place(shop.db, shop.workspace_id, agent_id=agent)
    with pytest.raises(Conflict):
        await ledger.reserve(shop.db, where, usd("0.2"), BOT)
    return where.run_id


async def states(shop: Shop) -> tuple[set[str | None], list[str]]:
    """How the runs of the workspace are, and its alerts."""
    found = [
        await shop.db.alone(shop.workspace_id, f"SELECT status FROM {table}", {})  # noqa: S608  # two names of ours
        for table in ("run", "alert")
    ]
    return {row["status"] for row in found[0]}, sorted(row["status"] for row in found[1])


async def test_runs_that_nobody_will_end_are_ended(
    shop: Shop, reconciler: ReconcileActivities, database_url: str
) -> None:
    """Those of ended agents at once; of ended missions once they had time for what they hold, also for nothing."""
    case = await (await shop.mission()).begun()
    async with case.db.system() as session:
        await add_agents(session, case.workspace_id, "gone", "here")
        await make_key(session, case.workspace_id, "gone", kind=Kind.AGENT)
    of_agent = await start(case.db, case.workspace_id, agent_id="gone")
    of_mission = await start(case.db, case.workspace_id, agent_id="here", mission_id=case.mission_id)
    free = await start(case.db, case.workspace_id, agent_id="here", mission_id=case.mission_id)
    idle = await start(case.db, case.workspace_id, agent_id="here", mission_id=case.mission_id)
    for run_id, amount in ((of_mission, "0.1"), (free, "0")):
        await ledger.reserve(case.db, Place(case.workspace_id, run_id, "1"), usd(amount), BOT, timedelta(hours=1))
    async with case.db.workspace(case.workspace_id) as session:
        caller = human(case.workspace_id, "olga", Role.ADMIN)
        await principals.deactivate(session, case.workspace_id, "gone", caller, OPERATOR)
    await closed(reconciler)
    for _ in range(2):
        await ActivityEnvironment().run(reconciler.keep_house)
    assert await ends(case, of_agent, idle) == [("failed", "its agent was deactivated"), (None, None)]
    async with clock_moved(database_url, "3 minutes"):
        await ActivityEnvironment().run(reconciler.keep_house)
    over = ("failed", "its mission has ended")
    assert await ends(case, of_mission, free, idle) == [(None, None), (None, None), over]
    async with clock_moved(database_url, "16 minutes"):
        await ActivityEnvironment().run(reconciler.keep_house)
    assert await ends(case, of_mission, free) == [over] * 2


async def test_a_run_of_an_ended_mission_tells_and_begins_nothing(shop: Shop, reconciler: ReconcileActivities) -> None:
    case = await (await shop.mission()).begun()
    run = await start(case.db, case.workspace_id, mission_id=case.mission_id)
    at = [Place(case.workspace_id, run, name) for name in ("begun", "new", "told")]
    await ledger.reserve(case.db, at[0], usd("0.1"), BOT)
    await closed(reconciler)
    with pytest.raises(Conflict) as refused:
        await ledger.reserve(case.db, at[1], usd("0.1"), BOT)
    assert refused.value.code == "mission_ended"
    assert await ledger.settle(case.db, at[0], usd("0.1"), BOT)
    await ledger.spend(case.db, at[2], usd("0.1"), BOT)


@pytest.mark.parametrize("ended", ["registration = 'deactivated'", "status = 'stopped'"])
async def test_what_was_given_to_an_agent_while_it_ended_goes_to_others(
    shop: Shop, reconciler: ReconcileActivities, ended: str
) -> None:
    case = await shop.mission()
    async with case.db.system() as session:
        await add_agents(session, case.workspace_id, "late")
        await session.execute(text(f"UPDATE agent SET {ended} WHERE name = 'late'"))  # noqa: S608  # two words of ours
        await session.execute(
            text("UPDATE mission SET assigned_to = 'late', claimed_at = now() WHERE mission_id = :id"),
            {"id": case.mission_id},
        )
    for _ in range(2):
        await ActivityEnvironment().run(reconciler.keep_house)
    row = await case.row()
    assert (row.assigned_to, row.claimed_at, await case.told("mission.assigned")) == (None, None, 1)


@pytest.mark.parametrize("denied", [False, True], ids=["pending", "denied"])
async def test_the_question_of_a_missions_own_run_ends_with_it(
    shop: Shop, reconciler: ReconcileActivities, denied: bool
) -> None:
    case, first = await shop.mission(), await shop.mission()
    async with case.db.workspace(case.workspace_id) as session:
        again = "UPDATE mission SET retry_of = :first WHERE mission_id = :id"
        await session.execute(text(again), {"first": first.mission_id, "id": case.mission_id})
        eve = "UPDATE mission SET created_by = 'eve' WHERE mission_id = :first"
        await session.execute(text(eve), {"first": first.mission_id})
    await cap(case.db, case.workspace_id, Key(Scope.RUN, Owner.RUN, case.mission_id), "0")
    with pytest.raises(Conflict, match="limit of 0 USD"):
        await case.begun()
    assert [one.kind for one in await case.rows(Decision)] == []
    asked = "SELECT status FROM decision WHERE kind = 'budget'"
    assert await case.db.alone(case.workspace_id, asked, {}) == [{"status": "pending"}]
    [question] = await case.db.alone(case.workspace_id, "SELECT terms FROM decision WHERE kind = 'budget'", {})
    assert {"eve", (await case.row()).created_by} <= {*question["terms"]["requesters"]}
    if denied:
        async with case.db.workspace(case.workspace_id) as session:
            admin, name = human(case.workspace_id, "anna", Role.ADMIN), f"budget.run.{case.mission_id}.1"
            await answers.give(session, admin, name, DecisionStatus.DENIED, "too dear")
    await closed(reconciler)
    await ActivityEnvironment().run(reconciler.keep_house)
    assert await case.db.alone(case.workspace_id, asked, {}) == [{"status": "denied" if denied else "canceled"}]
    assert await case.db.alone(case.workspace_id, "SELECT FROM alert WHERE status <> 'resolved'", {}) == []


async def ends(case: Case, *run_ids: str) -> list[tuple[str | None, str | None]]:
    async with case.db.workspace(case.workspace_id) as session:
        found = [await runs.find(session, case.workspace_id, run_id) for run_id in run_ids]
    return [(run["status"], run["reason"]) for run in found]


async def test_a_day_that_is_over_lets_runs_go_on_and_ends_its_alerts(
    shop: Shop, reconciler: ReconcileActivities, database_url: str
) -> None:
    for agent in ("bot", "cat"):
        await over_its_day(shop, agent)
    for part in (reconciler.repeat_answers, reconciler.keep_house):
        await ActivityEnvironment().run(part)
    assert await states(shop) == ({"blocked"}, ["open", "open"]), "the day is not over"
    async with clock_moved(database_url, "1 day"):
        await ActivityEnvironment().run(reconciler.repeat_answers)
        assert await states(shop) == ({None}, ["open", "open"])
        for _ in (1, 2):
            await ActivityEnvironment().run(reconciler.keep_house)
    assert await states(shop) == ({None}, ["resolved", "resolved"])
    assert len(await told(shop.db, shop.workspace_id, "alert.resolved")) == 2


async def test_one_pass_ends_so_many_alerts_and_the_next_ones_the_others(shop: Shop, database_url: str) -> None:
    for agent in ("bot", "cat", "dog"):
        await over_its_day(shop, agent)
    async with clock_moved(database_url, "1 day"):
        for ended in (2, 3, 3):
            async with shop.db.system() as session:
                await alerts.turn_windows(session, BOT, limit=2)
            assert (await states(shop))[1].count("resolved") == ended
    assert len(await told(shop.db, shop.workspace_id, "alert.resolved")) == 3


async def test_a_pass_looks_for_silent_agents(shop: Shop, reconciler: ReconcileActivities) -> None:
    """AGENT-11."""
    case = await shop.mission()
    async with shop.db.system() as session:
        await add_agents(session, case.workspace_id, "bot")
    silent = "UPDATE agent SET last_heartbeat_at = mc_now() - make_interval(secs => %(s)s) RETURNING name"
    for seconds, event in ((100, "agent.stale"), (400, "agent.lost")):
        await shop.db.alone(case.workspace_id, silent, {"s": seconds})
        await ActivityEnvironment().run(reconciler.keep_house)
        assert len(await told(shop.db, case.workspace_id, event)) == 1
    [alert] = await shop.db.alone(case.workspace_id, "SELECT kind, status FROM alert", {})
    assert alert["kind"] == "agent_stale"


async def test_a_pass_drops_events_of_more_than_thirty_days(shop: Shop, reconciler: ReconcileActivities) -> None:
    case = await (await shop.mission()).begun()
    events, its = "SELECT count(*) AS number FROM event WHERE subject_id = %(id)s", {"id": case.mission_id}
    [before] = await shop.db.alone(case.workspace_id, events, its)
    try:
        for later, left in (("29 days", before["number"]), ("70 days", 0)):
            async with clock_moved(shop.owner_url, later):
                await ActivityEnvironment().run(reconciler.keep_house)
            [now] = await shop.db.alone(case.workspace_id, events, its)
            assert now["number"] == left
    finally:
        async with shop.db.system() as session:
            await session.execute(text("SELECT mc_event_partitions(3)"))
