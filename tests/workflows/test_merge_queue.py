"""The slot of a branch: one holder at a time, in order, fenced, and taken back however its holder ends."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from temporalio.service import RPCError

from models.contracts.merge_queue import SlotGrant, SlotRequest
from models.domain.stages import StageName
from models.domain.states import DecisionStatus, MissionOutcome
from models.store import merge_slots
from tests.fixtures.instant_ports import Script
from tests.fixtures.runs import Run
from tests.fixtures.workers import World, forgetful_world
from workflows.coding_pipeline import CodingPipelineWorkflow
from workflows.merge_queue import MergeQueueWorkflow


async def all_merge(*runs: Run) -> None:
    assert [await run.outcome() for run in runs] == [MissionOutcome.MERGED] * len(runs)


class TestOrder:
    async def test_by_severity_then_age(self, world: World) -> None:
        repository = await world.repository()
        first, gate = await world.holder(repository)
        severities = ["low", "high", "critical", "high"]
        low, older, critical, newer = [await world.start(repository=repository, severity=name) for name in severities]
        for run in (newer, critical, older, low):
            await world.waits(run, repository)
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
        first, gate = await world.holder(repository)
        await all_merge(await world.start(repository=repository, workspace_branch="next"))
        gate.set()
        await all_merge(first)


class TestLeaving:
    async def test_a_pause_while_waiting_leaves_the_queue(self, world: World) -> None:
        repository = await world.repository()
        first, gate = await world.holder(repository)
        run = await world.start(repository=repository, severity="critical")
        await world.waits(run, repository)
        await run.pause()
        other = await world.start(repository=repository, severity="low")
        state = await world.waits(other, repository)
        assert [request.workflow_id for request in state.waiting] == [other.handle.id]
        gate.set()
        await all_merge(first, other)
        await run.resume()
        await all_merge(run)

    async def test_a_cancel_while_waiting_leaves_the_queue(self, world: World) -> None:
        repository = await world.repository()
        first, gate = await world.holder(repository)
        run = await world.start(repository=repository)
        await world.waits(run, repository)
        await run.cancel()
        assert await run.outcome() is MissionOutcome.CANCELED
        gate.set()
        await all_merge(first)
        assert (await world.queue(repository).query(MergeQueueWorkflow.snapshot)).waiting == ()

    async def test_a_holder_that_was_terminated_loses_the_slot(self, world: World) -> None:
        repository = await world.repository()
        dead, _ = await world.holder(repository)
        run = await world.start(repository=repository)
        await world.waits(run, repository)
        await dead.handle.terminate()
        await all_merge(run)

    async def test_one_that_died_while_waiting_is_passed_over(self, world: World) -> None:
        repository = await world.repository()
        first, gate = await world.holder(repository)
        dead = await world.start(repository=repository, severity="critical")
        await world.waits(dead, repository)
        await dead.handle.terminate()
        run = await world.start(repository=repository)
        await world.waits(run, repository)
        gate.set()
        await all_merge(first, run)


class TestGrants:
    async def test_a_grant_for_an_earlier_request_is_not_taken(self, world: World) -> None:
        repository = await world.repository()
        first, gate = await world.holder(repository)
        run = await world.start(repository=repository)
        await world.waits(run, repository)
        await run.pause()
        await run.resume()
        await world.waits(run, repository)
        late = SlotGrant(number=1, token=1)
        await run.handle.signal(CodingPipelineWorkflow.slot_granted, late)
        await run.note("does it wait?")
        assert run.script.tokens == []
        gate.set()
        await all_merge(first, run)

    async def test_one_that_a_lost_workflow_task_asked_for_is_given_back(self, world: World) -> None:
        """Its next try heard of a pause first, and never asked."""
        repository = await world.repository()
        first, gate = await world.holder(repository)
        held = await world.start(repository=repository, requires_governance_approval=True)
        question = await held.question()
        await held.pause()
        described = await held.handle.describe()
        asked = SlotRequest(
            workflow_id=held.handle.id, run_id=described.run_id, number=1, rank=0, created_at=described.start_time
        )
        other = await world.start(repository=repository)
        await world.waits(other, repository)
        await world.queue(repository).signal(MergeQueueWorkflow.request_slot, asked)
        assert asked in (await world.waits(held, repository)).waiting, "first of those who wait"
        gate.set()
        await all_merge(first, other)
        await held.answer(question, DecisionStatus.APPROVED)
        await held.resume()
        await all_merge(held)

    async def test_a_token_that_the_fence_refuses_is_exchanged_for_a_younger_one(self, world: World) -> None:
        repository = await world.repository()
        run, gate = await world.holder(repository)
        assert (await merge_slots.pass_fence(world.db, world.workspace_id, run.mission_id, 5)).passed
        gate.set()
        await all_merge(run)
        assert run.script.tokens == [1, 6]


class TestQueueEndedByHand:
    async def test_who_waited_asks_again(self, world: World) -> None:
        repository = await world.repository()
        first, gate = await world.holder(repository)
        run = await world.start(repository=repository)
        await world.waits(run, repository)
        await world.queue(repository).terminate()
        gate.set()
        await all_merge(first, run)
        assert run.script.tokens[0] > first.script.tokens[0]


class TestFreeSlot:
    async def test_is_taken_without_the_queue(self, world: World) -> None:
        repository = await world.repository()
        await all_merge(*[await world.start(repository=repository) for _ in range(1)])
        await all_merge(await world.start(repository=repository))
        with pytest.raises(RPCError, match="not found"):
            await world.queue(repository).describe()

    async def test_who_took_it_keeps_others_waiting(self, world: World) -> None:
        repository = await world.repository()
        first, gate = await world.holder(repository)
        run = await world.start(repository=repository)
        state = await world.waits(run, repository)
        assert state.holder is None or state.holder.workflow_id == first.handle.id
        gate.set()
        await all_merge(first, run)
        assert (await run.stage(StageName.MERGE)).started_at >= (await first.stage(StageName.MERGE)).started_at

    async def test_a_pause_gives_it_to_others(self, world: World) -> None:
        repository = await world.repository()
        gate = asyncio.Event()
        run = await world.start(Script(blocks={StageName.SECURITY_SCAN: gate}), repository=repository)
        await run.working_on(StageName.SECURITY_SCAN)
        await run.pause()
        gate.set()
        await all_merge(await world.start(repository=repository))
        await run.resume()
        await all_merge(run)

    async def test_it_is_free_again_whatever_ended_its_holder(self, world: World) -> None:
        repository = await world.repository()
        dead, _ = await world.holder(repository)
        await dead.handle.terminate()
        await world.crew.reconcile()
        run = await world.start(repository=repository)
        await all_merge(run)
        with pytest.raises(RPCError, match="not found"):
            await world.queue(repository).describe()


@pytest.fixture
async def forgetful(database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """A world whose queues must start afresh all the time."""
    async with forgetful_world(database_url, tmp_path / "key") as world:
        yield world


async def test_a_queue_that_starts_afresh_forgets_nobody(forgetful: World) -> None:
    repository = await forgetful.repository()
    first, gate = await forgetful.holder(repository)
    runs = [await forgetful.start(repository=repository) for _ in range(6)]
    for run in runs:
        await forgetful.waits(run, repository)
    queue = forgetful.queue(repository)
    started = (await queue.describe()).run_id
    gate.set()
    await all_merge(first, *runs)
    assert (await queue.describe()).run_id != started
    tokens = sorted(run.script.tokens[0] for run in [first, *runs])
    assert tokens == [tokens[0] + n for n in range(7)]
