"""A limit that blocks a run holds the run's mission, until the block is gone; an operator's pause is another matter."""

import asyncio
from decimal import Decimal

import pytest

from models.domain.budgets import Cap, Key, Owner, RunStatus, Scope
from models.domain.principals import Role
from models.domain.stages import StageName
from models.domain.states import DecisionStatus, MissionOutcome
from models.store import answers, runs
from tests.fixtures.blocks import capped, crossed, held
from tests.fixtures.budgets import BOT, MONTH, clock_moved, start
from tests.fixtures.instant_ports import Script
from tests.fixtures.runs import Run, human
from tests.fixtures.waiting import eventually, until
from tests.fixtures.workers import World
from workflows.coding_pipeline import CodingPipelineWorkflow


async def in_tests(world: World) -> tuple[Run, asyncio.Event]:
    """A mission whose tests run until the event is set."""
    gate = asyncio.Event()
    run = await world.start(Script(blocks={StageName.RUN_TESTS: gate}))
    await run.working_on(StageName.RUN_TESTS)
    return run, gate


async def told(run: Run) -> list[str]:
    return [event["type"] for event in await run.events("mission.blocked", "mission.unblocked")]


async def test_it_holds_the_mission_and_a_raised_cap_lets_it_go_on(world: World) -> None:
    run, gate = await in_tests(world)
    run_id = await crossed(world, run)
    await world.crew.reconcile()
    await until(lambda: run.script.stopped == [StageName.RUN_TESTS])
    row = await run.row()
    why = f"the run's limit of 0.25 USD is crossed; an admin may raise it (run {run_id} of agent bot)"
    assert (row.blocked, row.paused) == (why, True)
    assert (await run.snapshot()).paused
    for _ in range(2):
        await world.crew.reconcile()
    gate.set()
    await capped(world, Key(Scope.RUN, Owner.RUN, run_id), Cap(Decimal("1")))
    await world.crew.reconcile()
    assert await run.outcome() is MissionOutcome.MERGED
    assert await told(run) == ["mission.blocked", "mission.unblocked"]
    assert [entry.action for entry in await run.history() if "block" in entry.action] == ["block", "unblock"]
    assert (await run.row()).blocked is None


@pytest.mark.parametrize(
    ("limit", "later"), [(Key(Scope.AGENT_DAY, Owner.AGENT, "bert"), "1 day"), (MONTH, "32 days")], ids=["day", "month"]
)
async def test_the_next_window_lets_it_go_on(world: World, limit: Key, later: str) -> None:
    run, gate = await in_tests(world)
    await capped(world, limit, Cap(Decimal("0.1")))
    await crossed(world, run, "0.11", "bert")
    await world.crew.reconcile()
    await until(lambda: run.script.stopped == [StageName.RUN_TESTS])
    gate.set()
    await world.crew.reconcile()
    assert (await run.snapshot()).paused, "it is the same window"
    url = world.settings.database_url
    assert url
    async with clock_moved(url.get_secret_value(), later):
        await world.crew.reconcile()
    assert await run.outcome() is MissionOutcome.MERGED
    unresolved = "SELECT 1 FROM alert WHERE status <> 'resolved'"
    assert await world.db.alone(world.workspace_id, unresolved, {}) == []


async def test_a_mission_that_a_limit_leaves_nothing_begins_no_work(world: World) -> None:
    await capped(world, MONTH, Cap(tokens=0))
    run = await world.start()
    row = await eventually(lambda: held(run))
    assert (row.status, row.stage, run.script.asked) == ("in_progress", None, [])
    assert (row.blocked or "").endswith("of 0 tokens is crossed; wait until its window turns, or let an admin raise it")
    assert await told(run) == ["mission.blocked"]
    await world.crew.reconcile()
    await capped(world, MONTH, Cap())
    await world.crew.reconcile()
    assert await run.outcome() is MissionOutcome.MERGED
    assert await told(run) == ["mission.blocked", "mission.unblocked"]


async def test_a_mission_tells_that_its_limit_is_not_raised(world: World) -> None:
    run, gate = await in_tests(world)
    run_id = await crossed(world, run)
    await world.crew.reconcile()
    anna = human(world.workspace_id, "anna", Role.ADMIN)
    async with world.db.workspace(world.workspace_id) as session:
        await answers.give(session, anna, f"budget.run.{run_id}.1", DecisionStatus.DENIED, "no more")
    await world.crew.reconcile()
    row = await eventually(lambda: told_again(run))
    assert f"is crossed, and anna denied to raise it: no more (run {run_id} of agent bot)" in row
    gate.set()
    async with world.db.workspace(world.workspace_id) as session:
        await runs.end(session, world.workspace_id, run_id, RunStatus.FAILED, None, BOT)
    await world.crew.reconcile()
    assert await run.outcome() is MissionOutcome.MERGED


async def told_again(run: Run) -> str | None:
    blocked = (await run.row()).blocked
    return blocked if blocked and "denied" in blocked else None


async def test_an_operators_pause_stays(world: World) -> None:
    run, gate = await in_tests(world)
    run_id = await crossed(world, run)
    await world.crew.reconcile()
    await run.pause()
    await capped(world, Key(Scope.RUN, Owner.RUN, run_id), Cap(Decimal("1")))
    await world.crew.reconcile()
    gate.set()
    row = await run.row()
    assert (row.blocked, row.paused) == (None, True)
    assert (await run.snapshot()).paused
    assert (await run.resume()).effect == "resumed"
    assert await run.outcome() is MissionOutcome.MERGED


async def test_an_operators_resume_lifts_no_block(world: World) -> None:
    run, gate = await in_tests(world)
    await run.pause()
    run_id = await crossed(world, run)
    await world.crew.reconcile()
    answer = await run.resume()
    assert (answer.effect, answer.paused) == ("still_blocked", True)
    assert (await run.resume()).effect == "still_blocked", "only the block holds it now"
    gate.set()
    async with world.db.workspace(world.workspace_id) as session:
        await runs.end(session, world.workspace_id, run_id, RunStatus.FAILED, None, BOT)
    await world.crew.reconcile()
    assert await run.outcome() is MissionOutcome.MERGED, "a run that has ended blocks nothing"


async def test_a_blocked_mission_can_be_canceled(world: World) -> None:
    run, _ = await in_tests(world)
    await crossed(world, run)
    await world.crew.reconcile()
    await run.cancel()
    assert await run.outcome() is MissionOutcome.CANCELED
    assert (await run.row()).blocked is None


async def test_a_rollback_is_held_by_none_and_nobody_is_told_for_ever(world: World) -> None:
    run = await world.start(Script(anomaly="errors rise", conflicts=1))
    question = await run.question("rollback")
    await crossed(world, run)
    passes = [(await world.crew.reconcile()).signals for _ in range(3)]
    assert passes == [0, 0, 0]
    await run.handle.signal(CodingPipelineWorkflow.runs_changed)
    await run.answer(question, DecisionStatus.APPROVED)
    assert await run.outcome() is MissionOutcome.ROLLED_BACK


async def test_two_blocked_runs_hold_until_both_go_on(world: World) -> None:
    run, gate = await in_tests(world)
    both = [await crossed(world, run) for _ in range(2)]
    await world.crew.reconcile()
    gate.set()
    for run_id in both:
        assert (await run.snapshot()).paused
        await capped(world, Key(Scope.RUN, Owner.RUN, run_id), Cap(Decimal("1")))
        await world.crew.reconcile()
    assert await run.outcome() is MissionOutcome.MERGED


async def test_it_says_which_limit_holds_it_once_another_is_raised(world: World) -> None:
    run, gate = await in_tests(world)
    run_id = await crossed(world, run)
    await capped(world, MONTH, Cap(tokens=0))
    await start(world.db, world.workspace_id)
    await world.crew.reconcile()
    await until(lambda: run.script.stopped == [StageName.RUN_TESTS])
    await capped(world, Key(Scope.RUN, Owner.RUN, run_id), Cap(Decimal("1")))
    await world.crew.reconcile()
    assert (await run.snapshot()).paused
    row = await run.row()
    assert row.blocked is not None
    assert row.blocked.startswith("the workspace's limit for ")
    assert (await world.crew.reconcile()).signals == 0, "it knows"
    gate.set()
    await capped(world, MONTH, Cap())
    await world.crew.reconcile()
    assert await run.outcome() is MissionOutcome.MERGED
    assert await told(run) == ["mission.blocked", "mission.blocked", "mission.unblocked"]
