"""Stages 1 to 5: what a candidate does on the branch as it is now."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.context import ContextActivities
    from activities.proving import ProofActivities
    from models.contracts.pipeline import CandidateTask, PipelineContext, Proof
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
    """Try the candidates in their order; the first that passes wins, and the last failure is the mission's."""
    numbers = range(mission.context.candidates) if mission.round == 0 else [mission.candidate]
    proof = Proof(failed_stage=mission.stage, reason="the mission has no candidate")
    for mission.candidate in numbers:
        proof = await _prove_candidate(mission)
        if proof.failed_stage is None:
            mission.head_sha, mission.patch_id = proof.head_sha, proof.patch_id
            return
    raise MissionEnds(MissionOutcome.FAILED, proof.reason, proof.failed_stage)


async def _prove_candidate(mission: Pipeline) -> Proof:
    """Stages 3 to 5; nearly all of their time is the tests', so that is where the mission stands meanwhile."""
    task = CandidateTask(
        ref=mission.ref(StageName.RUN_TESTS), base_sha=mission.base_sha, has_stress=mission.context.has_stress
    )
    proof = await mission.on_host(ProofActivities.prove_candidate, task, host_commands)
    mission.stage = proof.failed_stage or mission.stage
    return proof
