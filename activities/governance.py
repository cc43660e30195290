"""Ends a round by its verdict, puts what a human must answer of merges and rollbacks, and reads the answers.

Local activities: they touch Postgres only.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.code import MAX_FILES_SHOWN
from activities.recording import StageRecorder, Verdict
from activities.records import facts_before, record_fact
from models.contracts.merge_queue import QueueRef, SlotRelease
from models.contracts.missions import TrustRequirements
from models.contracts.pipeline import DecisionRef, GovernanceAnswer, GovernanceInput, RoundAnswer, StageInput, StageRef
from models.domain.actions import FORCE_ROLLBACK, MERGE
from models.domain.answers import Given, asked_again, reason, stands
from models.domain.approval import Binding, demanded
from models.domain.decisions import Terms
from models.domain.errors import MissionControlError
from models.domain.law import TouchedLaw
from models.domain.money import SCALE, written
from models.domain.names import POLICY
from models.domain.policy import Act, Context, Fact, Outcome, Resolvers, Who
from models.domain.policy import Verdict as Judged
from models.domain.principals import Kind
from models.domain.stages import StageName, StageStatus
from models.domain.states import DecisionKind, DecisionStatus
from models.store import decisions, governance, merge_slots, running, stages
from models.store.database import clock
from models.store.events import Actor
from models.store.governance import Grounds, Matter
from models.store.policies import InForce, PolicyBook
from models.tables.missions import Decision, Mission

GOVERNANCE, ROLLBACK = DecisionKind.GOVERNANCE, DecisionKind.ROLLBACK
_WORKER = Who(name=stages.WORKER, kind=Kind.SERVICE)
"""Who acts where no agent has filed the mission or is assigned it: people answer for what they file."""
_TELLING = (StageName.BRANCH_AND_PATCH, StageName.RUN_TESTS, StageName.SECURITY_SCAN)
_RECORDED = {DecisionStatus.APPROVED: StageStatus.PASSED}


class GovernanceActivities:
    """Decisions, as a mission's workflow needs them."""

    def __init__(self, recorder: StageRecorder, book: PolicyBook) -> None:
        self._recorder, self._db, self._book = recorder, recorder.db, book

    @activity.defn
    async def settle_round(self, question: GovernanceInput) -> RoundAnswer:
        """Stages 6 to 8 of a round, and 5 where nothing stresses, in one transaction: they only touch Postgres."""
        ref = question.ref
        async with self._db.workspace(ref.workspace_id) as session:
            mission = await running.load(session, ref.workspace_id, ref.mission_id)
            if mission.ended_at is not None:
                raise MissionControlError("mission_ended", "the mission was closed from outside: it asks no more")
            known = StageInput(ref=ref, base_sha=question.base_sha, head_sha=question.head_sha)
            for task in facts_before(known, stressed=question.stressed):
                result = await record_fact(self._recorder, session, mission, task)
                if result.failed:
                    return RoundAnswer(failed_stage=task.ref.stage, reason=result.reason)
            answer = await self._ask(session, question, mission)
            may_merge = answer.status is DecisionStatus.APPROVED and mission.merge_sha is None  # a late try may not
            token = await _take_slot(session, mission) if may_merge else None
            return RoundAnswer(answer=answer, slot_token=token)

    @activity.defn
    async def settle(self, asked: DecisionRef) -> GovernanceAnswer:
        """Read the answer, letting one whose time is over expire; a final one is recorded and acknowledged."""
        ref = asked.ref
        async with self._db.workspace(ref.workspace_id) as session:
            # The mission first, as whoever closes it takes it before its questions.
            mission = await running.load(session, ref.workspace_id, ref.mission_id, for_update=True)
            actor = Actor(POLICY, mission.correlation_id)
            decision = await governance.expire(session, ref.workspace_id, asked.decision_id, actor)
            assert decision is not None  # noqa: S101  # the workflow has its id from us
            answer, given = await _read(session, decision)
            if answer.status is not DecisionStatus.PENDING:
                await governance.acknowledge(session, ref.workspace_id, asked.decision_id)
                await self._record(session, ref, _verdict(decision, answer, given))
            return answer

    @activity.defn
    async def ask_about_rollback(self, asked: DecisionRef) -> GovernanceAnswer:
        """Ask a human about a merge that cannot be taken back by itself: approve tries again, deny leaves it.

        Stage 11 has begun, and waits for the answer.
        """
        ref = asked.ref
        async with self._db.workspace(ref.workspace_id) as session:
            record = await stages.begin(session, ref, activity.info().attempt)
            mission = await running.load(session, ref.workspace_id, ref.mission_id)
            actor = Actor(stages.WORKER, mission.correlation_id)
            known = await governance.grounds(session, ref, mission, StageName.OBSERVE)
            [observed] = known.found
            context = self._place(session, mission, known, {"conflict": asked.detail})
            act = Act(action=FORCE_ROLLBACK, principal=known.agent or _WORKER, context=context)
            name = governance.decision_id(ref, ROLLBACK, asked.repeat)
            judged, law = await self._book.judge(session, ref.workspace_id, act, name, ref.mission_id)
            # Whatever the policy says, only a human knows what is to become of such a merge.
            verdict = judged.model_copy(update={"outcome": Outcome.ASK, "reasons": (*judged.reasons, asked.detail)})
            shown = {"approve": "try the rollback again", "deny": "leave the merge", "merge_sha": mission.merge_sha}
            # Whoever cancels a merged mission, or told of what went wrong with it, wants its merge taken back.
            acted = [*known.filers, asked.started_by, asked.canceled_by, *observed.get("told_by", ())]
            terms = await _terms(session, ref, mission, verdict, law.policy.resolvers(ROLLBACK), acted)
            matter = Matter(ref, ROLLBACK, verdict, shown, terms, repeat=asked.repeat)
            decision = await governance.ask(session, matter, actor)
            answer, _ = await _read(session, decision)
            if answer.status is DecisionStatus.PENDING:
                await stages.wait_for_decision(session, record, decision.decision_id)
            return answer

    async def _ask(self, session: AsyncSession, question: GovernanceInput, mission: Mission) -> GovernanceAnswer:
        """Judge the merge, and put it to a human where the verdict says so; asking twice puts one question."""
        ref = question.ref
        record = await stages.begin(session, ref, activity.info().attempt)
        if record.ended_at is not None:
            return GovernanceAnswer.model_validate(record.result["answer"])
        known = await governance.grounds(session, ref, mission, *_TELLING)
        act, shown = self._act(session, question, mission, known)
        name = governance.decision_id(ref, GOVERNANCE)
        found, law = await self._book.judge(session, ref.workspace_id, act, name, ref.mission_id)
        wanted = TrustRequirements.model_validate(mission.trust_requirements)
        branch = mission.branch if mission.chosen_branch else ""
        judged = demanded(found, wanted.memory_write_scope, wanted.requires_governance_approval, branch)
        binding = _binding(question, judged, law)
        verdict = await _rest(session, question, judged, binding, shown)
        bound = binding.model_copy(update={"reasons": verdict.reasons})
        acted = [*known.filers, question.started_by]
        terms = await _terms(session, ref, mission, verdict, law.policy.resolvers(GOVERNANCE), acted)
        matter = Matter(ref, GOVERNANCE, verdict, shown, terms, bound, _expiry(mission))
        decision = await governance.ask(session, matter, Actor(stages.WORKER, mission.correlation_id))
        answer, given = await _read(session, decision)
        if answer.status is DecisionStatus.PENDING:
            await stages.wait_for_decision(session, record, decision.decision_id)
        else:
            if decision.acknowledged_at is None:  # somebody answered before this was asked again
                await governance.acknowledge(session, ref.workspace_id, decision.decision_id)
            await self._recorder.close_in(session, record, _verdict(decision, answer, given), None)
        return answer

    async def _record(self, session: AsyncSession, ref: StageRef, verdict: Verdict) -> None:
        """End stage 8 with its answer; stage 11, which asks about a rollback, goes on with it."""
        record = await stages.begin(session, ref, activity.info().attempt)
        if record.ended_at is None and ref.stage is StageName.GOVERNANCE:
            await self._recorder.close_in(session, record, verdict, None)

    def _act(
        self, session: AsyncSession, question: GovernanceInput, mission: Mission, known: Grounds
    ) -> tuple[Act, dict[str, Any]]:
        """Say what the verdict depends on, and what a human is shown, by the records of the earlier stages."""
        details, tests, scan = known.found
        touched = TouchedLaw.model_validate(details.get("touched", {}))
        wanted, files = TrustRequirements.model_validate(mission.trust_requirements), details.get("files", [])
        facts: dict[str, Fact] = {
            "requires_governance_approval": wanted.requires_governance_approval,
            "touches_config": touched.config,
            "ci_files": touched.ci,
            "existing_tests": touched.existing_tests,
            "judges": touched.judges,
            "gone_tests": tuple(tests.get("excused", ())),
            "medium_findings": int(scan.get("medium", 0)),
            "overrides": tuple(sorted(mission.overrides)),
            "chosen_branch": mission.branch if mission.chosen_branch else "",
        }
        context = self._place(session, mission, known, facts).model_copy(update=_paths(details))
        act = Act(action=MERGE, principal=known.agent or _WORKER, context=context)
        shown = {
            "base_sha": question.base_sha,
            "head_sha": question.head_sha,
            "diff": details.get("diff"),
            "files": files,
            "overrides": mission.overrides,
            "facts": facts | {"protected": mission.protected, "env": mission.env},
            "usd": written(context.usd or Decimal(0)),
        }
        return act, shown

    def _place(
        self,
        session: AsyncSession,
        mission: Mission,
        known: Grounds,
        facts: dict[str, Fact],
    ) -> Context:
        """Say where it is done, and what the mission has cost by now of what its caps leave (POL-06)."""
        price = self._recorder.second(clock(session).now.date()) or Decimal(0)
        return Context(
            env=mission.env,
            protected=mission.protected,
            usd=round(known.seconds * price, SCALE),
            usd_left=known.usd_left,
            facts=facts | {"mission_id": mission.mission_id, "filed_by": mission.created_by},
        )


async def _take_slot(session: AsyncSession, mission: Mission) -> int | None:
    """Take the merge slot where it is free and nobody waits; else the mission asks the branch's queue."""
    info = activity.info()
    queue = QueueRef(workspace_id=mission.workspace_id, repository_id=mission.repository_id, branch=mission.branch)
    run = SlotRelease(workflow_id=info.workflow_id or "", run_id=info.workflow_run_id or "")
    return await merge_slots.claim(session, queue, run)


async def _rest(
    session: AsyncSession, question: GovernanceInput, judged: Judged, binding: Binding, shown: dict[str, Any]
) -> Judged:
    """Let an equal binding keep an earlier approval; `shown` says which, or why it does not stand."""
    ref, approved = question.ref, question.approved
    if not (judged.asks and approved):
        return judged
    earlier = await governance.approval(session, ref.workspace_id, ref.mission_id, approved)
    if earlier is None:
        return judged
    given = await decisions.given(session, earlier)
    if differences := approved.differences(binding):
        shown["asked_again"] = asked_again(earlier.decision_id, given, differences)
        return judged
    shown["rests_on"] = {"decision_id": earlier.decision_id, "resolved_by": earlier.resolved_by, "answers": given}
    reasons = (*judged.reasons, stands(shown["rests_on"]))
    return judged.model_copy(update={"outcome": Outcome.ALLOW, "reasons": reasons})


async def _terms(
    session: AsyncSession,
    ref: StageRef,
    mission: Mission,
    verdict: Judged,
    resolvers: Resolvers,
    acted: Sequence[str],
) -> Terms:
    """Say who may answer. Who acted, is assigned, wrote or brought the change asks for it, whoever puts it."""
    named = [mission.assigned_to or ""]
    if verdict.asks and (given := await governance.candidate(session, ref)):
        acted, named = [*acted, given.added_by], [*named, given.author]
    return Terms.of(verdict.ask, resolvers, verdict.risk, acted, named)


def _paths(details: Mapping[str, Any]) -> dict[str, Any]:
    """Name what a change touches; a patch that an older version recorded has but the files that are shown of it."""
    if "paths" in details:
        return {"paths": tuple(details["paths"]), "more_paths": details["more_paths"]}
    files = details.get("files", ())
    names = (name for file in files for name in (file.get("old_path"), file["path"]) if name)
    return {"paths": tuple(dict.fromkeys(names)), "more_paths": len(files) >= MAX_FILES_SHOWN}


def _binding(question: GovernanceInput, judged: Judged, law: InForce) -> Binding:
    return Binding(
        patch_id=question.patch_id,
        config_hash=question.config_hash,
        policy_version=str(law.version),
        reasons=judged.reasons,
        rules=judged.rules,
    )


def _expiry(mission: Mission) -> timedelta | None:
    minutes = mission.approval_timeout_minutes
    return timedelta(minutes=minutes) if minutes is not None else None


async def _read(session: AsyncSession, decision: Decision) -> tuple[GovernanceAnswer, Given]:
    """Read how a decision stands, and once it has ended all who answered it."""
    status = DecisionStatus(decision.status)
    given = await decisions.given(session, decision) if status is not DecisionStatus.PENDING else []
    answer = GovernanceAnswer(
        decision_id=decision.decision_id,
        status=status,
        reason=reason(decision, given),
        expires_at=decision.expires_at if status is DecisionStatus.PENDING else None,
        binding=Binding.model_validate(decision.binding) if _binds(decision) else None,
    )
    return answer, given


def _binds(decision: Decision) -> bool:
    """Whether a later round may rest on it: only on what a human saw, never on what the policy let pass."""
    return bool(decision.binding) and decision.resolved_by not in (None, POLICY)


def _verdict(decision: Decision, answer: GovernanceAnswer, given: Given) -> Verdict:
    earlier = decision.question.get("rests_on")
    return Verdict(
        answer,
        _RECORDED.get(answer.status, StageStatus.FAILED),
        answer.reason,
        details={
            "decision_id": decision.decision_id,
            "risk": decision.risk,
            "reasons": decision.reasons,
            "resolved_by": decision.resolved_by,
            **({"rests_on": earlier["decision_id"]} if earlier else {}),
            **({"answers": given} if given else {}),
        },
        inputs={"decision_id": decision.decision_id, "binding": decision.binding},
    )
