"""Stage 9: the merge, in the branch's slot."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.merging import MergeActivities
    from models.contracts.pipeline import GovernanceAnswer, MergeInput, MergeResult
    from models.domain.stages import StageName
    from models.domain.states import DecisionStatus, MissionOutcome

from workflows.mission import MissionEnds, SlotYielded
from workflows.pipeline import Pipeline
from workflows.stages.approval import ask, heed
from workflows.stages.merge_slot import merge_slot
from workflows.stages.proof import prove

MAX_ROUNDS = 20
"""How often a branch may move under a mission in the slot; each round repeats stages 1 to 7 and adds to the history."""


async def merge(mission: Pipeline) -> None:
    """Merge once; a question that a moved branch raises is waited for outside the slot."""
    mission.stage = StageName.MERGE
    while not mission.merge_sha:
        if mission.taken is None:
            await mission.hold()
        try:
            question = await _merge_in_slot(mission)
        except SlotYielded:
            continue
        except ActivityError as error:
            if not slot_was_lost(error):
                raise
            continue
        if question is not None:
            await heed(mission, question)


async def _merge_in_slot(mission: Pipeline) -> GovernanceAnswer | None:
    """Merge what this round's stages and approval stand for; on a moved branch they are done anew, in the slot."""
    async with merge_slot(mission):
        while True:
            if mission.approved_round != mission.round:
                await prove(mission)
                answer = await ask(mission)
                if answer.status is DecisionStatus.PENDING:
                    return answer
                await heed(mission, answer)
            result = await _try_to_merge(mission)
            if not result.moved_to:
                break
            _begin_round(mission)
        mission.require(result)
        mission.merge_sha = result.merge_sha
        return None


def _begin_round(mission: Pipeline) -> None:
    if mission.round == MAX_ROUNDS:
        reason = f"{mission.context.branch} moved {MAX_ROUNDS + 1} times under the mission: retry it when it is quiet"
        raise MissionEnds(MissionOutcome.FAILED, reason, StageName.MERGE)
    mission.round += 1


async def _try_to_merge(mission: Pipeline) -> MergeResult:
    mission.is_merging = True
    try:
        task = merge_input(mission, StageName.MERGE)
        return await mission.on_host(MergeActivities.merge, task, stoppable=False)
    finally:
        mission.is_merging = False


def merge_input(mission: Pipeline, stage: StageName) -> MergeInput:
    """Ask for the merge, or its reversal, under the slot's token."""
    return MergeInput(
        ref=mission.ref(stage),
        base_sha=mission.base_sha,
        head_sha=mission.head_sha,
        merge_sha=mission.merge_sha,
        token=mission.grant.token if mission.grant else 0,
    )


def slot_was_lost(error: ActivityError) -> bool:
    """Whether the fence refused our token: another queue was started meanwhile, and we ask that one."""
    return isinstance(error.cause, ApplicationError) and error.cause.type == "slot_lost"
