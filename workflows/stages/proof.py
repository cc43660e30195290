"""Stages 1 to 7: what a candidate does on the branch as it is now."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.code import CodeActivities
    from activities.context import ContextActivities
    from activities.records import RecordActivities
    from activities.scanning import ScanActivities
    from activities.testing import TestingActivities
    from models.contracts.pipeline import StageResult
    from models.domain.stages import StageName, StageStatus
    from models.domain.states import MissionOutcome
    from workflows.policies import host_commands, shared_git

from workflows.mission import MissionEnds
from workflows.pipeline import Pipeline


async def prove(mission: Pipeline) -> None:
    """Find a candidate that passes; in a later round, show that the one chosen passes on the new head too."""
    await _look(mission)
    mission.require(await mission.on_host(CodeActivities.pull_code, mission.task(StageName.PULL_CODE)))
    await _choose_candidate(mission)
    mission.require(await mission.locally(RecordActivities.publish_diagnostics, StageName.PUBLISH_DIAGNOSTICS))
    mission.require(await mission.locally(RecordActivities.collect_metrics, StageName.COLLECT_METRICS))


async def _look(mission: Pipeline) -> None:
    """Learn what the mission stands on. A new head may bring new configuration, which no earlier approval binds."""
    mission.stage = StageName.FETCH_CONTEXT
    first = workflow.info().first_execution_run_id
    task = mission.task(StageName.FETCH_CONTEXT).model_copy(update={"first_run_id": first})
    context = await mission.step(
        lambda: workflow.execute_activity_method(ContextActivities.fetch_context, task, **shared_git())
    )
    if context.status is StageStatus.FAILED:
        raise MissionEnds(MissionOutcome.FAILED, context.reason, mission.stage)
    mission.context, mission.base_sha = context, context.base_sha
    mission.host = mission.host or context.host_queue


async def _choose_candidate(mission: Pipeline) -> None:
    numbers = range(mission.context.candidates) if mission.round == 0 else [mission.candidate]
    failure: StageResult | None = None
    for mission.candidate in numbers:
        failure = await _try_candidate(mission)
        if failure is None:
            return
    reason = failure.reason if failure else "the mission has no candidate"
    raise MissionEnds(MissionOutcome.FAILED, reason, mission.stage)


async def _try_candidate(mission: Pipeline) -> StageResult | None:
    """Patch, test, scan and stress one candidate; return the first failure."""
    patched = await mission.on_host(CodeActivities.branch_and_patch, mission.task(StageName.BRANCH_AND_PATCH))
    if patched.failed:
        return patched
    mission.head_sha, mission.patch_id = patched.head_sha, patched.patch_id
    tested = await mission.on_host(TestingActivities.run_tests, mission.task(StageName.RUN_TESTS), host_commands)
    if tested.failed:
        return tested
    scan = mission.task(StageName.SECURITY_SCAN)
    scanned = await mission.on_host(ScanActivities.security_scan, scan, host_commands)
    if scanned.failed:
        return scanned
    stressed = await _stress(mission)
    return stressed if stressed.failed else None


async def _stress(mission: Pipeline) -> StageResult:
    if not mission.context.has_stress:
        return await mission.locally(RecordActivities.skip_stress, StageName.STRESS_TESTS)
    task = mission.task(StageName.STRESS_TESTS)
    return await mission.on_host(TestingActivities.stress_tests, task, host_commands)
