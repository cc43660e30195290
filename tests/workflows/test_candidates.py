"""Candidates are tried in order; the first that passes wins, and each failure is kept with its reason."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from models.domain.stages import StageName, StageStatus
from models.domain.states import MissionOutcome
from tests.fixtures.instant_ports import Script
from tests.fixtures.workers import World
from worker import interceptors

JUDGES = [StageName.BRANCH_AND_PATCH, StageName.RUN_TESTS, StageName.SECURITY_SCAN, StageName.STRESS_TESTS]


async def test_a_failed_test_escalates_with_one_capa(world: World) -> None:
    run = await world.start(Script(failing={StageName.RUN_TESTS: 1}))
    assert await run.outcome() is MissionOutcome.FAILED
    row, [capa] = await run.row(), await run.capas()
    assert (row.status, row.reason, row.merge_sha) == ("escalated", "run_tests fails as scripted", None)
    assert (capa.cause, capa.status, capa.severity) == ("run_tests fails as scripted", "open", "high")
    assert "run_tests" in capa.title
    assert run.script.tokens == [], "nothing was merged"


@pytest.mark.parametrize("stage", JUDGES)
async def test_the_second_wins_where_the_first_fails(world: World, stage: StageName) -> None:
    run = await world.start(Script(candidates=2, failing={stage: 1}, has_stress=True))
    assert await run.outcome() is MissionOutcome.MERGED
    tried = [(record.candidate, record.status) for record in await run.stages() if record.stage == stage.value]
    assert tried == [(0, StageStatus.FAILED), (1, StageStatus.PASSED)]
    first = next(record for record in await run.stages() if record.stage == stage.value)
    assert first.reason == f"{stage.value} fails as scripted"
    assert (await run.stage(StageName.MERGE)).candidate == 1
    assert await run.capas() == []


@pytest.mark.parametrize(("failing", "probed"), [(0, [0]), (1, [1])])
async def test_the_one_that_passes_is_probed(world: World, failing: int, probed: list[int]) -> None:
    run = await world.start(Script(candidates=2, failing={StageName.RUN_TESTS: failing}, has_probe=True))
    assert await run.outcome() is MissionOutcome.MERGED
    assert run.script.probed == probed


async def test_the_mission_fails_when_all_do(world: World) -> None:
    run = await world.start(Script(candidates=3, failing={StageName.SECURITY_SCAN: 3}))
    assert await run.outcome() is MissionOutcome.FAILED
    scans = [record for record in await run.stages() if record.stage == "security_scan"]
    assert [(record.candidate, record.status) for record in scans] == [(0, "failed"), (1, "failed"), (2, "failed")]
    assert len(await run.capas()) == 1


async def test_a_mission_without_a_candidate_fails(world: World) -> None:
    run = await world.start(Script(candidates=0))
    assert await run.outcome() is MissionOutcome.FAILED
    assert (await run.row()).reason == "the mission has no candidate"


async def test_the_workbench_is_closed_after_a_failure(world: World) -> None:
    run = await world.start(Script(failing={StageName.PULL_CODE: 1}))
    assert await run.outcome() is MissionOutcome.FAILED
    assert run.script.closed == 1


async def test_a_part_that_breaks_once_is_tried_again(world: World) -> None:
    run = await world.start(Script(errors={StageName.PULL_CODE: [RuntimeError("the disk was away")]}))
    assert await run.outcome() is MissionOutcome.MERGED
    assert run.script.tries(StageName.PULL_CODE) == 2
    told = [event["type"] for event in await run.events("stage.started") if event["data"]["stage"] == "pull_code"]
    assert told == ["stage.started"], "it is one run of the stage"


async def test_a_part_that_is_broken_for_good_fails_the_mission_and_its_stage(world: World) -> None:
    broken = ApplicationError("the scanner is not installed\0", type="no_scanner", non_retryable=True)
    run = await world.start(Script(errors={StageName.SECURITY_SCAN: [broken]}))
    assert await run.outcome() is MissionOutcome.FAILED
    stage, row = await run.stage(StageName.SECURITY_SCAN), await run.row()
    assert "the scanner is not installed" in (row.reason or "")
    assert (stage.status, stage.reason) == (StageStatus.FAILED, row.reason)
    assert stage.signature is not None


async def test_a_mistake_of_ours_does_not_hold_a_mission_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interceptors, "MAX_TRIES_OF_A_BUG", 3)
    run = await world.start(Script(errors={StageName.PULL_CODE: [KeyError("a mistake")] * 3}))
    assert await run.outcome() is MissionOutcome.FAILED
    assert "open_round broke 3 times with KeyError" in ((await run.row()).reason or "")
    assert run.script.tries(StageName.PULL_CODE) == 3


@pytest.mark.parametrize("kind", [DataError, OperationalError])
async def test_a_database_s_error_shows_no_sql(kind: type[DBAPIError]) -> None:
    async def breaks(_: object) -> None:
        raise kind("SELECT secret FROM vault", None, ValueError("it says more"))

    around = interceptors.AroundActivities().intercept_activity(cast(Any, SimpleNamespace(execute_activity=breaks)))
    with pytest.raises(ApplicationError) as raised:
        await ActivityEnvironment().run(around.execute_activity, cast(Any, None))
    assert (raised.value.type, raised.value.non_retryable) == (kind.__name__, False)
    assert "SELECT" not in str(raised.value)
    assert raised.value.__cause__ is None, "causes cross Temporal, too"


async def test_a_server_that_is_away_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interceptors, "MAX_TRIES_OF_A_BUG", 1)
    run = await world.start(Script(errors={StageName.PULL_CODE: [ConnectionError("away")] * 3}))
    assert await run.outcome() is MissionOutcome.MERGED
