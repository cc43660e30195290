"""What no workflow can do for itself, because it was ended from outside, is put right; what runs is left alone."""

import asyncio
from pathlib import Path

from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.reconciling import ReconcileActivities
from activities.workbench.signing import verify
from models.domain.canonical import digest_of
from models.domain.stages import StageName, StageStatus
from models.domain.states import MissionOutcome
from models.store import missions, running, signing_keys, workbenches
from models.store.stages import signed_content
from tests.fixtures.instant_ports import Script
from tests.fixtures.resets import reset
from tests.fixtures.runs import Run
from tests.fixtures.workers import Crew, World
from worker.registry import MISSION_SIGNALS


async def at(world: World, stage: StageName) -> Run:
    """A mission that does a stage for ever."""
    run = await world.start(Script(blocks={stage: asyncio.Event()}))
    await run.working_on(stage)
    return run


class TestTerminated:
    async def test_the_row_is_closed_with_the_reason(self, world: World) -> None:
        run = await at(world, StageName.RUN_TESTS)
        await run.handle.terminate()
        assert (await world.crew.reconcile()).closed == 1
        row, stage = await run.row(), await run.stage(StageName.RUN_TESTS)
        assert (row.status, row.outcome) == ("escalated", MissionOutcome.TERMINATED)
        assert row.reason == "its workflow ended in Temporal as terminated"
        assert (stage.status, stage.reason) == (StageStatus.FAILED, row.reason)
        end = await run.stage(StageName.RESOLVE)
        assert (end.status, end.reason, end.result["outcome"]) == (StageStatus.PASSED, row.reason, "terminated")
        for record in (stage, end):
            signed = digest_of(signed_content(record.model_dump()))
            assert verify(world.crew.recorder.key.public_openssh, signed.encode(), record.signature or "")
        assert await run.capas() == []
        told = [(event["type"], event["actor"]) for event in await run.events()][-4:]
        assert told[0][0] == "stage.failed"
        assert told[-1] == ("mission.escalated", "reconciler")

    async def test_a_second_pass_finds_nothing(self, world: World) -> None:
        run = await at(world, StageName.PULL_CODE)
        await run.handle.terminate()
        assert (await world.crew.reconcile()).closed == 1
        assert (await world.crew.reconcile()).closed == 0
        assert len(await run.events("mission.escalated")) == 1

    async def test_its_question_is_withdrawn(self, world: World) -> None:
        run = await world.start(requires_governance_approval=True)
        await run.question()
        await run.handle.terminate()
        await world.crew.reconcile()
        [decision] = await run.decisions()
        assert (decision.status, decision.resolved_by) == ("canceled", "reconciler")

    async def test_an_unobserved_merge_gets_a_capa(self, world: World) -> None:
        run = await world.start(Script(observation_seconds=3600))
        merged = await run.becomes("observing")
        await run.handle.terminate()
        await world.crew.reconcile()
        row, [capa] = await run.row(), await run.capas()
        assert (row.outcome, row.merge_sha) == (MissionOutcome.TERMINATED, merged.merge_sha)
        assert "which nobody observed" in capa.cause
        assert (row.severity, capa.severity) == ("high", "critical")

    async def test_so_does_a_merge_that_may_have_happened(self, world: World) -> None:
        run = await at(world, StageName.MERGE)
        await run.handle.terminate()
        await world.crew.reconcile()
        [capa] = await run.capas()
        assert "look for its Mission-Id" in capa.cause

    async def test_its_slot_is_free_for_others(self, world: World) -> None:
        repository = await world.repository()
        run = await world.start(Script(blocks={StageName.MERGE: asyncio.Event()}), repository=repository)
        await run.working_on(StageName.MERGE)
        await run.handle.terminate()
        await world.crew.reconcile()
        assert await (await world.start(repository=repository)).outcome() is MissionOutcome.MERGED

    async def test_its_workbench_is_cleared_by_the_host_that_has_it(self, world: World) -> None:
        run = await at(world, StageName.RUN_TESTS)
        async with world.db.workspace(world.workspace_id) as session:
            await workbenches.open_on(session, world.workspace_id, run.mission_id, "one")
        await run.handle.terminate()
        assert (await world.crew.reconcile()).swept >= 1
        assert run.script.closed >= 1

    async def test_before_it_did_anything(self, world: World) -> None:
        run = await world.file()
        async with world.another_crew() as nobody:
            await world.begin(run, nobody)
        await run.handle.terminate()
        await world.crew.reconcile()
        assert (await run.row()).outcome == MissionOutcome.TERMINATED


async def test_a_vanished_workflow_is_noticed(world: World) -> None:
    run = await world.file()
    await running.start(world.db, world.workspace_id, run.mission_id, "a run that is gone")
    assert (await world.crew.reconcile()).closed == 1
    assert (await run.row()).reason == "its workflow vanished from Temporal"


class TestLeftAlone:
    async def test_what_runs(self, world: World) -> None:
        run = await at(world, StageName.RUN_TESTS)
        assert (await world.crew.reconcile()).closed == 0
        assert (await run.row()).status == "in_progress"
        run.script.blocks[StageName.RUN_TESTS].set()
        assert await run.outcome() is MissionOutcome.MERGED

    async def test_what_ends_meanwhile(self, world: World) -> None:
        runs = [await world.start() for _ in range(8)]
        outcomes = asyncio.gather(*(run.outcome() for run in runs))
        passes = await reconciled_until(world.crew, outcomes)
        assert await outcomes == [MissionOutcome.MERGED] * len(runs)
        assert {(await run.row()).outcome for run in runs} == {MissionOutcome.MERGED}
        assert sum(passes) == 0

    async def test_what_nobody_started(self, world: World) -> None:
        run = await world.file()
        await world.crew.reconcile()
        async with world.db.workspace(world.workspace_id) as session:
            assert missions.is_waiting(await missions.require(session, world.workspace_id, run.mission_id))

    async def test_what_an_engineer_reset(self, world: World) -> None:
        run = await at(world, StageName.RUN_TESTS)
        await reset(world.client, run.handle.id)
        assert (await world.crew.reconcile()).closed == 0
        run.script.blocks[StageName.RUN_TESTS].set()
        assert await run.outcome() is MissionOutcome.MERGED


async def reconciled_until(crew: Crew, done: "asyncio.Future[list[MissionOutcome]]") -> list[int]:
    """Reconcile again and again; how many missions each pass closed."""
    closed = []
    while not done.done():
        closed.append((await crew.reconcile()).closed)
    return closed


async def test_the_key_that_signs_is_published_once(world: World) -> None:
    for _ in range(2):
        await world.crew.reconcile()
    async with world.db.workspace(world.workspace_id) as session:
        [published] = await signing_keys.all_of_them(session)
        told = await session.execute(text("SELECT subject_id FROM event WHERE type = 'signing_key.added'"))
    assert (published.key_id, published.public_key) == (world.key.key_id, world.key.public_openssh)
    assert list(told.scalars()) == [world.key.key_id]


async def test_an_edited_configuration_is_told_of(world: World, tmp_path: Path) -> None:
    house = ReconcileActivities(world.recorder, world.client, MISSION_SIGNALS, tmp_path)
    file = tmp_path / "metrics_catalog.yaml"
    seen = []
    for content in (
        "metrics: {}",
        "metrics:  {}",
        "metrics: {p95: 1}",
        "metrics: [",
    ):
        file.write_text(content)
        await ActivityEnvironment().run(house.keep_house)
        async with world.db.workspace(world.workspace_id) as session:
            told = await session.execute(text("SELECT data->>'config_hash' FROM event WHERE type = 'config.changed'"))
            seen.append(len(set(told.scalars())))
    first = seen[0]
    assert seen == [first, first, first + 1, first + 1], "by its values, and not while it cannot be read"
