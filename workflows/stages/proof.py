"""Stages 1 to 5: what a candidate does on the branch as it is now."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.proving import ProofActivities
    from models.contracts.pipeline import CandidateTask, Opened, Proof
    from models.domain.stages import StageName, StageStatus
    from models.domain.states import MissionOutcome
    from workflows.policies import host_commands, shared_commands

from workflows.mission import MissionEnds
from workflows.pipeline import Pipeline


async def prove(mission: Pipeline) -> None:
    """Find a candidate that passes; in a later round, show that the one chosen passes on the new head too."""
    mission.stage = StageName.RUN_TESTS  # nearly all of the time is the tests'; the row says which stage it is
    opened = await _open(mission)
    context = opened.context
    mission.host = context.host_queue or mission.host
    if context.status is StageStatus.FAILED:
        mission.stage = context.failed_stage or StageName.FETCH_CONTEXT
        raise MissionEnds(MissionOutcome.FAILED, context.reason, mission.stage)
    mission.context, mission.base_sha = context, context.base_sha
    await _choose_candidate(mission, opened.proof)


async def _open(mission: Pipeline) -> Opened:
    """Stages 1 to 5 with the first candidate; where a limit leaves nothing for them, once it does."""
    while True:
        try:
            return await _try_to_open(mission)
        except ActivityError as error:
            if not _is_blocked(error):
                raise
        await mission.heed_runs()


async def _try_to_open(mission: Pipeline) -> Opened:
    """Open the round on any host at first. A new head may bring new configuration, which no earlier approval binds."""
    first = workflow.info().first_execution_run_id
    task = mission.task(StageName.FETCH_CONTEXT).model_copy(update={"first_run_id": first})
    if mission.host:
        return await mission.on_host(ProofActivities.open_round, task, host_commands)
    return await mission.step(
        lambda: workflow.execute_activity_method(ProofActivities.open_round, task, **shared_commands())
    )


def _is_blocked(error: ActivityError) -> bool:
    return isinstance(error.cause, ApplicationError) and error.cause.type == "mission_blocked"


async def _choose_candidate(mission: Pipeline, proof: Proof | None) -> None:
    """Try the other candidates in their order; the first that passes wins, and the last failure is the mission's."""
    proof = proof or Proof(failed_stage=mission.stage, reason="the mission has no candidate")
    last = mission.context.candidates - 1 if mission.round == 0 else mission.candidate
    while proof.failed_stage is not None and mission.candidate < last:
        mission.candidate += 1
        proof = await _prove_candidate(mission)
    mission.stage = proof.failed_stage or StageName.RUN_TESTS
    if proof.failed_stage is not None:
        raise MissionEnds(MissionOutcome.FAILED, proof.reason, proof.failed_stage)
    mission.head_sha, mission.patch_id = proof.head_sha, proof.patch_id


async def _prove_candidate(mission: Pipeline) -> Proof:
    """Stages 3 to 5 of another candidate."""
    task = CandidateTask(
        ref=mission.ref(StageName.RUN_TESTS),
        base_sha=mission.base_sha,
        has_stress=mission.context.has_stress,
        has_probe=mission.context.has_probe,
    )
    return await mission.on_host(ProofActivities.prove_candidate, task, host_commands)
