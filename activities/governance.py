"""Stage 8: puts the question whether to merge, and reads the answer. Local activities: Postgres only."""

from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.recording import StageRecorder, Verdict
from activities.records import record_fact
from models.contracts.merge_queue import QueueRef, SlotRelease
from models.contracts.pipeline import DecisionRef, GovernanceAnswer, GovernanceInput, RoundAnswer, StageInput, StageRef
from models.domain.approval import Binding, MergeFacts, MergeVerdict, Risk, assess_merge
from models.domain.errors import MissionControlError
from models.domain.patches import TouchedLaw
from models.domain.stages import StageName, StageStatus
from models.domain.states import DecisionStatus
from models.store import governance, merge_slots, running, stages
from models.store.events import Actor
from models.tables.missions import Decision, Mission

_RECORDED = {DecisionStatus.APPROVED: StageStatus.PASSED}


class GovernanceActivities:
    """Decisions, as a mission's workflow needs them."""

    def __init__(self, recorder: StageRecorder) -> None:
        self._recorder, self._db = recorder, recorder.db

    @activity.defn
    async def settle_round(self, question: GovernanceInput) -> RoundAnswer:
        """Stages 6 to 8 of a round, and 5 where nothing stresses, in one transaction: they only touch Postgres."""
        ref = question.ref
        async with self._db.workspace(ref.workspace_id) as session:
            mission = await running.load(session, ref.workspace_id, ref.mission_id)
            if mission.ended_at is not None:
                raise MissionControlError("mission_ended", "the mission was closed from outside: it asks no more")
            for task in _facts(question):
                result = await record_fact(self._recorder, session, mission, task)
                if result.failed:
                    return RoundAnswer(failed_stage=task.ref.stage, reason=result.reason)
            answer = await self._ask(session, question, mission)
            token = await _take_slot(session, mission) if answer.status is DecisionStatus.APPROVED else None
            return RoundAnswer(answer=answer, slot_token=token)

    @activity.defn
    async def settle(self, asked: DecisionRef) -> GovernanceAnswer:
        """Read the answer, letting one whose time is over expire; a final one is recorded and acknowledged."""
        ref = asked.ref
        async with self._db.workspace(ref.workspace_id) as session:
            mission = await running.load(session, ref.workspace_id, ref.mission_id)
            actor = Actor(governance.POLICY, mission.correlation_id)
            decision = await governance.expire(session, ref.workspace_id, asked.decision_id, actor)
            assert decision is not None  # noqa: S101  # the workflow has its id from us
            answer = _answer(decision)
            if answer.status is not DecisionStatus.PENDING:
                await governance.acknowledge(session, ref.workspace_id, asked.decision_id)
                await self._record(session, ref, decision, answer)
            return answer

    @activity.defn
    async def ask_about_rollback(self, asked: DecisionRef) -> GovernanceAnswer:
        """Ask a human about a merge that cannot be taken back by itself: approve tries again, deny leaves it.

        Stage 11 has begun, and waits for the answer.
        """
        ref = asked.ref
        reasons = ("the rollback conflicts with later commits", asked.detail)
        verdict = MergeVerdict(needs_human=True, risk=Risk.RED, reasons=reasons)
        async with self._db.workspace(ref.workspace_id) as session:
            record = await stages.begin(session, ref, activity.info().attempt)
            mission = await running.load(session, ref.workspace_id, ref.mission_id)
            actor = Actor(stages.WORKER, mission.correlation_id)
            shown = {"approve": "try the rollback again", "deny": "leave the merge", "merge_sha": mission.merge_sha}
            decision = await governance.ask(
                session, ref, "rollback", verdict, shown, None, expires_in=None, actor=actor, repeat=asked.repeat
            )
            answer = _answer(decision)
            if answer.status is DecisionStatus.PENDING:
                await stages.wait_for_decision(session, record, decision.decision_id)
            return answer

    async def _ask(self, session: AsyncSession, question: GovernanceInput, mission: Mission) -> GovernanceAnswer:
        """Judge the merge, and put it to a human where the verdict says so; asking twice puts one question."""
        ref = question.ref
        record = await stages.begin(session, ref, activity.info().attempt)
        if record.ended_at is not None:
            return GovernanceAnswer.model_validate(record.result["answer"])
        verdict, shown = await self._assess(session, question, mission)
        decision = await governance.ask(
            session,
            ref,
            "governance",
            verdict,
            shown,
            _binding(question, verdict),
            expires_in=_expiry(mission),
            actor=Actor(stages.WORKER, mission.correlation_id),
        )
        answer = _answer(decision)
        if answer.status is DecisionStatus.PENDING:
            await stages.wait_for_decision(session, record, decision.decision_id)
        else:
            await governance.acknowledge(session, ref.workspace_id, decision.decision_id)
            await self._recorder.close_in(session, record, _verdict(decision, answer), None)
        return answer

    async def _assess(
        self, session: AsyncSession, question: GovernanceInput, mission: Mission
    ) -> tuple[MergeVerdict, dict[str, Any]]:
        """Gather the facts from the records of the earlier stages; an equal binding keeps an earlier approval."""
        ref = question.ref
        details, tests, scan = await stages.results(
            session, ref, StageName.BRANCH_AND_PATCH, StageName.RUN_TESTS, StageName.SECURITY_SCAN
        )
        touched = TouchedLaw.model_validate(details.get("touched", {}))
        trust = mission.trust_requirements
        facts = MergeFacts(
            requires_governance_approval=bool(trust.get("requires_governance_approval"))
            or trust.get("memory_write_scope") == "propose",
            protected=mission.protected,
            env=mission.env,
            touches_config=touched.config,
            ci_files=touched.ci,
            existing_tests=touched.existing_tests,
            gone_tests=tuple(tests.get("excused", ())),
            medium_findings=int(scan.get("medium", 0)),
            overrides=tuple(sorted(mission.overrides)),
        )
        shown = {
            "base_sha": question.base_sha,
            "head_sha": question.head_sha,
            "diff": details.get("diff"),
            "files": details.get("files", []),
            "overrides": mission.overrides,
            "facts": facts.model_dump(mode="json"),
        }
        verdict = assess_merge(facts)
        if verdict.needs_human and question.approved and question.approved.covers(_binding(question, verdict)):
            earlier = await governance.approval(session, ref.workspace_id, ref.mission_id, question.approved)
            if earlier is not None:
                shown["rests_on"] = {"decision_id": earlier.decision_id, "resolved_by": earlier.resolved_by}
                kept = {"needs_human": False, "reasons": (*verdict.reasons, _stands(shown["rests_on"]))}
                return verdict.model_copy(update=kept), shown
        return verdict, shown

    async def _record(self, session: AsyncSession, ref: StageRef, decision: Decision, answer: GovernanceAnswer) -> None:
        """End stage 8 with its answer; stage 11, which asks about a rollback, goes on with it."""
        record = await stages.begin(session, ref, activity.info().attempt)
        if record.ended_at is None and ref.stage is StageName.GOVERNANCE:
            await self._recorder.close_in(session, record, _verdict(decision, answer), None)


async def _take_slot(session: AsyncSession, mission: Mission) -> int | None:
    """Take the merge slot where it is free and nobody waits; else the mission asks the branch's queue."""
    info = activity.info()
    queue = QueueRef(workspace_id=mission.workspace_id, repository_id=mission.repository_id, branch=mission.branch)
    run = SlotRelease(workflow_id=info.workflow_id or "", run_id=info.workflow_run_id or "")
    return await merge_slots.claim(session, queue, run)


def _facts(question: GovernanceInput) -> list[StageInput]:
    """Name the stages before the question that only touch Postgres."""
    known = StageInput(ref=question.ref, base_sha=question.base_sha, head_sha=question.head_sha)
    names = [StageName.PUBLISH_DIAGNOSTICS, StageName.COLLECT_METRICS]
    if not question.stressed:
        names.insert(0, StageName.STRESS_TESTS)
    return [known.model_copy(update={"ref": question.ref.model_copy(update={"stage": name})}) for name in names]


def _binding(question: GovernanceInput, verdict: MergeVerdict) -> Binding:
    return Binding(patch_id=question.patch_id, config_hash=question.config_hash, reasons=verdict.reasons)


def _expiry(mission: Mission) -> timedelta | None:
    minutes = mission.approval_timeout_minutes
    return timedelta(minutes=minutes) if minutes is not None else None


def _answer(decision: Decision) -> GovernanceAnswer:
    status = DecisionStatus(decision.status)
    return GovernanceAnswer(
        decision_id=decision.decision_id,
        status=status,
        reason=_reason(decision, status),
        expires_at=decision.expires_at if status is DecisionStatus.PENDING else None,
        binding=Binding.model_validate(decision.binding) if _binds(decision) else None,
    )


def _binds(decision: Decision) -> bool:
    """Whether a later round may rest on it: only on what a human saw, never on what the policy let pass."""
    return bool(decision.binding) and decision.resolved_by not in (None, governance.POLICY)


def _reason(decision: Decision, status: DecisionStatus) -> str:
    if status is DecisionStatus.PENDING:
        return ""
    if earlier := decision.question.get("rests_on"):
        return _stands(earlier)
    said = f": {decision.explanation}" if decision.explanation else ""
    return f"{status.value} by {decision.resolved_by}{said}"


def _stands(earlier: dict[str, str]) -> str:
    who, where = earlier["resolved_by"], earlier["decision_id"]
    return f"approved by {who} in {where}, which stands: same patch, configuration and policy"


def _verdict(decision: Decision, answer: GovernanceAnswer) -> Verdict:
    return Verdict(
        answer,
        _RECORDED.get(answer.status, StageStatus.FAILED),
        answer.reason,
        details={
            "decision_id": decision.decision_id,
            "risk": decision.risk,
            "reasons": decision.reasons,
            "resolved_by": decision.resolved_by,
        },
        inputs={"decision_id": decision.decision_id, "binding": decision.binding},
    )
