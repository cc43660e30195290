"""Cancel at every moment: by an operator, who after the merge says what becomes of it, and by Temporal's own tools."""

import asyncio
from typing import Literal

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from models.domain.stages import StageName, StageStatus
from models.domain.states import DecisionStatus, MissionOutcome
from tests.fixtures.instant_ports import Script
from tests.fixtures.runs import Run
from tests.fixtures.waiting import eventually
from tests.fixtures.workers import World


async def at(world: World, stage: StageName, **options: float) -> tuple[Run, asyncio.Event]:
    """A mission that does a stage until the event is set."""
    gate = asyncio.Event()
    run = await world.start(Script(blocks={stage: gate}, observation_seconds=options.get("observing", 0)))
    await run.working_on(stage)
    return run, gate


def type_of(refusal: WorkflowUpdateFailedError) -> str | None:
    assert isinstance(refusal.cause, ApplicationError)
    return refusal.cause.type


async def observing(world: World) -> Run:
    """A mission that has merged, and observes for ever."""
    run = await world.start(Script(observation_seconds=3600))
    await run.becomes("observing")
    return run


class TestBeforeTheMerge:
    async def test_it_stops_the_command_and_cleans_up(self, world: World) -> None:
        run, _ = await at(world, StageName.RUN_TESTS)
        assert (await run.cancel()).effect == "cleans_up"
        assert await run.outcome() is MissionOutcome.CANCELED
        row, stage = await run.row(), await run.stage(StageName.RUN_TESTS)
        assert (row.status, row.reason, row.merge_sha) == ("escalated", "changed my mind", None)
        assert (stage.status, stage.reason) == (StageStatus.FAILED, "changed my mind")
        assert (stage.signature is not None, run.script.closed, await run.capas()) == (True, 1, [])

    async def test_while_it_waits_for_approval(self, world: World) -> None:
        run = await world.start(requires_governance_approval=True)
        await run.question()
        await run.cancel()
        assert await run.outcome() is MissionOutcome.CANCELED
        [decision] = await run.decisions()
        assert (decision.status, decision.resolved_by) == ("canceled", "worker")
        assert (await run.stage(StageName.GOVERNANCE)).status == StageStatus.FAILED

    async def test_while_it_is_paused(self, world: World) -> None:
        run, _ = await at(world, StageName.RUN_TESTS)
        await run.pause()
        await run.cancel()
        assert await run.outcome() is MissionOutcome.CANCELED
        assert (await run.row()).paused is False

    async def test_pause_and_cancel_at_once(self, world: World) -> None:
        run, _ = await at(world, StageName.RUN_TESTS)
        await asyncio.gather(run.pause(), run.cancel())
        assert await run.outcome() is MissionOutcome.CANCELED

    async def test_twice_is_said_so(self, world: World) -> None:
        run, gate = await at(world, StageName.MERGE, observing=3600)
        cancels = [asyncio.create_task(run.cancel("keep")) for _ in range(2)]
        await run.note("the cancels have come, and wait")
        gate.set()
        assert sorted([(await cancel).effect for cancel in cancels]) == ["already", "keeps_merge"]


class TestAfterTheMerge:
    async def test_the_caller_must_choose(self, world: World) -> None:
        run = await observing(world)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await run.cancel()
        assert type_of(refused.value) == "merged_choice_required"
        assert (await run.snapshot()).canceling is False
        await run.cancel("keep")

    @pytest.mark.parametrize(
        ("merged", "effect", "outcome", "reverted"),
        [
            ("keep", "keeps_merge", MissionOutcome.CANCELED, None),
            ("roll_back", "rolls_back", MissionOutcome.ROLLED_BACK, "e" * 40),
        ],
    )
    async def test_the_choice_is_carried_out(
        self,
        world: World,
        merged: Literal["keep", "roll_back"],
        effect: str,
        outcome: MissionOutcome,
        reverted: str | None,
    ) -> None:
        run = await observing(world)
        assert (await run.cancel(merged)).effect == effect
        assert await run.outcome() is outcome
        row, [capa] = await run.row(), await run.capas()
        assert (row.outcome, row.revert_sha, capa.cause) == (outcome, reverted, "changed my mind")
        assert run.script.reverts == ["changed my mind"] * (merged == "roll_back")


class TestWhileItMerges:
    async def test_who_did_not_choose_is_asked_to_once_it_has_merged(self, world: World) -> None:
        run, gate = await at(world, StageName.MERGE, observing=3600)
        cancel = asyncio.create_task(run.cancel())
        await run.note("the cancel has come, and waits")
        gate.set()
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await cancel
        assert type_of(refused.value) == "merged_choice_required"
        assert (await run.snapshot()).canceling is False
        await run.cancel("keep")

    async def test_who_chose_gets_what_they_chose(self, world: World) -> None:
        run, gate = await at(world, StageName.MERGE, observing=3600)
        cancel = asyncio.create_task(run.cancel("roll_back"))
        await run.note("the cancel has come, and waits")
        gate.set()
        assert (await cancel).effect == "rolls_back"
        assert await run.outcome() is MissionOutcome.ROLLED_BACK

    async def test_a_merge_that_fails_is_cleaned_up(self, world: World) -> None:
        run, gate = await at(world, StageName.MERGE)
        run.script.failing[StageName.MERGE] = 1
        cancel = asyncio.create_task(run.cancel())
        await run.note("the cancel has come, and waits")
        gate.set()
        assert (await cancel).effect == "cleans_up"
        assert await run.outcome() is MissionOutcome.FAILED


class TestByTemporalsTools:
    async def test_a_running_command_is_stopped(self, world: World) -> None:
        run, _ = await at(world, StageName.RUN_TESTS)
        await run.handle.cancel(reason="cleaning up the cluster")
        assert await run.outcome() is MissionOutcome.CANCELED
        assert (await run.row()).reason == "cleaning up the cluster"
        said = [(entry.actor, entry.result) for entry in await run.history() if entry.action == "cancel"]
        assert said == [("temporal", "cleans_up: cleaning up the cluster")]

    async def test_a_question_is_withdrawn(self, world: World) -> None:
        run = await world.start(requires_governance_approval=True)
        await run.question()
        await run.handle.cancel()
        assert await run.outcome() is MissionOutcome.CANCELED
        assert [decision.status for decision in await run.decisions()] == ["canceled"]

    async def test_a_merge_is_finished_and_kept(self, world: World) -> None:
        run, gate = await at(world, StageName.MERGE, observing=3600)
        await run.handle.cancel()
        await eventually(lambda: canceling(run))
        gate.set()
        assert await run.outcome() is MissionOutcome.CANCELED
        row = await run.row()
        assert (row.merge_sha is not None, row.revert_sha) == (True, None)
        assert len(await run.capas()) == 1

    async def test_a_paused_mission_ends(self, world: World) -> None:
        run, _ = await at(world, StageName.RUN_TESTS)
        await run.pause()
        await run.handle.cancel()
        assert await run.outcome() is MissionOutcome.CANCELED

    async def test_at_the_moment_of_a_pause(self, world: World) -> None:
        run, _ = await at(world, StageName.RUN_TESTS)
        await asyncio.gather(run.pause(), run.handle.cancel())
        assert await run.outcome() is MissionOutcome.CANCELED

    async def test_an_observed_merge_is_kept(self, world: World) -> None:
        run = await observing(world)
        await run.handle.cancel()
        assert await run.outcome() is MissionOutcome.CANCELED
        assert (await run.row()).revert_sha is None

    async def test_whoever_wants_a_merge_taken_back_asks_for_it(self, world: World) -> None:
        run = await world.start(Script(observation_seconds=3600, conflicts=1))
        await run.becomes("observing")
        await run.cancel("roll_back", actor="mia")
        assert "mia" in (await run.question("rollback")).terms["requesters"]

    async def test_a_mission_that_is_ending_ends_as_it_would(self, world: World) -> None:
        run = await world.start(Script(anomaly="errors rise", conflicts=1))
        question = await run.question("rollback")
        await run.handle.cancel()
        await run.answer(question, DecisionStatus.APPROVED)
        assert await run.outcome() is MissionOutcome.ROLLED_BACK
        assert (await run.row()).revert_sha == "e" * 40


async def canceling(run: Run) -> bool:
    return (await run.snapshot()).canceling
