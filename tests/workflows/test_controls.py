"""Pause, resume and note: what they do at which moment, and that each is written down once."""

import asyncio

import pytest
from sqlmodel import select
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from models.domain.stages import StageName
from models.domain.states import DecisionStatus, MissionOutcome
from models.tables.missions import Mission
from tests.fixtures.instant_ports import Script
from tests.fixtures.runs import Run
from tests.fixtures.waiting import eventually, somebody_waits, until
from tests.fixtures.workers import World


async def in_tests(world: World) -> tuple[Run, asyncio.Event]:
    """A mission whose tests run until the event is set."""
    gate = asyncio.Event()
    run = await world.start(Script(blocks={StageName.RUN_TESTS: gate}))
    await run.working_on(StageName.RUN_TESTS)
    return run, gate


async def blocked(world: World) -> bool:
    """Whether somebody waits for a lock."""
    async with world.db.system() as session:
        return await somebody_waits(session)


class TestPause:
    async def test_a_running_command_is_stopped_and_repeated(self, world: World) -> None:
        run, gate = await in_tests(world)
        answer = await run.pause()
        assert (answer.effect, answer.stage, answer.paused) == ("stops_command", StageName.RUN_TESTS, True)
        assert (await run.row()).paused is True
        await until(lambda: run.script.stopped == [StageName.RUN_TESTS])
        gate.set()
        answer = await run.resume()
        assert (answer.effect, answer.paused) == ("resumed", False)
        assert await run.outcome() is MissionOutcome.MERGED
        assert run.script.tries(StageName.RUN_TESTS) == 2
        assert (await run.row()).paused is False

    async def test_a_mission_that_took_too_many_commands_only_ends(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("workflows.mission.MAX_COMMANDS", 2)
        run, gate = await in_tests(world)
        await run.note("once")
        await run.pause()
        for command in (run.note("twice"), run.pause()):
            with pytest.raises(WorkflowUpdateFailedError) as refused:
                await command
            assert isinstance(refused.value.cause, ApplicationError)
            assert refused.value.cause.type == "too_many_commands"
        assert (await run.resume()).effect == "resumed"
        with pytest.raises(WorkflowUpdateFailedError):
            await run.resume()
        gate.set()
        await run.cancel()
        assert await run.outcome() is MissionOutcome.CANCELED

    async def test_resuming_before_the_command_has_stopped_loses_nothing(self, world: World) -> None:
        run, gate = await in_tests(world)
        # The answer to the pause does not wait for the command, which stops with its next heartbeat.
        assert (await run.pause()).effect == "stops_command"
        assert (await run.resume()).effect == "resumed"
        gate.set()
        assert await run.outcome() is MissionOutcome.MERGED

    async def test_between_stages_it_holds_before_the_next(self, world: World) -> None:
        run = await world.start(requires_governance_approval=True)
        question = await run.question()
        assert (await run.pause()).effect == "holds_before_next_stage"
        await run.answer(question, DecisionStatus.APPROVED)
        await run.note("is it held?")
        assert (await run.snapshot()).paused
        assert run.script.tries(StageName.MERGE) == 0
        await run.resume()
        assert await run.outcome() is MissionOutcome.MERGED

    async def test_a_merge_is_not_stopped(self, world: World) -> None:
        gate = asyncio.Event()
        run = await world.start(Script(blocks={StageName.MERGE: gate}))
        await run.working_on(StageName.MERGE)
        assert (await run.pause()).effect == "holds_before_next_stage"
        gate.set()
        await run.becomes("observing")
        assert run.script.tries(StageName.MERGE) == 1
        await run.resume()
        assert await run.outcome() is MissionOutcome.MERGED

    async def test_watching_goes_on(self, world: World) -> None:
        run = await world.start(Script(observation_seconds=3600, poll_seconds=0.05))
        await run.becomes("observing")
        await run.pause()
        looks = run.script.looks
        await until(lambda: run.script.looks >= looks + 2)
        await run.cancel("keep")
        assert await run.outcome() is MissionOutcome.CANCELED

    async def test_the_end_of_the_window_is_held(self, world: World) -> None:
        gate = asyncio.Event()
        run = await world.start(Script(blocks={StageName.MERGE: gate}, observation_seconds=0.01))
        await run.working_on(StageName.MERGE)
        await run.pause()
        gate.set()
        await until(lambda: run.script.looks == 1)
        await run.note("is it held?")
        assert run.script.tries(StageName.OBSERVE) == 0
        await run.resume()
        assert await run.outcome() is MissionOutcome.MERGED

    async def test_twice_is_said_so(self, world: World) -> None:
        run, gate = await in_tests(world)
        assert (await run.resume()).effect == "already"
        await run.pause()
        assert (await run.pause()).effect == "already"
        gate.set()
        await run.resume()
        assert await run.outcome() is MissionOutcome.MERGED
        told = [event["type"] for event in await run.events("mission.paused", "mission.resumed")]
        assert told == ["mission.paused", "mission.resumed"]


class TestRecords:
    async def test_each_command_is_in_the_history_with_who_said_it(self, world: World) -> None:
        run, gate = await in_tests(world)
        await run.note("it is the cache")
        await run.pause()
        gate.set()
        await run.resume()
        assert await run.outcome() is MissionOutcome.MERGED
        said = [(entry.actor, entry.action, entry.result) for entry in await run.history() if entry.actor == "olga"]
        assert said == [("olga", "note", "it is the cache"), ("olga", "pause", "stops_command"), ("olga", "resume", "")]
        events = await run.events("mission.noted", "mission.paused", "mission.resumed")
        assert [event["actor"] for event in events] == ["olga"] * 3
        assert (await run.row()).control_version == 3

    async def test_a_reason_stands_behind_what_the_command_did(self, world: World) -> None:
        run, gate = await in_tests(world)
        await run.pause(reason="wait a bit")
        await run.cancel()
        gate.set()
        assert await run.outcome() is MissionOutcome.CANCELED
        wanted = ["stops_command: wait a bit", "cleans_up: changed my mind"]
        assert [entry.result for entry in await run.history() if entry.actor == "olga"] == wanted
        events = await run.events("mission.paused", "mission.cancel_requested")
        assert [event["data"]["detail"] for event in events] == wanted

    async def test_an_update_that_is_repeated_changes_nothing(self, world: World) -> None:
        run, gate = await in_tests(world)
        first, second = await run.pause("pause/key-1"), await run.pause("pause/key-1")
        assert first == second
        await run.note("once", "note/key-1")
        await run.note("once", "note/key-1")
        assert (await run.snapshot()).notes == 1
        gate.set()
        await run.resume()
        assert await run.outcome() is MissionOutcome.MERGED
        assert [e.action for e in await run.history() if e.actor == "olga"] == ["pause", "note", "resume"]

    async def test_commands_taken_while_postgres_hangs_are_all_written_before_the_end(self, world: World) -> None:
        run, _ = await in_tests(world)
        async with world.db.workspace(world.workspace_id) as session:
            await session.execute(select(Mission).where(Mission.mission_id == run.mission_id).with_for_update())
            commands = [asyncio.create_task(command) for command in (run.note("first"), run.pause(), run.cancel())]
            await eventually(lambda: blocked(world))
            assert not any(command.done() for command in commands)
        await asyncio.gather(*commands)
        assert await run.outcome() is MissionOutcome.CANCELED
        assert {e.action for e in await run.history() if e.actor == "olga"} == {"note", "pause", "cancel"}


class TestTooLate:
    async def test_a_mission_that_is_ending_takes_no_command(self, world: World) -> None:
        run = await world.start(Script(anomaly="errors rise", conflicts=1))
        question = await run.question("rollback")
        for command in (run.pause(), run.resume(), run.note("hello"), run.cancel("keep")):
            with pytest.raises(WorkflowUpdateFailedError) as refused:
                await command
            assert isinstance(refused.value.cause, ApplicationError)
            assert refused.value.cause.type == "mission_ending"
        await run.answer(question, DecisionStatus.APPROVED)
        assert await run.outcome() is MissionOutcome.ROLLED_BACK

    async def test_a_pause_does_not_hold_a_rollback(self, world: World) -> None:
        gate = asyncio.Event()
        run = await world.start(Script(blocks={StageName.MERGE: gate}, observation_seconds=0.1, anomaly="errors rise"))
        await run.working_on(StageName.MERGE)
        await run.pause()
        gate.set()
        assert await run.outcome() is MissionOutcome.ROLLED_BACK
        told = await run.events("mission.resumed")
        assert [(event["actor"], event["data"]["detail"]) for event in told] == [("worker", "the mission is ending")]
