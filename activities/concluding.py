"""Closing a mission: stage 11's record, and whatever the mission left open, in one transaction with its row."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.recording import StageRecorder, Verdict
from models.contracts.pipeline import Conclusion, RollbackCheck, StageResult
from models.domain.budgets import RunStatus
from models.domain.ending import doubt
from models.domain.ids import mission_workflow_id
from models.domain.stages import StageStatus
from models.domain.states import MissionOutcome
from models.store import blobs, candidates, compute, decisions, governance, merge_slots, running, stages, trust
from models.store.database import clock
from models.store.events import Actor
from models.store.stages import NewEvidence
from models.tables.missions import Decision, Mission, Stage


async def conclude(recorder: StageRecorder, session: AsyncSession, end: Conclusion, closer: str) -> bool:
    """Close a mission with its CAPA where it did not end well; false when it was closed before."""
    ref = end.ref
    mission = await running.load(session, ref.workspace_id, ref.mission_id, for_update=True)
    if mission.ended_at is not None:
        return False
    end, actor = _with_merge(end, mission), Actor(closer, mission.correlation_id)
    await governance.withdraw_of(session, ref.workspace_id, ref.mission_id, actor)
    await _close_open(recorder, session, end)
    await merge_slots.release_all(session, ref.workspace_id, mission_workflow_id(ref.workspace_id, ref.mission_id))
    record = await stages.begin(session, ref, activity.info().attempt)
    if record.ended_at is None:
        log, report = await _kept(session, end)
        ending = _ending(end, report)
        ending.details |= await _answered(session, record)
        await recorder.close_in(session, record, ending, log)
    await candidates.record_outcomes(session, ref.workspace_id, ref.mission_id)
    await trust.learn(session, mission, end.outcome, actor)
    is_closed = await running.conclude(session, end, closer)
    status = RunStatus.SUCCESS if end.outcome is MissionOutcome.MERGED else RunStatus.FAILED
    price = recorder.second(clock(session).now.date())
    await compute.pay(session, ref.workspace_id, ref.mission_id, status, price)  # last: others wait for its row
    return is_closed


def _with_merge(end: Conclusion, mission: Mission) -> Conclusion:
    """Tell of a merge that the workflow does not know, because an engineer reset it: then nobody watched that merge."""
    if end.merge_sha or not mission.merge_sha:
        return end
    known = {"merge_sha": mission.merge_sha, "revert_sha": mission.revert_sha or "", "capa": True}
    stays = "" if mission.revert_sha else doubt(mission.stage, is_merged=True)
    return end.model_copy(update=known | {"reason": f"{end.reason}{stays}"})


async def _close_open(recorder: StageRecorder, session: AsyncSession, end: Conclusion) -> None:
    """A stage that the mission's end broke off has failed, for the reason that the mission ended."""
    for record in await stages.open_of(session, end.ref.workspace_id, end.ref.mission_id):
        if stages.ref_of(record) != end.ref:
            answer = StageResult(status=StageStatus.FAILED, reason=end.reason)
            printed = await blobs.printed(session, record.workspace_id, record.log_id)
            details = await _answered(session, record)
            verdict = Verdict(answer, answer.status, end.reason, details, record.inputs)
            await recorder.close_in(session, record, verdict, printed)


async def _answered(session: AsyncSession, record: Stage) -> dict[str, Any]:
    """Name the question that a stage waited for, and who answered it by then; nothing is read of any other stage."""
    if not (name := record.inputs.get("decision_id")):
        return {}
    decision = await session.get_one(Decision, (record.workspace_id, name))
    given = await decisions.given(session, decision)
    return {"decision_id": name, **({"answers": given} if given else {})}


async def _kept(session: AsyncSession, end: Conclusion) -> tuple[bytes | None, bytes | None]:
    """Read the log and the report of the tests after the rollback, which become evidence of stage 11."""
    digests = (end.check.log_digest, end.check.report_digest) if end.check else ("", "")
    log, report = [await blobs.get(session, end.ref.workspace_id, digest) if digest else None for digest in digests]
    return log, report


def _ending(end: Conclusion, report: bytes | None) -> Verdict:
    good, status = end.outcome is MissionOutcome.MERGED, StageStatus.PASSED
    details = {"outcome": end.outcome.value, "action": "resolve" if good else "escalate", "revert_sha": end.revert_sha}
    tested = _tested(end.check) if end.check else {}
    reason = end.reason or f"{end.outcome.value}; {end.merge_sha[:12]} stays"
    answer = StageResult(status=status, reason=reason)
    evidence = (NewEvidence("test", report),) if report else ()
    sha = end.revert_sha or end.merge_sha or None
    return Verdict(answer, status, reason, details | tested, end.inputs, git_sha=sha, evidence=evidence)


def _tested(check: RollbackCheck) -> dict[str, Any]:
    """Say in stage 11's record what the tests after the rollback showed."""
    return {"after_rollback": check.reason, "tests": check.tests, "isolation": check.isolation}
