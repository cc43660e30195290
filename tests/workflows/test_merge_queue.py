"""The slot of a branch: one holder at a time, in order, fenced, and taken back however its holder ends."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from models.contracts.merge_queue import MergeQueueState, SlotGrant
from models.domain.ids import merge_queue_workflow_id
from models.domain.stages import StageName
from models.domain.states import MissionOutcome
from models.settings import Settings
from models.store import workbenches
from models.tables.workspaces import Repository
from tests.fixtures.instant_ports import Script
from tests.fixtures.runs import Run
from tests.fixtures.waiting import eventually
from tests.fixtures.workers import World, make_world
from worker.dev.temporal_cli import find_temporal_cli
from workflows.coding_pipeline import CodingPipelineWorkflow
from workflows.merge_queue import MergeQueueWorkflow

Queue = WorkflowHandle[MergeQueueWorkflow, None]


def queue_of(client: Client, repository: Repository) -> Queue:
    name = merge_queue_workflow_id(repository.repository_id, "main")
    return client.get_workflow_handle_for(MergeQueueWorkflow.run, name)


async def waits(world: World, run: Run, repository: Repository) -> MergeQueueState:
    """Wait until a mission stands in the queue; the queue."""

    async def find() -> MergeQueueState | None:
        state = await queue_of(world.client, repository).query(MergeQueueWorkflow.snapshot)
        return state if any(request.workflow_id == run.handle.id for request in state.waiting) else None

    return await eventually(find)


async def holder(world: World, repository: Repository) -> tuple[Run, asyncio.Event]:
    """A mission that holds the slot until the event is set."""
    gate = asyncio.Event()
    run = await world.start(Script(blocks={StageName.MERGE: gate}), repository=repository)
    await run.working_on(StageName.MERGE)
    return run, gate


async def all_merge(*runs: Run) -> None:
    assert [await run.outcome() for run in runs] == [MissionOutcome.MERGED] * len(runs)


class TestOrder:
    async def test_by_severity_then_age(self, world: World) -> None:
        repository = await world.repository()
        first, gate = await holder(world, repository)
        severities = ["low", "high", "critical", "high"]
        low, older, critical, newer = [await world.start(repository=repository, severity=name) for name in severities]
        for run in (newer, critical, older, low):
            await waits(world, run, repository)
        gate.set()
        await all_merge(first, critical, older, newer, low)
        tokens = [run.script.tokens[0] for run in (first, critical, older, newer, low)]
        assert tokens == [tokens[0] + n for n in range(5)], "each grant has the next token"

    async def test_twenty_missions_merge_one_at_a_time(self, world: World) -> None:
        repository = await world.repository()
        runs = [await world.start(repository=repository) for _ in range(20)]
        await all_merge(*runs)
        assert len({run.script.tokens[0] for run in runs}) == 20
        merges = sorted([await run.stage(StageName.MERGE) for run in runs], key=lambda record: record.started_at)
        for before, after in pairwise(merges):
            assert before.ended_at is not None
            assert before.ended_at <= after.started_at

    async def test_branches_do_not_wait_for_each_other(self, world: World) -> None:
        repository = await world.repository()
        first, gate = await holder(world, repository)
        await all_merge(await world.start(repository=repository, workspace_branch="next"))
        gate.set()
        await all_merge(first)


class TestLeaving:
    async def test_a_pause_while_waiting_leaves_the_queue(self, world: World) -> None:
        repository = await world.repository()
        first, gate = await holder(world, repository)
        run = await world.start(repository=repository, severity="critical")
        await waits(world, run, repository)
        await run.pause()
        other = await world.start(repository=repository, severity="low")
        state = await waits(world, other, repository)
        assert [request.workflow_id for request in state.waiting] == [other.handle.id]
        gate.set()
        await all_merge(first, other)
        await run.resume()
        await all_merge(run)

    async def test_a_cancel_while_waiting_leaves_the_queue(self, world: World) -> None:
        repository = await world.repository()
        first, gate = await holder(world, repository)
        run = await world.start(repository=repository)
        await waits(world, run, repository)
        await run.cancel()
        assert await run.outcome() is MissionOutcome.CANCELED
        gate.set()
        await all_merge(first)
        assert (await queue_of(world.client, repository).query(MergeQueueWorkflow.snapshot)).waiting == ()

    async def test_a_holder_that_was_terminated_loses_the_slot(self, world: World) -> None:
        repository = await world.repository()
        dead, _ = await holder(world, repository)
        run = await world.start(repository=repository)
        await waits(world, run, repository)
        await dead.handle.terminate()
        await all_merge(run)

    async def test_one_that_died_while_waiting_is_passed_over(self, world: World) -> None:
        repository = await world.repository()
        first, gate = await holder(world, repository)
        dead = await world.start(repository=repository, severity="critical")
        await waits(world, dead, repository)
        await dead.handle.terminate()
        run = await world.start(repository=repository)
        await waits(world, run, repository)
        gate.set()
        await all_merge(first, run)


class TestGrants:
    async def test_a_grant_for_an_earlier_request_is_not_taken(self, world: World) -> None:
        repository = await world.repository()
        first, gate = await holder(world, repository)
        run = await world.start(repository=repository)
        await waits(world, run, repository)
        await run.pause()
        await run.resume()
        await waits(world, run, repository)
        late = SlotGrant(queue_id="late", number=1, token=1)
        await run.handle.signal(CodingPipelineWorkflow.slot_granted, late)
        await run.note("does it wait?")
        assert run.script.tokens == []
        gate.set()
        await all_merge(first, run)

    async def test_a_token_that_the_fence_refuses_is_exchanged_for_a_younger_one(self, world: World) -> None:
        repository = await world.repository()
        first = await world.start(repository=repository)
        await all_merge(first)
        async with world.db.workspace(world.workspace_id) as session:
            ahead = first.script.tokens[0] + 3
            assert await workbenches.pass_fence(session, world.workspace_id, repository.repository_id, "main", ahead)
        run = await world.start(repository=repository)
        await all_merge(run)
        assert run.script.tokens == [ahead - 2, ahead - 1, ahead]


class TestQueueEndedByHand:
    async def test_who_waited_asks_again(self, world: World) -> None:
        repository = await world.repository()
        first, gate = await holder(world, repository)
        run = await world.start(repository=repository)
        await waits(world, run, repository)
        await queue_of(world.client, repository).terminate()
        gate.set()
        await all_merge(first, run)

    async def test_the_new_ones_tokens_are_above_the_old_ones(self, world: World) -> None:
        repository = await world.repository()
        before, after = await world.start(repository=repository), await world.file(repository=repository)
        await all_merge(before)
        await queue_of(world.client, repository).terminate()
        await world.begin(after)
        await all_merge(after)
        assert after.script.tokens[0] > before.script.tokens[0]


@pytest.fixture
async def forgetful(database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """A world on a server that asks every workflow for a fresh start after 60 events."""
    cli = await find_temporal_cli(Settings(), lambda _: None)
    limit = "limit.historyCount.suggestContinueAsNew=60"
    async with (
        await WorkflowEnvironment.start_local(
            dev_server_existing_path=str(cli.path),
            dev_server_extra_args=["--dynamic-config-value", limit],
            dev_server_log_level="error",
        ) as environment,
        make_world(database_url, environment.client.service_client.config.target_host, tmp_path / "key") as world,
    ):
        yield world


async def test_a_queue_that_starts_afresh_forgets_nobody(forgetful: World) -> None:
    repository = await forgetful.repository()
    first, gate = await holder(forgetful, repository)
    runs = [await forgetful.start(repository=repository) for _ in range(6)]
    for run in runs:
        await waits(forgetful, run, repository)
    queue = queue_of(forgetful.client, repository)
    started = (await queue.describe()).run_id
    gate.set()
    await all_merge(first, *runs)
    assert (await queue.describe()).run_id != started
    tokens = sorted(run.script.tokens[0] for run in [first, *runs])
    assert tokens == [tokens[0] + n for n in range(7)]
