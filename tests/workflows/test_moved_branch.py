"""The branch moves between approval and merge: everything is shown anew on its new head, in the slot."""

import asyncio

import pytest

from models.domain.stages import StageName, StageStatus
from models.domain.states import DecisionStatus, MissionOutcome
from tests.fixtures.instant_ports import Script
from tests.fixtures.resets import reset
from tests.fixtures.workers import World
from workflows.stages.merging import MAX_ROUNDS


async def test_stages_1_to_9_are_done_anew(world: World) -> None:
    run = await world.start(Script(moves=2))
    assert await run.outcome() is MissionOutcome.MERGED
    rounds = {number: [r.stage for r in await run.stages() if r.round == number] for number in range(3)}
    names = [stage.value for stage in StageName]
    assert rounds == {0: names[:10], 1: names[:10], 2: names}
    assert [(await run.stage(StageName.MERGE, n)).status for n in range(3)] == ["skipped", "skipped", "passed"]
    assert len(set(run.script.tokens)) == 1, "all in one holding of the slot"


async def test_an_approval_stands_when_what_it_binds_is_equal(world: World) -> None:
    run = await world.start(Script(moves=1), requires_governance_approval=True)
    await run.answer(await run.question(), DecisionStatus.APPROVED)
    assert await run.outcome() is MissionOutcome.MERGED
    first, second = await run.decisions()
    assert (first.resolved_by, second.resolved_by) == ("anna", "policy")
    assert f"approved by anna in {first.decision_id}, which stands" in second.reasons[-1]


@pytest.mark.parametrize("script", [Script(moves=1, patch_changes=True), Script(moves=1, config_changes=True)])
async def test_it_is_asked_for_again_when_that_differs(world: World, script: Script) -> None:
    run = await world.start(script, requires_governance_approval=True)
    await run.answer(await run.question(), DecisionStatus.APPROVED)
    again = await run.question(asked=2)
    assert (again.round, (await run.stage(StageName.GOVERNANCE, 1)).status) == (1, StageStatus.WAITING_DECISION)
    await run.answer(again, DecisionStatus.APPROVED)
    assert await run.outcome() is MissionOutcome.MERGED
    assert len(await run.events("stage.waiting_decision")) == 2


async def test_the_slot_is_free_while_it_is_asked_for_again(world: World) -> None:
    repository = await world.repository()
    run = await world.start(
        Script(moves=1, patch_changes=True), repository=repository, requires_governance_approval=True
    )
    await run.answer(await run.question(), DecisionStatus.APPROVED)
    again = await run.question(asked=2)
    assert await (await world.start(repository=repository)).outcome() is MissionOutcome.MERGED
    await run.answer(again, DecisionStatus.DENIED)
    assert await run.outcome() is MissionOutcome.DENIED


async def test_an_answer_given_at_once_is_not_missed(world: World) -> None:
    run = await world.start(Script(moves=1, patch_changes=True), requires_governance_approval=True)
    await run.answer(await run.question(), DecisionStatus.APPROVED)
    await run.answer(await run.question(asked=2), DecisionStatus.APPROVED, tell=False)
    await run.tell((await run.decisions())[1].decision_id)
    assert await run.outcome() is MissionOutcome.MERGED


async def test_a_patch_that_fails_on_the_new_head_is_not_merged(world: World) -> None:
    repository = await world.repository()
    run = await world.start(Script(moves=1, failing_later={StageName.RUN_TESTS}), repository=repository)
    assert await run.outcome() is MissionOutcome.FAILED
    assert (await run.row()).merge_sha is None
    assert await (await world.start(repository=repository)).outcome() is MissionOutcome.MERGED, "the slot is free"


async def test_a_branch_that_never_rests_ends_the_mission(world: World) -> None:
    repository = await world.repository()
    run = await world.start(Script(moves=MAX_ROUNDS + 1), repository=repository)
    assert await run.outcome() is MissionOutcome.FAILED
    assert "moved 21 times under the mission" in ((await run.row()).reason or "")
    assert await (await world.start(repository=repository)).outcome() is MissionOutcome.MERGED, "the slot is free"


async def test_a_pause_in_the_slot_gives_it_to_others(world: World) -> None:
    repository, gate = await world.repository(), asyncio.Event()
    gate.set()
    script = Script(moves=1, blocks={StageName.RUN_TESTS: gate})
    run = await world.start(script, repository=repository, requires_governance_approval=True)
    question = await run.question()
    gate.clear()
    await run.answer(question, DecisionStatus.APPROVED)
    await run.working_on(StageName.RUN_TESTS, tries=2)
    assert (await run.pause()).effect == "stops_command"
    assert await (await world.start(repository=repository)).outcome() is MissionOutcome.MERGED
    gate.set()
    await run.resume()
    assert await run.outcome() is MissionOutcome.MERGED
    assert run.script.tries(StageName.PULL_CODE) == 2, "what was recorded is not done again"


async def test_a_workflow_reset_while_it_observes_finds_its_way_through_all_rounds(world: World) -> None:
    script = Script(candidates=2, failing={StageName.RUN_TESTS: 1}, moves=2, patch_changes=True, observation_seconds=3)
    run = await world.start(script, requires_governance_approval=True)
    for asked in (1, 2, 3):
        await run.answer(await run.question(asked=asked), DecisionStatus.APPROVED)
    merge_sha = (await run.becomes("observing")).merge_sha
    done = len(run.script.asked)
    await reset(world.client, run.handle.id, to_start=True)
    assert await run.outcome() is MissionOutcome.MERGED
    assert [ref.stage for ref, _ in run.script.asked[done:]] == [StageName.OBSERVE]
    assert ((await run.row()).merge_sha, len(await run.decisions()), await run.capas()) == (merge_sha, 3, [])
