"""Stage 8: who is asked, what an answer does, and that no answer is lost."""

from typing import Any

import pytest

from models.domain.errors import Conflict
from models.domain.stages import StageName, StageStatus
from models.domain.states import DecisionStatus, MissionOutcome
from tests.fixtures.runs import Run
from tests.fixtures.waiting import eventually
from tests.fixtures.workers import World


async def asking(world: World, **options: Any) -> Run:
    """A mission that a human must approve."""
    return await world.start(requires_governance_approval=True, **options)


async def test_the_stage_waits_for_a_human(world: World) -> None:
    run = await asking(world)
    decision = await run.question()
    stage = await run.stage(StageName.GOVERNANCE)
    assert (stage.status, stage.inputs) == (StageStatus.WAITING_DECISION, {"decision_id": decision.decision_id})
    assert decision.reasons == ["the mission requires governance approval"]
    assert (await run.snapshot()).decision_id == decision.decision_id
    assert run.script.tokens == []


async def test_an_approval_lets_it_merge(world: World) -> None:
    run = await asking(world)
    await run.answer(await run.question(), DecisionStatus.APPROVED)
    assert await run.outcome() is MissionOutcome.MERGED
    [decision], stage = await run.decisions(), await run.stage(StageName.GOVERNANCE)
    assert decision.acknowledged_at is not None
    assert (stage.status, stage.reason) == (StageStatus.PASSED, "approved by anna: looked at it")


async def test_a_denial_ends_it_without_a_merge(world: World) -> None:
    run = await asking(world)
    await run.answer(await run.question(), DecisionStatus.DENIED)
    assert await run.outcome() is MissionOutcome.DENIED
    stage, row = await run.stage(StageName.GOVERNANCE), await run.row()
    assert (stage.status, row.reason) == (StageStatus.FAILED, "denied by anna: looked at it")
    assert len(await run.capas()) == 1
    assert run.script.tokens == []


async def test_without_an_answer_it_expires_by_the_database_clock(world: World) -> None:
    run = await asking(world, approval_timeout_minutes=0.01)
    assert await run.outcome() is MissionOutcome.EXPIRED
    [decision] = await run.decisions()
    assert (decision.status, decision.resolved_by) == ("expired", "policy")
    with pytest.raises(Conflict, match="its time is over"):
        await run.answer(decision, DecisionStatus.APPROVED)


async def test_an_answer_given_while_no_worker_runs_is_heard_later(world: World) -> None:
    async with world.another_crew() as crew:
        first = await crew.control()
        await crew.shared("one")
        await crew.host("one")
        run = await asking(world, crew=crew)
        decision = await run.question()
        await first.shutdown()
        await run.answer(decision, DecisionStatus.APPROVED)
        await crew.control()
        assert await run.outcome() is MissionOutcome.MERGED


async def test_a_lost_signal_is_repeated_by_the_reconciler(world: World) -> None:
    run = await asking(world)
    await run.answer(await run.question(), DecisionStatus.APPROVED, tell=False)
    assert (await world.crew.reconcile()).signals == 1
    assert await run.outcome() is MissionOutcome.MERGED
    assert (await world.crew.reconcile()).signals == 0, "it has said that it knows"


async def test_an_answer_to_a_mission_that_has_ended_is_not_repeated_for_ever(world: World) -> None:
    run = await asking(world)
    decision = await run.question()
    await run.handle.terminate()
    await run.answer(decision, DecisionStatus.APPROVED, tell=False)
    assert (await world.crew.reconcile()).signals == 0
    assert (await run.decisions())[0].acknowledged_at is not None


async def test_a_signal_without_an_answer_does_not_end_the_wait(world: World) -> None:
    run = await asking(world)
    decision = await run.question()
    for _ in range(3):
        await run.tell(decision.decision_id)
        await run.tell("another.decision")
    await run.note("still waiting?")
    [same] = await run.decisions()
    assert (same.status, same.acknowledged_at) == ("pending", None)
    await run.answer(decision, DecisionStatus.APPROVED)
    assert await run.outcome() is MissionOutcome.MERGED
    assert len(await run.events("stage.waiting_decision")) == 1


async def test_an_answer_is_heard_while_paused_and_acted_on_afterwards(world: World) -> None:
    run = await asking(world)
    decision = await run.question()
    assert (await run.pause()).effect == "holds_before_next_stage"
    await run.answer(decision, DecisionStatus.APPROVED)

    async def heard() -> bool:
        return (await run.decisions())[0].acknowledged_at is not None

    await eventually(heard)
    assert (await run.snapshot()).merge_sha == ""
    assert run.script.tokens == []
    await run.resume()
    assert await run.outcome() is MissionOutcome.MERGED


async def test_a_protected_branch_asks_with_its_reason(world: World) -> None:
    run = await world.start(repository=await world.repository(protected=True, env="prod"))
    decision = await run.question()
    assert (decision.risk, decision.reasons) == (
        "RED",
        ["the branch is protected", "the environment is production"],
    )
