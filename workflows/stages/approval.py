"""Stages 6 to 8, and every other question to a human: put, waited for, read. A wait costs little and survives all."""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.governance import GovernanceActivities
    from models.contracts.merge_queue import SlotGrant
    from models.contracts.pipeline import DecisionRef, GovernanceAnswer, GovernanceInput
    from models.domain.stages import StageName
    from models.domain.states import DecisionStatus, MissionOutcome
    from workflows.policies import RECORD

from workflows.looking import looks
from workflows.mission import MissionEnds
from workflows.patches import Patch
from workflows.pipeline import Pipeline

_ENDINGS = {
    DecisionStatus.DENIED: MissionOutcome.DENIED,
    DecisionStatus.EXPIRED: MissionOutcome.EXPIRED,
    DecisionStatus.CANCELED: MissionOutcome.CANCELED,
}

_SOON, _SELDOM = timedelta(seconds=1), timedelta(minutes=15)
"""How soon we look again where by our clock the time is over: those of two machines differ by less than a second, and
for as long as the database's is behind, each look adds to the history."""


async def approve(mission: Pipeline) -> None:
    """Pass when policy or a human approves the merge."""
    await heed(mission, await ask(mission))


async def ask(mission: Pipeline) -> GovernanceAnswer:
    """Report and measure what this round has proved, and ask whether to merge it; asking twice puts one question."""
    mission.stage = StageName.GOVERNANCE
    question = GovernanceInput(
        ref=mission.ref(StageName.GOVERNANCE),
        base_sha=mission.base_sha,
        head_sha=mission.head_sha,
        patch_id=mission.patch_id,
        config_hash=mission.context.config_hash,
        approved=mission.approved,
        stressed=mission.context.has_stress,
        started_by=mission.start.started_by,
    )
    round_ = await mission.step(
        lambda: workflow.execute_local_activity_method(GovernanceActivities.settle_round, question, **RECORD),
        stoppable=False,
    )
    if round_.answer is None:
        raise MissionEnds(MissionOutcome.FAILED, round_.reason, round_.failed_stage)
    mission.decision_id = round_.answer.decision_id
    if round_.slot_token and not mission.in_slot:
        mission.taken = SlotGrant(number=mission.slot_number, token=round_.slot_token)
    return round_.answer


async def heed(mission: Pipeline, answer: GovernanceAnswer) -> None:
    """Wait for the answer, also while paused: the one who gave it is told that it was heard. End unless it approves."""
    answer = await _final(mission, answer, StageName.GOVERNANCE)
    if answer.status is not DecisionStatus.APPROVED:
        raise MissionEnds(_ENDINGS[answer.status], answer.reason, StageName.GOVERNANCE)
    mission.approved, mission.approved_round = answer.binding or mission.approved, mission.round


async def ask_about_rollback(mission: Pipeline, conflict: str, tries: int) -> bool:
    """Ask a human about a merge that cannot be taken back by itself; true means: try again."""
    question = DecisionRef(
        ref=mission.ref(StageName.RESOLVE),
        decision_id="",
        detail=conflict,
        repeat=tries,
        started_by=mission.start.started_by,
        canceled_by=mission.canceled.actor if mission.canceled else "",
    )
    answer = await workflow.execute_local_activity_method(GovernanceActivities.ask_about_rollback, question, **RECORD)
    mission.decision_id = answer.decision_id
    return (await _final(mission, answer, StageName.RESOLVE)).status is DecisionStatus.APPROVED


async def _final(mission: Pipeline, answer: GovernanceAnswer, stage: StageName) -> GovernanceAnswer:
    if answer.status is DecisionStatus.PENDING:
        answer = await _answered(mission, answer, stage)
    mission.decision_id = ""
    return answer


async def _answered(mission: Pipeline, answer: GovernanceAnswer, stage: StageName) -> GovernanceAnswer:
    """Wait until a question is answered; whoever answers tells us, and where that is lost we find it when we look.

    Whether a limit blocks a run of ours we look for, too: that is told ever more rarely, and what follows is a merge.
    """
    at_least, patience = _SOON, looks()
    while answer.status is DecisionStatus.PENDING:
        await _hear(mission, answer, at_least, next(patience))
        if answer.expires_at is not None and answer.expires_at <= workflow.now():
            at_least = min(2 * at_least, _SELDOM)
        mission.leave_if_canceled()
        mission.answered.discard(answer.decision_id)
        asked = DecisionRef(ref=mission.ref(stage), decision_id=answer.decision_id)
        answer = await workflow.execute_local_activity_method(GovernanceActivities.settle, asked, **RECORD)
        if workflow.patched(Patch.LOOKS_FOR_NEWS) and not mission.closing:  # what ends, no limit holds
            await mission.heed_runs()
    return answer


async def _hear(mission: Pipeline, answer: GovernanceAnswer, at_least: timedelta, patience: timedelta | None) -> None:
    """Wait for news. Whether the time is over is for the database's clock to say: the timer only wakes us.

    Where that clock is far behind we look ever less often: a history is finite, and the reconciler tells us, too.
    """
    timeout = patience
    if answer.expires_at is not None:
        left = max(answer.expires_at - workflow.now(), at_least)
        timeout = left if patience is None else min(left, patience)
    try:
        await mission.wait_until(lambda: answer.decision_id in mission.answered or mission.wants_out, timeout)
    except TimeoutError:
        return
