"""Stage 8: who is asked, what an answer does, and that no answer is lost."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from models.domain.errors import Conflict, NotPermitted
from models.domain.stages import StageName, StageStatus
from models.domain.states import DecisionStatus, MissionOutcome
from models.store import policies
from models.store.events import Actor
from models.store.policies import PolicyBook
from tests.fixtures.budgets import clock_moved
from tests.fixtures.instant_ports import Script
from tests.fixtures.policies import SOURCE
from tests.fixtures.runs import Run
from tests.fixtures.servers import TemporalServer
from tests.fixtures.waiting import eventually
from tests.fixtures.workers import World, make_world


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
    said = "nobody answered within 0.01 min (the mission's `approval_timeout_minutes`)"
    assert [(await run.stage(StageName.GOVERNANCE)).reason, (await run.row()).reason] == [said, said]
    with pytest.raises(Conflict, match="its time is over"):
        await run.answer(decision, DecisionStatus.APPROVED)


async def test_a_clock_that_is_behind_is_asked_ever_less_often(world: World, database_url: str) -> None:
    """By its own clock the workflow would see the time over at once, and look again each second for a day."""

    async def timers() -> list[float]:
        history = await run.handle.fetch_history()
        started = [event.timer_started_event_attributes for event in history.events]
        return [timer.start_to_fire_timeout.ToTimedelta().total_seconds() for timer in started if timer.timer_id]

    async def four() -> list[float] | None:
        found = await timers()
        return found if len(found) >= 4 else None

    async with clock_moved(database_url, "-1 day"):
        run = await asking(world, approval_timeout_minutes=1)
        assert (await eventually(four))[:4] == [1, 2, 4, 8]
        assert (await run.decisions())[0].status == "pending"
    assert await run.outcome() is MissionOutcome.EXPIRED
    assert len(await run.events("decision.expired")) == 1


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


async def test_half_time_is_told_once(world: World) -> None:
    run = await asking(world, approval_timeout_minutes=0.2)
    decision = await run.question()

    async def told() -> bool:
        await world.crew.reconcile()
        return bool(await run.events("decision.half_time"))

    await eventually(told)
    await world.crew.reconcile()
    [event] = await run.events("decision.half_time")
    assert (event["subject_id"], event["actor"]) == (decision.decision_id, "reconciler")
    await run.answer(decision, DecisionStatus.APPROVED)
    assert await run.outcome() is MissionOutcome.MERGED


async def test_what_no_workflow_looks_after_expires_too_and_its_workflow_is_told(world: World) -> None:
    async with world.another_crew() as crew:
        first = await crew.control()
        await crew.shared("one")
        await crew.host("one")
        run = await asking(world, crew=crew, approval_timeout_minutes=0.02)
        decision = await run.question()
        await first.shutdown()

        async def expired() -> bool:
            await world.crew.reconcile()
            return (await run.decisions())[0].status == "expired"

        await eventually(expired)
        with pytest.raises(Conflict, match="its time is over"):
            await run.answer(decision, DecisionStatus.APPROVED)
        await crew.control()
        assert await run.outcome() is MissionOutcome.EXPIRED
    assert len(await run.events("decision.expired")) == 1
    assert len(await run.events("decision.half_time")) == 1


@pytest.mark.parametrize("moves", [0, 1, 2])
async def test_two_people_approve_a_merge_into_production(world: World, moves: int) -> None:
    run = await world.start(Script(moves=moves), repository=await world.repository(env="prod"))
    decision = await run.question()
    assert (decision.terms["people"], decision.terms["four_eyes"]) == (2, "required")
    await run.answer(decision, DecisionStatus.APPROVED, by="anna")
    await run.note("still waiting?")
    assert run.script.tokens == []
    with pytest.raises(Conflict, match="somebody else must"):
        await run.answer(decision, DecisionStatus.APPROVED, by="anna")
    with pytest.raises(NotPermitted, match="you asked for this"):
        await run.answer(decision, DecisionStatus.APPROVED, by="olga")
    await run.answer(decision, DecisionStatus.APPROVED, by="bert")
    assert await run.outcome() is MissionOutcome.MERGED
    asked = await run.decisions()
    assert [one.resolved_by for one in asked] == ["bert"] + moves * ["policy"]
    records = [await run.stage(StageName.GOVERNANCE, number) for number in range(moves + 1)]
    both = [{"by": by, "decision": "approved", "explanation": "looked at it"} for by in ("anna", "bert")]
    assert [record.result["answers"] for record in records] == (moves + 1) * [both], "signed, with both names"
    stands = f"approved by anna and bert in {decision.decision_id}, which stands: same files, configuration and policy"
    said = ["approved by bert: looked at it (after anna: looked at it)"] + moves * [stands]
    assert [record.reason for record in records] == said
    rests_on = {"decision_id": decision.decision_id, "resolved_by": "bert", "answers": both}
    assert [one.question.get("rests_on") for one in asked] == [None] + moves * [rests_on]
    assert [record.result.get("rests_on") for record in records] == [None] + moves * [decision.decision_id]


async def test_who_filed_and_started_it_counts_as_the_requester(world: World) -> None:
    decision = await (await asking(world)).question()
    assert decision.terms["requesters"] == ["olga"]


class TestThePolicyInForce:
    """Tests change the policy of a world of their own."""

    @pytest.fixture
    async def world(self, database_url: str, temporal_server: TemporalServer, tmp_path: Path) -> AsyncIterator[World]:
        async with make_world(database_url, temporal_server.address, tmp_path / "key") as made:
            yield made

    async def replace(self, world: World, source: str) -> None:
        actor = Actor("anna", "request-3")
        async with world.db.workspace(world.workspace_id) as session:
            await PolicyBook(world.settings.config_dir).in_force(session, world.workspace_id)
            made = await policies.create(session, world.workspace_id, source, "", actor)
            await policies.activate(session, world.workspace_id, made.version, actor)

    async def test_it_denies(self, world: World) -> None:
        await self.replace(world, "rules:\n  - {rule: freeze, because: nothing moves, deny: true}\n")
        run = await world.start()
        assert await run.outcome() is MissionOutcome.DENIED
        [decision] = await run.decisions()
        assert (decision.status, decision.resolved_by) == ("denied", "policy")
        assert decision.reasons[-1] == "nothing moves"
        assert run.script.tokens == []
        assert len(await run.events("decision.denied")) == 1

    async def test_an_approval_under_another_policy_does_not_stand_on_a_moved_branch(self, world: World) -> None:
        run = await world.start(Script(moves=1), requires_governance_approval=True)
        first = await run.question()
        assert first.binding["policy_version"] == "1"
        await self.replace(world, SOURCE + "# stricter times\n")
        await run.answer(first, DecisionStatus.APPROVED)
        second = await run.question(asked=2)
        assert second.binding["policy_version"] == "2"
        await run.answer(second, DecisionStatus.APPROVED)
        assert await run.outcome() is MissionOutcome.MERGED

    async def test_a_verdict_is_kept_for_each_merge(self, world: World) -> None:
        run = await world.start()
        await run.outcome()
        async with world.db.workspace(world.workspace_id) as session:
            [row] = await policies.verdicts(session, world.workspace_id, 10)
        assert (row.mission_id, row.action, row.outcome) == (run.mission_id, "mission.merge", "allow")
        assert row.verdict_id == (await run.decisions())[0].decision_id
        assert row.input["context"]["facts"]["filed_by"] == "olga"
