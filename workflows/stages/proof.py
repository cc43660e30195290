"""Stages 1 to 5: what a candidate does on the branch as it is now."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.code import CodeActivities
    from activities.context import ContextActivities
    from activities.scanning import ScanActivities
    from activities.testing import TestingActivities
    from models.contracts.pipeline import PipelineContext, StageResult
    from models.domain.stages import StageName, StageStatus
    from models.domain.states import MissionOutcome
    from workflows.policies import host_commands, shared_git

from workflows.mission import MissionEnds
from workflows.pipeline import Pipeline


async def prove(mission: Pipeline) -> None:
    """Find a candidate that passes; in a later round, show that the one chosen passes on the new head too."""
    mission.stage = StageName.FETCH_CONTEXT
    context = await _open(mission)
    mission.host = mission.host or context.host_queue
    if context.status is StageStatus.FAILED:
        mission.stage = context.failed_stage or mission.stage
        raise MissionEnds(MissionOutcome.FAILED, context.reason, mission.stage)
    mission.context, mission.base_sha = context, context.base_sha
    await _choose_candidate(mission)


async def _open(mission: Pipeline) -> PipelineContext:
    """Stages 1 and 2, on any host at first. A new head may bring new configuration, which no earlier approval binds."""
    first = workflow.info().first_execution_run_id
    task = mission.task(StageName.FETCH_CONTEXT).model_copy(update={"first_run_id": first})
    if mission.host:
        return await mission.on_host(ContextActivities.open_round, task)
    return await mission.step(
        lambda: workflow.execute_activity_method(ContextActivities.open_round, task, **shared_git())
    )


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
    if not mission.context.has_stress:
        return None
    task = mission.task(StageName.STRESS_TESTS)
    stressed = await mission.on_host(TestingActivities.stress_tests, task, host_commands)
    return stressed if stressed.failed else None
