"""Stages 10 and 11 where the world got worse: the merge is taken back, or a human says what becomes of it."""

from temporalio.exceptions import ApplicationError

from models.domain.stages import StageName, StageStatus
from models.domain.states import DecisionStatus, MissionOutcome
from tests.fixtures.instant_ports import Script
from tests.fixtures.workers import World


async def test_the_window_lasts_as_long_as_the_mission_says(world: World) -> None:
    run = await world.start(Script(observation_seconds=0.5))
    assert await run.outcome() is MissionOutcome.MERGED
    record = await run.stage(StageName.OBSERVE)
    assert record.ended_at is not None
    assert (record.ended_at - record.started_at).total_seconds() > 0.4
    assert run.script.looks >= 1


async def test_a_probe_runs_on_the_missions_host(world: World) -> None:
    run = await world.start(Script(has_probe=True, observation_seconds=0.01))
    assert await run.outcome() is MissionOutcome.MERGED
    assert run.script.looks == 1


async def test_an_anomaly_is_rolled_back_with_a_capa(world: World) -> None:
    run = await world.start(Script(anomaly="p95 was outside its target twice in a row"))
    assert await run.outcome() is MissionOutcome.ROLLED_BACK
    row, [capa] = await run.row(), await run.capas()
    assert (row.status, row.revert_sha) == ("escalated", "e" * 40)
    assert (capa.cause, capa.corrective, capa.severity) == (
        "p95 was outside its target twice in a row",
        f"The merge was taken back by {'e' * 40}.",
        row.severity,
    )
    assert (await run.stage(StageName.OBSERVE)).status == StageStatus.FAILED
    assert len(run.script.tokens) == 2, "the rollback has a slot of its own"
    assert run.script.tokens == sorted(set(run.script.tokens))


async def test_a_failing_rerun_is_rolled_back(world: World) -> None:
    run = await world.start(Script(failing={StageName.OBSERVE: 1}))
    assert await run.outcome() is MissionOutcome.ROLLED_BACK
    assert (await run.row()).reason == "observe fails as scripted"


async def test_a_part_that_breaks_after_the_merge_rolls_it_back(world: World) -> None:
    broken = ApplicationError("no such tool", non_retryable=True)
    run = await world.start(Script(errors={StageName.OBSERVE: [broken]}))
    assert await run.outcome() is MissionOutcome.ROLLED_BACK


async def test_tests_that_fail_after_the_rollback_are_told_of(world: World) -> None:
    run = await world.start(Script(anomaly="errors rise", broken_after_rollback=True))
    assert await run.outcome() is MissionOutcome.ROLLED_BACK
    assert (await run.row()).reason == ("errors rise; after the rollback: the tests fail without the change too")


class TestConflict:
    async def test_it_stops_and_asks(self, world: World) -> None:
        run = await world.start(Script(anomaly="errors rise", conflicts=1))
        question = await run.question("rollback")
        assert question.reasons == ["the rollback conflicts with later commits", "a file changed since"]
        assert (await run.stage(StageName.RESOLVE)).status == StageStatus.WAITING_DECISION
        assert (await run.row()).stage == StageName.RESOLVE
        await run.answer(question, DecisionStatus.APPROVED)
        assert await run.outcome() is MissionOutcome.ROLLED_BACK

    async def test_approve_tries_again_as_often_as_it_takes(self, world: World) -> None:
        run = await world.start(Script(anomaly="errors rise", conflicts=2))
        await run.answer(await run.question("rollback"), DecisionStatus.APPROVED)
        await run.answer(await run.question("rollback", asked=2), DecisionStatus.APPROVED)
        assert await run.outcome() is MissionOutcome.ROLLED_BACK
        assert (await run.row()).revert_sha == "e" * 40
        assert (await run.stage(StageName.RESOLVE)).status == StageStatus.PASSED

    async def test_deny_leaves_the_merge(self, world: World) -> None:
        run = await world.start(Script(anomaly="errors rise", conflicts=1))
        await run.answer(await run.question("rollback"), DecisionStatus.DENIED)
        assert await run.outcome() is MissionOutcome.FAILED
        row, [capa] = await run.row(), await run.capas()
        assert (row.revert_sha, row.reason) == (None, "errors rise; the merge stays: a file changed since")
        assert (capa.cause, capa.severity) == (row.reason, "critical")

    async def test_a_rollback_that_breaks_asks_too(self, world: World) -> None:
        broken = ApplicationError("the branch is protected", non_retryable=True)
        run = await world.start(Script(anomaly="errors rise", errors={StageName.RESOLVE: [broken]}))
        question = await run.question("rollback")
        assert "the branch is protected" in question.reasons[-1]
        await run.answer(question, DecisionStatus.APPROVED)
        assert await run.outcome() is MissionOutcome.ROLLED_BACK
