"""Acceptance targets are held against real samples: those of everybody, and of the mission itself."""

from models.domain.stages import StageName, StageStatus
from models.domain.states import MissionOutcome
from models.schemas.metrics import ObservationCreate
from models.store import metric_windows, metrics
from tests.fixtures.runs import Run
from tests.fixtures.workers import OPERATOR, World


async def filed(world: World, metric_id: str) -> Run:
    """A mission that wants a metric below 10."""
    target = {"metric_id": metric_id, "comparator": "<", "target": 10}
    return await world.file(acceptance_criteria={"metric_targets": [target]})


async def probed(world: World, run: Run, metric_id: str) -> None:
    """A mission's own probe reads 5."""
    async with world.db.workspace(world.workspace_id) as session:
        await metric_windows.add(session, world.workspace_id, run.mission_id, "probe/0", {metric_id: 5})


async def test_what_was_read_for_another_mission_does_not_count(world: World) -> None:
    run, other = await filed(world, "theirs"), await filed(world, "theirs")
    await probed(world, other, "theirs")
    await world.begin(run)
    assert await run.outcome() is MissionOutcome.FAILED
    record = await run.stage(StageName.COLLECT_METRICS)
    assert (record.status, record.result["samples"]) == (StageStatus.FAILED, [])
    assert "no sample" in record.reason
    assert len(record.result["evidence"]) == 1, "why it failed is kept"


async def test_its_own_and_those_of_everybody_count(world: World) -> None:
    run = await filed(world, "ours")
    await probed(world, run, "ours")
    async with world.db.workspace(world.workspace_id) as session:
        posted = ObservationCreate(metric_id="ours", value=7)
        await metrics.observe(session, world.workspace_id, [posted], OPERATOR)
    await world.begin(run)
    await run.outcome()
    record = await run.stage(StageName.COLLECT_METRICS)
    assert record.status == StageStatus.PASSED
    assert {sample["value"] for sample in record.result["samples"]} == {5, 7}
