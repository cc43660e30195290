"""The paths whose histories are kept: each is lived through on real servers, and leaves the workflows to keep."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.exceptions import ApplicationError

from models.domain.budgets import Cap, Key, Owner, Scope
from models.domain.stages import StageName, StageStatus
from models.domain.states import DecisionStatus
from models.store import merge_slots, workbenches
from tests.fixtures.blocks import capped, crossed, held
from tests.fixtures.budgets import MONTH
from tests.fixtures.instant_ports import Script
from tests.fixtures.runs import Run
from tests.fixtures.waiting import eventually, until
from tests.fixtures.workers import Crew, World
from workflows.reconcile import ReconcileWorkflow

Kept = WorkflowHandle[Any, Any]
Story = Callable[[World], Awaitable[Kept]]


@dataclass(frozen=True)
class Scenario:
    """One history. A `forgetful` server asks for continue-as-new after a few events."""

    name: str
    live: Story
    forgetful: bool


SCENARIOS: dict[str, Scenario] = {}


def scenario(workflow: str, *, forgetful: bool = False) -> Callable[[Story], Story]:
    """Keep a story's history as `<workflow>/<its name>.json`."""

    def keep(story: Story) -> Story:
        name = f"{workflow}/{story.__name__}"
        SCENARIOS[name] = Scenario(name, story, forgetful)
        return story

    return keep


async def ended(run: Run) -> Kept:
    await run.outcome()
    return run.handle


async def approval(run: Run, answer: DecisionStatus, kind: str = "governance", asked: int = 1) -> None:
    await run.answer(await run.question(kind, asked), answer)


@scenario("coding_pipeline")
async def green(world: World) -> Kept:
    return await ended(await world.start(Script(observation_seconds=0.3)))


@scenario("coding_pipeline")
async def stress_and_probe(world: World) -> Kept:
    return await ended(await world.start(Script(has_stress=True, has_probe=True, observation_seconds=0.01)))


@scenario("coding_pipeline")
async def second_candidate(world: World) -> Kept:
    return await ended(await world.start(Script(candidates=2, failing={StageName.RUN_TESTS: 1})))


@scenario("coding_pipeline")
async def failed_test(world: World) -> Kept:
    return await ended(await world.start(Script(failing={StageName.RUN_TESTS: 1})))


@scenario("coding_pipeline")
async def broken_part(world: World) -> Kept:
    broken = ApplicationError("not installed", type="no_scanner", non_retryable=True)
    return await ended(await world.start(Script(errors={StageName.SECURITY_SCAN: [broken]})))


@scenario("coding_pipeline")
async def approved(world: World) -> Kept:
    run = await world.start(requires_governance_approval=True, approval_timeout_minutes=60)
    question = await run.question()
    await run.tell(question.decision_id)
    await run.note("a signal without an answer")
    await run.answer(question, DecisionStatus.APPROVED)
    return await ended(run)


@scenario("coding_pipeline")
async def denied(world: World) -> Kept:
    run = await world.start(requires_governance_approval=True)
    await approval(run, DecisionStatus.DENIED)
    return await ended(run)


@scenario("coding_pipeline")
async def answer_untold(world: World) -> Kept:
    """Its workflow finds the answer when it looks itself."""
    run = await world.start(requires_governance_approval=True)
    await run.answer(await run.question(), DecisionStatus.APPROVED, tell=False)
    return await ended(run)


@scenario("coding_pipeline")
async def block_untold(world: World) -> Kept:
    """Its workflow finds that the limit is open when it looks itself."""
    await capped(world, MONTH, Cap(tokens=0))
    run = await world.start()
    await eventually(lambda: held(run))
    await capped(world, MONTH, Cap())
    return await ended(run)


@scenario("coding_pipeline")
async def expired(world: World) -> Kept:
    return await ended(await world.start(requires_governance_approval=True, approval_timeout_minutes=0.01))


@scenario("coding_pipeline")
async def rolled_back(world: World) -> Kept:
    return await ended(await world.start(Script(anomaly="errors rise")))


@scenario("coding_pipeline")
async def rollback_conflict(world: World) -> Kept:
    run = await world.start(Script(anomaly="errors rise", conflicts=2))
    await approval(run, DecisionStatus.APPROVED, "rollback")
    await approval(run, DecisionStatus.DENIED, "rollback", 2)
    return await ended(run)


@scenario("coding_pipeline")
async def paused(world: World) -> Kept:
    gate = asyncio.Event()
    run = await world.start(Script(blocks={StageName.RUN_TESTS: gate}))
    await run.working_on(StageName.RUN_TESTS)
    await run.pause()
    await until(lambda: run.script.stopped == [StageName.RUN_TESTS])
    gate.set()
    await run.resume()
    return await ended(run)


@scenario("coding_pipeline")
async def blocked(world: World) -> Kept:
    """A limit leaves it nothing at first, and another one holds it in its tests."""
    await capped(world, MONTH, Cap(tokens=0))
    gate = asyncio.Event()
    run = await world.start(Script(blocks={StageName.RUN_TESTS: gate}))
    await eventually(lambda: held(run))
    await capped(world, MONTH, Cap())
    await world.crew.reconcile()
    await run.working_on(StageName.RUN_TESTS)
    run_id = await crossed(world, run)
    await world.crew.reconcile()
    await until(lambda: run.script.stopped == [StageName.RUN_TESTS])
    gate.set()
    await capped(world, Key(Scope.RUN, Owner.RUN, run_id), Cap(Decimal(1)))
    await world.crew.reconcile()
    return await ended(run)


@scenario("coding_pipeline")
async def canceled(world: World) -> Kept:
    run = await world.start(Script(blocks={StageName.RUN_TESTS: asyncio.Event()}))
    await run.working_on(StageName.RUN_TESTS)
    await run.pause()
    await run.cancel()
    return await ended(run)


@scenario("coding_pipeline")
async def canceled_and_rolled_back(world: World) -> Kept:
    run = await world.start(Script(observation_seconds=3600))
    await run.becomes("observing")
    await run.cancel("roll_back")
    return await ended(run)


@scenario("coding_pipeline")
async def canceled_in_temporal(world: World) -> Kept:
    run = await world.start(Script(blocks={StageName.RUN_TESTS: asyncio.Event()}))
    await run.working_on(StageName.RUN_TESTS)
    await run.handle.cancel(reason="by hand")
    return await ended(run)


@scenario("coding_pipeline")
async def moved_branch(world: World) -> Kept:
    run = await world.start(Script(moves=2), requires_governance_approval=True)
    await approval(run, DecisionStatus.APPROVED)
    return await ended(run)


@scenario("coding_pipeline")
async def asked_again(world: World) -> Kept:
    run = await world.start(Script(moves=1, patch_changes=True), requires_governance_approval=True)
    await approval(run, DecisionStatus.APPROVED)
    await approval(run, DecisionStatus.APPROVED, asked=2)
    return await ended(run)


@scenario("coding_pipeline")
async def slot_yielded(world: World) -> Kept:
    repository = await world.repository()
    first, gate = await world.holder(repository)
    run = await world.start(repository=repository)
    await world.waits(run, repository)
    await run.pause()
    gate.set()
    await first.outcome()
    await run.resume()
    return await ended(run)


@scenario("coding_pipeline")
async def slot_lost(world: World) -> Kept:
    repository = await world.repository()
    run, gate = await world.holder(repository)
    await merge_slots.pass_fence(world.db, world.workspace_id, run.mission_id, 5)
    gate.set()
    return await ended(run)


@scenario("coding_pipeline")
async def queue_ended_by_hand(world: World) -> Kept:
    repository = await world.repository()
    first, gate = await world.holder(repository)
    run = await world.start(repository=repository)
    await world.waits(run, repository)
    await world.queue(repository).terminate()
    await eventually(lambda: runs(world.queue(repository)))
    gate.set()
    await first.outcome()
    return await ended(run)


async def runs(workflow: Kept) -> bool:
    return (await workflow.describe()).status is WorkflowExecutionStatus.RUNNING


@scenario("coding_pipeline")
async def host_lost(world: World) -> Kept:
    async with world.another_crew() as crew:
        await crew.control()
        first = await crew.shared("one")
        run = await world.start(crew=crew)
        await run.reached(StageName.FETCH_CONTEXT, StageStatus.PASSED)
        await first.shutdown()
        await crew.shared("two")
        await crew.host("two")
        return await ended(run)


@scenario("coding_pipeline")
async def worker_killed(world: World) -> Kept:
    async with world.another_crew() as crew:
        run = await world.file()
        async with doomed_worker(world, crew) as process:
            await world.begin(run, crew)
            await run.reached(StageName.RUN_TESTS)
            process.kill()
        await crew.everyone("one")
        return await ended(run)


@asynccontextmanager
async def doomed_worker(world: World, crew: Crew) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker process whose tests never end."""
    database, key = world.settings.database_url, world.key.path
    assert database is not None
    given = (database.get_secret_value(), world.settings.temporal_address or "", str(key), crew.prefix)
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.replay.doomed_worker", *given)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@scenario("merge_queue")
async def in_order(world: World) -> Kept:
    repository = await world.repository()
    first, gate = await world.holder(repository)
    others = [await world.start(repository=repository, severity=name) for name in ("low", "critical")]
    for run in others:
        await world.waits(run, repository)
    gate.set()
    for run in (first, *others):
        await run.outcome()
    return world.queue(repository)


@scenario("merge_queue")
async def holder_terminated(world: World) -> Kept:
    repository = await world.repository()
    dead, _ = await world.holder(repository)
    run = await world.start(repository=repository)
    await world.waits(run, repository)
    await dead.handle.terminate()
    await run.outcome()
    return world.queue(repository)


@scenario("merge_queue")
async def waiting_one_terminated(world: World) -> Kept:
    repository = await world.repository()
    first, gate = await world.holder(repository)
    dead = await world.start(repository=repository)
    await world.waits(dead, repository)
    await dead.handle.terminate()
    gate.set()
    await first.outcome()
    await (await world.start(repository=repository)).outcome()
    return world.queue(repository)


@scenario("merge_queue", forgetful=True)
async def continued_as_new(world: World) -> Kept:
    repository = await world.repository()
    first, gate = await world.holder(repository)
    others = [await world.start(repository=repository) for _ in range(6)]
    for run in others:
        await world.waits(run, repository)
    queue = world.queue(repository)
    begun = (await queue.describe()).run_id
    gate.set()
    for run in (first, *others):
        await run.outcome()
    return world.client.get_workflow_handle(queue.id, run_id=begun)


@scenario("reconcile")
async def swept(world: World) -> Kept:
    """One host clears up, another is away."""
    for host in ("one", "away"):
        run = await world.start(Script(blocks={StageName.RUN_TESTS: asyncio.Event()}))
        await run.working_on(StageName.RUN_TESTS)
        async with world.db.workspace(world.workspace_id) as session:
            await workbenches.open_on(session, world.workspace_id, run.mission_id, host)
        await run.handle.terminate()
    await world.crew.reconcile()
    return world.client.get_workflow_handle_for(ReconcileWorkflow.run, f"{world.crew.prefix}reconcile")
