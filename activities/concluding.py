"""Closing a mission: stage 11's record, and whatever the mission left open, in one transaction with its row."""

from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.recording import StageRecorder, Verdict
from models.contracts.pipeline import Conclusion, StageResult
from models.domain.stages import StageStatus
from models.domain.states import MissionOutcome
from models.store import candidates, governance, running, stages
from models.store.events import Actor


async def conclude(recorder: StageRecorder, session: AsyncSession, end: Conclusion, closer: str) -> bool:
    """Close a mission with its CAPA where it did not end well; false when it was closed before."""
    ref = end.ref
    mission = await running.load(session, ref.workspace_id, ref.mission_id, for_update=True)
    if mission.ended_at is not None:
        return False
    actor = Actor(closer, mission.correlation_id)
    for question in await governance.pending_of(session, ref.workspace_id, ref.mission_id):
        await governance.withdraw(session, ref.workspace_id, question, actor)
    await _close_open(recorder, session, end)
    record = await stages.begin(session, ref, activity.info().attempt)
    if record.ended_at is None:
        await recorder.close_in(session, record, _ending(end), None)
    await candidates.record_outcomes(session, ref.workspace_id, ref.mission_id)
    return await running.conclude(session, end, closer)


async def _close_open(recorder: StageRecorder, session: AsyncSession, end: Conclusion) -> None:
    """A stage that the mission's end broke off has failed, for the reason that the mission ended."""
    for record in await stages.open_of(session, end.ref.workspace_id, end.ref.mission_id):
        if stages.ref_of(record) != end.ref:
            answer = StageResult(status=StageStatus.FAILED, reason=end.reason)
            await recorder.close_in(session, record, Verdict(answer, answer.status, end.reason), None)


def _ending(end: Conclusion) -> Verdict:
    good, status = end.outcome is MissionOutcome.MERGED, StageStatus.PASSED
    details = {"outcome": end.outcome.value, "action": "resolve" if good else "escalate", "revert_sha": end.revert_sha}
    sha = end.revert_sha or end.merge_sha or None
    return Verdict(StageResult(status=status, reason=end.reason), status, end.reason, details, end.inputs, git_sha=sha)
