"""Workers and hosts come and go: the mission goes on where there is one, and no stage is recorded twice."""

import asyncio
from collections import Counter
from datetime import timedelta

from models.domain.stages import StageName
from models.domain.states import DecisionStatus, MissionOutcome
from tests.fixtures.instant_ports import Script
from tests.fixtures.runs import Run
from tests.fixtures.workers import World
from workflows.policies import HEARTBEAT, HOST_ANSWERS


def hosts(run: Run, stage: StageName) -> list[str]:
    """The hosts that tried a stage."""
    return [queue.rpartition("-")[2] for ref, queue in run.script.asked if ref.stage is stage]


class TestHostLost:
    def test_both_delays_together_keep_the_promise(self) -> None:
        """15 s on another host: its silence is noticed, then that nobody takes the repetition; the rest is start-up."""
        assert timedelta(seconds=12) > HEARTBEAT + HOST_ANSWERS

    async def test_another_takes_the_mission_over(self, world: World) -> None:
        async with world.another_crew() as crew:
            await crew.control()
            workers = [await crew.shared("one"), await crew.host("one")]
            run = await world.start(crew=crew, requires_governance_approval=True)
            question = await run.question()
            await asyncio.gather(*(worker.shutdown() for worker in workers))
            await crew.shared("two")
            await crew.host("two")
            await run.answer(question, DecisionStatus.APPROVED)
            assert await run.outcome() is MissionOutcome.MERGED
            assert hosts(run, StageName.RUN_TESTS) == ["one"]
            assert hosts(run, StageName.MERGE) == ["two"]

    async def test_in_the_middle_of_a_stage(self, world: World) -> None:
        async with world.another_crew() as crew:
            await crew.control()
            workers = [await crew.shared("one"), await crew.host("one")]
            script = Script(blocks={StageName.RUN_TESTS: asyncio.Event()})
            run = await world.start(script, crew=crew)
            await run.working_on(StageName.RUN_TESTS)
            await asyncio.gather(*(worker.shutdown() for worker in workers))
            script.blocks.clear()
            await crew.shared("two")
            await crew.host("two")
            assert await run.outcome() is MissionOutcome.MERGED
            assert hosts(run, StageName.RUN_TESTS) == ["one", "two"]
            assert hosts(run, StageName.MERGE) == ["two"]
            assert await recorded_once(run)

    async def test_a_pause_while_the_host_is_dead_is_kept(self, world: World) -> None:
        async with world.another_crew() as crew:
            await crew.control()
            workers = [await crew.shared("one"), await crew.host("one")]
            script = Script(blocks={StageName.RUN_TESTS: asyncio.Event()})
            run = await world.start(script, crew=crew)
            await run.working_on(StageName.RUN_TESTS)
            await asyncio.gather(*(worker.shutdown() for worker in workers))
            assert (await run.pause()).effect == "stops_command"
            script.blocks.clear()
            await crew.shared("two")
            await crew.host("two")
            await run.resume()
            assert await run.outcome() is MissionOutcome.MERGED

    async def test_a_mission_can_end_without_its_host(self, world: World) -> None:
        async with world.another_crew() as crew:
            await crew.control()
            await crew.shared("one")
            host = await crew.host("one")
            run = await world.start(crew=crew, requires_governance_approval=True)
            question = await run.question()
            await host.shutdown()
            await run.answer(question, DecisionStatus.DENIED)
            assert await run.outcome() is MissionOutcome.DENIED


class TestWorkers:
    async def test_another_worker_goes_on_with_the_workflow(self, world: World) -> None:
        async with world.another_crew() as crew:
            first = await crew.control()
            await crew.shared("one")
            await crew.host("one")
            gate = asyncio.Event()
            run = await world.start(Script(blocks={StageName.RUN_TESTS: gate}), crew=crew)
            await run.working_on(StageName.RUN_TESTS)
            await crew.control()
            await first.shutdown()
            gate.set()
            assert await run.outcome() is MissionOutcome.MERGED
            assert await recorded_once(run)

    async def test_two_at_once_record_each_stage_once(self, world: World) -> None:
        async with world.another_crew() as crew:
            await crew.everyone("one")
            await crew.everyone("two")
            runs = [await world.start(crew=crew) for _ in range(6)]
            assert {await run.outcome() for run in runs} == {MissionOutcome.MERGED}
            assert [await recorded_once(run) for run in runs] == [True] * 6

    async def test_a_worker_that_remembers_few_workflows_replays_the_others(self, world: World) -> None:
        """The SDK needs room for those whose local activities run: to remember one or none loses these."""
        async with world.another_crew() as crew:
            await crew.control(cached_workflows=3)
            await crew.shared("one")
            await crew.host("one")
            repository = await world.repository()
            runs = [
                await world.start(Script(), crew=crew, repository=repository, requires_governance_approval=True)
                for _ in range(6)
            ]
            for run in [*runs[3:], *runs[:3]]:
                await run.answer(await run.question(), DecisionStatus.APPROVED)
            assert [await run.outcome() for run in runs] == [MissionOutcome.MERGED] * 6
            assert [await recorded_once(run) for run in runs] == [True] * 6


async def recorded_once(run: Run) -> bool:
    """Whether every stage has one record and told once of its beginning and its end."""
    told = Counter((event["type"], event["data"].get("stage")) for event in await run.events())
    return max(told.values()) == 1 and len(await run.stages()) == len(StageName)
