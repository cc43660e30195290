"""Questions that nobody need answer any more are taken back by the reconciler's pass."""

import pytest
from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.reconciling import ReconcileActivities
from models.contracts.pipeline import Conclusion
from models.domain.budgets import Key, Owner, RunStatus, Scope
from models.domain.errors import Conflict, Unavailable
from models.domain.stages import StageName
from models.domain.states import MissionOutcome
from models.store import ledger, runs
from models.tables.missions import Decision
from tests.fixtures.budgets import BOT, cap, place, start, told, usd
from tests.fixtures.sql import rows
from tests.fixtures.stage_hosts import Case, Shop, do

LATE = """
INSERT INTO decision (workspace_id, decision_id, kind, round, candidate, status, risk, requested_by, binding)
SELECT :w, CAST(:run AS text) || '.tool_action.1', 'tool_action', 0, 0, 'pending', 'YELLOW', 'bot',
jsonb_build_object('run_id', CAST(:run AS text))
"""
"""A question about a call whose run ended while somebody held it."""
CLOSED = "UPDATE mission SET ended_at = now(), status = 'escalated', outcome = 'terminated' WHERE mission_id = :m"


async def test_what_was_asked_about_a_call_of_an_ended_run_is_taken_back(
    shop: Shop, reconciler: ReconcileActivities
) -> None:
    run = await start(shop.db, shop.workspace_id)
    async with shop.db.workspace(shop.workspace_id) as session:
        await runs.end(session, shop.workspace_id, run, RunStatus.SUCCESS, None, BOT)
        await session.execute(text(LATE), {"w": shop.workspace_id, "run": run})
    await ActivityEnvironment().run(reconciler.keep_house)
    found = await shop.db.alone(shop.workspace_id, "SELECT status FROM decision WHERE kind = 'tool_action'", {})
    assert found == [{"status": "canceled"}]


async def test_a_question_that_was_put_while_its_mission_was_closed_is_taken_back(
    shop: Shop, reconciler: ReconcileActivities
) -> None:
    case = await (await shop.mission(registered={"protected": True})).patched()
    await case.settle()
    async with shop.db.system() as session:
        await session.execute(text(CLOSED), {"m": case.mission_id})
    await ActivityEnvironment().run(reconciler.keep_house)
    assert [one.status for one in await case.rows(Decision)] == ["canceled"]


async def asked_of_its_run(shop: Shop, case: Case) -> str:
    """Ask about a call of a run for the mission."""
    run = await start(shop.db, shop.workspace_id, mission_id=case.mission_id)
    async with shop.db.workspace(shop.workspace_id) as session:
        await session.execute(text(LATE), {"w": shop.workspace_id, "run": run})
    return run


CALLS = "SELECT status, resolved_by, acknowledged_at IS NULL AS unheard FROM decision WHERE kind = 'tool_action'"


@pytest.mark.parametrize("outcome", [MissionOutcome.CANCELED, MissionOutcome.FAILED, MissionOutcome.MERGED])
async def test_the_end_of_a_mission_takes_back_what_is_asked_about_calls_for_it(
    shop: Shop, outcome: MissionOutcome
) -> None:
    case = await (await shop.mission()).begun()
    for _ in (1, 2):
        await asked_of_its_run(shop, case)
    other = await asked_of_its_run(shop, await shop.another(case))
    end = Conclusion(ref=case.ref(StageName.RESOLVE), outcome=outcome, reason="it is over", capa=False)
    await do(case.host.records.conclude, end)
    found = await shop.db.alone(shop.workspace_id, f"{CALLS} AND about <> %(other)s", {"other": other})
    assert found == [{"status": "canceled", "resolved_by": "worker", "unheard": False}] * 2
    assert len(await told(shop.db, shop.workspace_id, "decision.canceled")) == 2
    found = await shop.db.alone(shop.workspace_id, f"{CALLS} AND about = %(other)s", {"other": other})
    assert [one["status"] for one in found] == ["pending"], "it is another mission's"


async def test_what_was_asked_about_a_call_for_a_mission_that_has_ended_is_taken_back(
    shop: Shop, reconciler: ReconcileActivities
) -> None:
    """It was put while the mission was closed, or was too many."""
    case = await (await shop.mission()).begun()
    await asked_of_its_run(shop, case)
    async with shop.db.system() as session:
        await session.execute(text(CLOSED), {"m": case.mission_id})
    await ActivityEnvironment().run(reconciler.keep_house)
    found = await shop.db.alone(shop.workspace_id, CALLS, {})
    assert found == [{"status": "canceled", "resolved_by": "reconciler", "unheard": False}]


async def asked_about_open_limit(shop: Shop) -> None:
    """Let a question about the limit of a run be pending though the limit is open."""
    run = await place(shop.db, shop.workspace_id)
    await cap(shop.db, shop.workspace_id, Key(Scope.RUN, Owner.RUN, run.run_id), "0.1")
    with pytest.raises(Conflict):
        await ledger.reserve(shop.db, run, usd("0.2"), BOT)
    async with shop.db.system() as session:
        await session.execute(text("UPDATE budget SET crossed = false WHERE subject = :run"), {"run": run.run_id})


async def test_a_question_about_a_limit_that_is_open_is_taken_back(shop: Shop, reconciler: ReconcileActivities) -> None:
    await asked_about_open_limit(shop)
    await ActivityEnvironment().run(reconciler.keep_house)
    found = await shop.db.alone(shop.workspace_id, "SELECT status FROM decision WHERE kind = 'budget'", {})
    assert found == [{"status": "canceled"}]


HOLD = """
CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'broken'; END$$;
CREATE TRIGGER broken BEFORE UPDATE ON decision FOR EACH ROW WHEN (NEW.kind = '{}') EXECUTE FUNCTION broken();
"""


@pytest.mark.parametrize(
    ("kind", "part"), [("budget", "take_back_of_open_limits"), ("governance", "take_back_of_closed_missions")]
)
async def test_a_part_that_fails_is_told_from_its_like(
    shop: Shop, reconciler: ReconcileActivities, database_url: str, kind: str, part: str
) -> None:
    case = await (await shop.mission(registered={"protected": True})).patched()
    await case.settle()
    await asked_about_open_limit(shop)
    async with shop.db.system() as session:
        await session.execute(text(CLOSED), {"m": case.mission_id})
    rows(database_url, HOLD.format(kind))
    try:
        with pytest.raises(Unavailable, match=f": {part}; the worker's log"):
            await ActivityEnvironment().run(reconciler.keep_house)
    finally:
        rows(database_url, "DROP FUNCTION broken CASCADE")
    found = await shop.db.alone(shop.workspace_id, "SELECT kind FROM decision WHERE status = 'pending'", {})
    assert found == [{"kind": kind}]
