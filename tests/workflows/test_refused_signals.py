"""A mission hears its answer though its workflow takes no more signals, and people are told that it takes none."""

from collections.abc import AsyncIterator

import pytest
from temporalio.service import RPCError, RPCStatusCode

from models.domain.states import DecisionStatus, MissionOutcome
from tests.fixtures.blocks import crossed
from tests.fixtures.runs import Run
from tests.fixtures.workers import World, served_world
from workflows.coding_pipeline import CodingPipelineWorkflow

MOST = 3

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
async def world(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """On a server that takes few signals."""
    key = tmp_path_factory.mktemp("keys") / "key"
    async with served_world(database_url, key, f"history.maximumSignalsPerExecution={MOST}") as made:
        yield made


async def deafened(world: World) -> Run:
    """A mission that waits for an answer, and whose workflow takes no more signals."""
    run = await world.start(requires_governance_approval=True)
    await run.question()
    for _ in range(MOST):
        await run.handle.signal(CodingPipelineWorkflow.runs_changed)
    with pytest.raises(RPCError, match="limit for signal events") as refused:
        await run.handle.signal(CodingPipelineWorkflow.runs_changed)
    assert refused.value.status is RPCStatusCode.INVALID_ARGUMENT
    return run


async def alerts(world: World, run: Run) -> list[tuple[str, str]]:
    found = "SELECT kind, status FROM alert WHERE subject_kind = 'mission' AND subject_id = %(mission)s"
    rows = await world.db.alone(world.workspace_id, found, {"mission": run.mission_id})
    return [(row["kind"], row["status"]) for row in rows]


async def test_people_are_told_and_the_answer_is_heard(world: World) -> None:
    run = await deafened(world)
    await run.answer(await run.question(), DecisionStatus.APPROVED, tell=False)
    for _ in range(2):
        await world.crew.reconcile()
    assert await alerts(world, run) == [("mission_unreachable", "open")]
    assert await run.outcome() is MissionOutcome.MERGED, "it has looked itself"
    await world.crew.reconcile()
    assert await alerts(world, run) == [("mission_unreachable", "resolved")]


async def test_people_are_told_that_it_hears_of_no_block(world: World) -> None:
    run = await deafened(world)
    await crossed(world, run)
    await world.crew.reconcile()
    assert await alerts(world, run) == [("mission_unreachable", "open")]
    await run.cancel()
    assert await run.outcome() is MissionOutcome.CANCELED
