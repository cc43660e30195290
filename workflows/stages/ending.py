"""Stage 11: what must go is taken back, what was held is given back, and the mission's row is closed last of all."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

with workflow.unsafe.imports_passed_through():
    from activities.code import CodeActivities
    from activities.merging import MergeActivities
    from activities.observing import ObservationActivities
    from activities.records import RecordActivities
    from models.contracts.pipeline import Conclusion, MergeResult
    from models.domain.ending import LOOK_FOR_MERGE
    from models.domain.stages import StageName, StageStatus
    from models.domain.states import MissionOutcome
    from workflows.policies import RECORD, clearing, host_commands, host_git

from workflows.mission import MissionEnds
from workflows.pipeline import Pipeline
from workflows.stages.approval import ask_about_rollback
from workflows.stages.merge_slot import merge_slot
from workflows.stages.merging import merge_input, slot_was_lost

MAX_REASON = 2_000
"""Characters: an exception may quote a whole log, and people read this in lists of missions."""


async def close(mission: Pipeline, end: MissionEnds) -> MissionOutcome:
    """Record how the mission ended; a merge that may not stay is reverted first."""
    await mission.begin_ending()
    if mission.merge_sha and end.outcome in (MissionOutcome.ROLLED_BACK, MissionOutcome.FAILED):
        end = await _roll_back(mission, end)
    mission.stage = StageName.RESOLVE
    await mission.finish_commands()
    await _close_workbench(mission)
    await _conclude(mission, end)
    mission.outcome = end.outcome
    return end.outcome


def unforeseen(mission: Pipeline, error: FailureError) -> MissionEnds:
    """A part of ours that broke for good fails the mission; whether it merged then only the branch can tell."""
    doubt = f"; {LOOK_FOR_MERGE}" if mission.stage is StageName.MERGE else ""
    return MissionEnds(MissionOutcome.FAILED, f"{_cause(error)}{doubt}", mission.stage)


async def _roll_back(mission: Pipeline, end: MissionEnds) -> MissionEnds:
    """Revert our merge; where it cannot be, a human says when to try again, or that it stays."""
    mission.stage, mission.bench_closed = StageName.RESOLVE, False
    tries = 0
    while (result := await _revert(mission, end.reason)).status is StageStatus.FAILED:
        tries += 1
        if not await ask_about_rollback(mission, result.reason, tries):
            reason = f"{end.reason}; the merge stays: {result.reason}"
            return MissionEnds(MissionOutcome.FAILED, reason, end.stage)
    mission.revert_sha = result.merge_sha
    doubt = await _verify(mission)
    reason = f"{end.reason}; after the rollback: {doubt}" if doubt else end.reason
    return MissionEnds(MissionOutcome.ROLLED_BACK, reason, end.stage)


async def _revert(mission: Pipeline, reason: str) -> MergeResult:
    """Revert in the branch's slot. What breaks here is a human's to judge, for the merge is still there."""
    while True:
        try:
            async with merge_slot(mission):
                task = merge_input(mission, StageName.RESOLVE).model_copy(update={"reason": reason})
                return await mission.with_host(MergeActivities.roll_back, task, host_git)
        except ActivityError as error:
            if not slot_was_lost(error):
                return MergeResult(status=StageStatus.FAILED, reason=_cause(error))


async def _verify(mission: Pipeline) -> str:
    """Test the branch without our merge; return what is wrong with it."""
    task = mission.task(StageName.RESOLVE).model_copy(update={"head_sha": mission.revert_sha})
    try:
        mission.check = await mission.with_host(ObservationActivities.verify_rollback, task, host_commands)
    except ActivityError as error:
        return _cause(error)
    return mission.check.reason if mission.check.failed else ""


async def _close_workbench(mission: Pipeline) -> None:
    """Give the worktrees back; what a host does not do now, the reconciler asks of it later."""
    if not mission.host or mission.bench_closed:
        return
    try:
        await workflow.execute_activity_method(
            CodeActivities.close_workbench, mission.bench(), **clearing(mission.host)
        )
    except ActivityError:
        workflow.logger.warning("the mission's workbench was not cleared")


async def _conclude(mission: Pipeline, end: MissionEnds) -> None:
    conclusion = Conclusion(
        ref=mission.ref(StageName.RESOLVE),
        outcome=end.outcome,
        reason=end.reason,
        failed_stage=end.stage,
        merge_sha=mission.merge_sha,
        revert_sha=mission.revert_sha,
        capa=end.capa,
        check=mission.check,
    )
    await workflow.execute_local_activity_method(RecordActivities.conclude, conclusion, **RECORD)


def _cause(error: FailureError) -> str:
    """Say what broke, in words that a column of Postgres can hold."""
    return str(error.cause or error).replace("\0", "")[:MAX_REASON]
