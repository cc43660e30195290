"""The coding pipeline: a mission's eleven stages, from the state of the world to a change merged, watched and provable.

Id: `mission/<workspace>/<mission>`; messages: see `workflows.mission`. The workflow holds order and waiting only. An
activity does a stage and records it; short stages that only touch Postgres ride as local activities.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, TimeoutError, TimeoutType, is_cancelled_exception
from temporalio.types import MethodAsyncSingleParam
from temporalio.workflow import ActivityConfig

with workflow.unsafe.imports_passed_through():
    from activities.code import CodeActivities
    from activities.context import ContextActivities
    from activities.governance import GovernanceActivities
    from activities.merging import MergeActivities
    from activities.observing import ObservationActivities
    from activities.records import RecordActivities
    from activities.scanning import ScanActivities
    from activities.testing import TestingActivities
    from models.contracts.controls import MissionSnapshot
    from models.contracts.merge_queue import QueueRef
    from models.contracts.pipeline import (
        CloseInput,
        Conclusion,
        DecisionRef,
        GovernanceAnswer,
        GovernanceInput,
        MergeInput,
        MergeResult,
        ObserveInput,
        ObserveResult,
        PipelineContext,
        PipelineInput,
        StageInput,
        StageRef,
        StageResult,
    )
    from models.domain.approval import Binding
    from models.domain.stages import StageName, StageStatus
    from models.domain.states import DecisionStatus, MissionOutcome
    from workflows.policies import RECORD, host_commands, host_git, shared_git

import builtins

from workflows.merge_slot import MergeSlot
from workflows.mission import Mission, MissionEnds, SlotYielded

P = TypeVar("P")
R = TypeVar("R")

_ENDINGS = {
    DecisionStatus.DENIED: MissionOutcome.DENIED,
    DecisionStatus.EXPIRED: MissionOutcome.EXPIRED,
    DecisionStatus.CANCELED: MissionOutcome.CANCELED,
}


@workflow.defn
class CodingPipelineWorkflow(Mission):
    """One mission that patches code."""

    @workflow.init
    def __init__(self, start: PipelineInput) -> None:
        super().__init__(start)
        self._context = PipelineContext(status=StageStatus.RUNNING)
        self._host = ""
        self._round = 0
        self._cleared = -1
        self._candidate = 0
        self._base_sha = self._head_sha = self._patch_id = ""
        self._approved: Binding | None = None
        self._decision_id = ""
        self._revert_sha = ""
        self._outcome: MissionOutcome | None = None

    @workflow.run
    async def run(self, start: PipelineInput) -> MissionOutcome:
        """Tell the story; whatever ends it early is recorded by stage 11, and a merge that must go is taken back."""
        try:
            await self._pursue()
            end = MissionEnds(MissionOutcome.MERGED, "", capa=False)
        except MissionEnds as early:
            end = early
        except (FailureError, asyncio.CancelledError) as error:
            end = self._unforeseen(error)
        return await self._close(end)

    async def _pursue(self) -> None:
        await self._look()
        await self._prove()
        await self._approve()
        await self._merge()
        await self._observe()
        await self.hold()

    # Stages 1 to 7

    async def _look(self) -> None:
        self.stage = StageName.FETCH_CONTEXT
        self._context = await self.step(
            lambda: workflow.execute_activity_method(
                ContextActivities.fetch_context, self._task(StageName.FETCH_CONTEXT), **shared_git()
            )
        )
        if self._context.status is StageStatus.FAILED:
            raise MissionEnds(MissionOutcome.FAILED, self._context.reason, StageName.FETCH_CONTEXT)
        self._base_sha, self._host = self._context.base_sha, self._context.host_queue

    async def _prove(self) -> None:
        """Show on the present base that a candidate does what it should; again, with that one, when the base moved."""
        self._require(await self._on_host(CodeActivities.pull_code, self._task(StageName.PULL_CODE)))
        await self._choose_candidate()
        self._require(await self._locally(RecordActivities.publish_diagnostics, StageName.PUBLISH_DIAGNOSTICS))
        self._require(await self._locally(RecordActivities.collect_metrics, StageName.COLLECT_METRICS))

    async def _choose_candidate(self) -> None:
        numbers = range(self._context.candidates) if self._round == 0 else [self._candidate]
        failure: StageResult | None = None
        for self._candidate in numbers:
            failure = await self._try_candidate()
            if failure is None:
                return
        reason = failure.reason if failure else "the mission has no candidate"
        raise MissionEnds(MissionOutcome.FAILED, reason, self.stage)

    async def _try_candidate(self) -> StageResult | None:
        """Patch, test, scan and stress one candidate; return the first failure."""
        patched = await self._on_host(CodeActivities.branch_and_patch, self._task(StageName.BRANCH_AND_PATCH))
        if patched.failed:
            return patched
        self._head_sha, self._patch_id = patched.head_sha, patched.patch_id
        tested = await self._on_host(TestingActivities.run_tests, self._task(StageName.RUN_TESTS), host_commands)
        if tested.failed:
            return tested
        scanned = await self._on_host(ScanActivities.security_scan, self._task(StageName.SECURITY_SCAN), host_commands)
        if scanned.failed:
            return scanned
        stressed = await self._stress()
        return stressed if stressed.failed else None

    async def _stress(self) -> StageResult:
        if not self._context.has_stress:
            return await self._locally(RecordActivities.skip_stress, StageName.STRESS_TESTS)
        return await self._on_host(TestingActivities.stress_tests, self._task(StageName.STRESS_TESTS), host_commands)

    # Stage 8

    async def _approve(self) -> None:
        """Pass when policy or a human approves; a wait costs nothing and survives everything."""
        answer = await self._ask()
        while answer.status is DecisionStatus.PENDING:
            await self._wait_for(answer)
            answer = await self._settle(answer.decision_id)
        if answer.status is not DecisionStatus.APPROVED:
            raise MissionEnds(_ENDINGS[answer.status], answer.reason, StageName.GOVERNANCE)
        self._approved, self._decision_id, self._cleared = answer.binding, "", self._round

    async def _ask(self) -> GovernanceAnswer:
        self.stage = StageName.GOVERNANCE
        question = GovernanceInput(
            ref=self._ref(StageName.GOVERNANCE),
            base_sha=self._base_sha,
            head_sha=self._head_sha,
            patch_id=self._patch_id,
            config_hash=self._context.config_hash,
            approved=self._approved,
        )
        answer = await self.step(
            lambda: workflow.execute_local_activity_method(GovernanceActivities.ask, question, **RECORD)
        )
        self._decision_id = answer.decision_id
        return answer

    async def _wait_for(self, answer: GovernanceAnswer) -> None:
        timeout = None
        if answer.expires_at is not None:
            # The database's clock decides whether it is over; the timer only wakes us.
            timeout = max(answer.expires_at - workflow.now(), timedelta(seconds=1))
        try:
            await workflow.wait_condition(
                lambda: answer.decision_id in self.answered or self.canceled is not None, timeout=timeout
            )
        except builtins.TimeoutError:
            return
        self.leave_if_canceled()

    async def _settle(self, decision_id: str) -> GovernanceAnswer:
        decision = DecisionRef(ref=self._ref(StageName.GOVERNANCE), decision_id=decision_id)
        self.answered.discard(decision_id)
        return await workflow.execute_local_activity_method(GovernanceActivities.settle, decision, **RECORD)

    # Stage 9

    async def _merge(self) -> None:
        """Merge in the branch's slot; an approval that no longer holds is asked for outside it."""
        while not self.merge_sha:
            await self.hold()
            try:
                merged = await self._merge_in_slot()
            except SlotYielded:
                continue
            if not merged:
                await self._approve()

    async def _merge_in_slot(self) -> bool:
        async with self._slot():
            await self._wait_for_slot()
            while (result := await self._merge_cleared()).moved_to:
                self._base_sha, self._round = result.moved_to, self._round + 1
            if result.status is StageStatus.WAITING_DECISION:
                return False
            self._require(result, StageName.MERGE)
            self.merge_sha = result.merge_sha
            return True

    async def _wait_for_slot(self) -> None:
        await workflow.wait_condition(
            lambda: self.grant is not None or (not self.closing and (self.is_paused or self.canceled is not None))
        )
        self.leave_if_canceled()
        self.in_slot = True

    async def _merge_cleared(self) -> MergeResult:
        """Merge what this round's stages and approval stand for; on a moved branch they are done anew, in the slot."""
        if self._cleared != self._round:
            await self._prove()
            if (await self._ask()).status is not DecisionStatus.APPROVED:
                return MergeResult(status=StageStatus.WAITING_DECISION)
            self._cleared = self._round
        return await self._on_host(MergeActivities.merge, self._merge_input(StageName.MERGE), stoppable=False)

    def _slot(self) -> MergeSlot:
        created_at = self._context.created_at or workflow.info().start_time
        queue = QueueRef(repository_id=self._context.repository_id, branch=self._context.branch)
        return MergeSlot(self, queue, self._context.severity.rank, created_at)

    def _merge_input(self, stage: StageName) -> MergeInput:
        return MergeInput(
            ref=self._ref(stage),
            base_sha=self._base_sha,
            head_sha=self._head_sha,
            merge_sha=self.merge_sha,
            token=self.grant.token if self.grant else 0,
        )

    # Stage 10

    async def _observe(self) -> None:
        """Look at the world until the window ends, then test the merged branch once more."""
        self.stage = StageName.OBSERVE
        started = workflow.now()
        ends = started + timedelta(seconds=self._context.observation_seconds)
        look, number = ObserveResult(), 0
        while (left := (ends - workflow.now()).total_seconds()) > 0:
            await self._wait_between_looks(min(left, self._context.poll_seconds))
            number += 1
            look = await self._glance(self._observation(started, number, look))
            if look.anomaly:
                raise MissionEnds(MissionOutcome.ROLLED_BACK, look.anomaly, StageName.OBSERVE)
        last = self._observation(started, number + 1, look)
        finished = await self._on_host(ObservationActivities.finish, last, host_commands)
        if finished.failed:
            raise MissionEnds(MissionOutcome.ROLLED_BACK, finished.reason, StageName.OBSERVE)

    async def _wait_between_looks(self, seconds: float) -> None:
        try:
            await workflow.wait_condition(lambda: self.canceled is not None, timeout=timedelta(seconds=seconds))
        except builtins.TimeoutError:
            return
        self.leave_if_canceled()

    async def _glance(self, look: ObserveInput) -> ObserveResult:
        """Watching is harmless, so a pause does not stop it: it holds before stage 11."""
        if self._context.has_probe:
            return await self._with_host(ObservationActivities.probe, look, host_commands)
        return await workflow.execute_local_activity_method(ObservationActivities.look, look, **RECORD)

    def _observation(self, started: Any, number: int, before: ObserveResult) -> ObserveInput:
        return ObserveInput(
            ref=self._ref(StageName.OBSERVE),
            merge_sha=self.merge_sha,
            started_at=started,
            number=number,
            breaches=before.breaches,
        )

    # Stage 11

    async def _close(self, end: MissionEnds) -> MissionOutcome:
        """Take back what must go, give back what was held, and close the mission's row as the last act."""
        self.closing, self.is_paused = True, False
        if self.merge_sha and end.outcome in (MissionOutcome.ROLLED_BACK, MissionOutcome.FAILED):
            end = await self._roll_back(end)
        self.stage = StageName.RESOLVE
        await workflow.wait_condition(workflow.all_handlers_finished)
        await self._close_workbench()
        conclusion = Conclusion(
            ref=self._ref(StageName.RESOLVE),
            outcome=end.outcome,
            reason=end.reason,
            failed_stage=end.stage,
            merge_sha=self.merge_sha,
            revert_sha=self._revert_sha,
            capa=end.capa,
            decision_id=self._decision_id,
        )
        await workflow.execute_local_activity_method(RecordActivities.conclude, conclusion, **RECORD)
        self._outcome = end.outcome
        return end.outcome

    async def _roll_back(self, end: MissionEnds) -> MissionEnds:
        """Revert our merge; where others built on it, a human says when to try again or that it stays."""
        self.stage = StageName.RESOLVE
        tries = 0
        while (result := await self._try_roll_back()).conflict:
            tries += 1
            if not await self._ask_about_conflict(result.reason, tries):
                reason = f"{end.reason}; the merge stays: {result.reason}"
                return MissionEnds(MissionOutcome.FAILED, reason, end.stage)
        self._revert_sha = result.merge_sha
        verified = await self._with_host(ObservationActivities.verify_rollback, self._after_rollback(), host_commands)
        reason = f"{end.reason}; after the rollback: {verified.reason}" if verified.failed else end.reason
        return MissionEnds(MissionOutcome.ROLLED_BACK, reason, end.stage)

    async def _try_roll_back(self) -> MergeResult:
        async with self._slot():
            await self._wait_for_slot()
            return await self._with_host(MergeActivities.roll_back, self._merge_input(StageName.RESOLVE), host_git)

    def _after_rollback(self) -> StageInput:
        return self._task(StageName.RESOLVE).model_copy(update={"head_sha": self._revert_sha})

    async def _ask_about_conflict(self, reason: str, tries: int) -> bool:
        question = DecisionRef(ref=self._ref(StageName.RESOLVE), decision_id="", detail=reason, repeat=tries)
        answer = await workflow.execute_local_activity_method(
            GovernanceActivities.ask_about_rollback, question, **RECORD
        )
        self._decision_id = answer.decision_id
        while answer.status is DecisionStatus.PENDING:
            await self._hear(answer.decision_id)
            answer = await self._settle(answer.decision_id)
        self._decision_id = ""
        return answer.status is DecisionStatus.APPROVED

    async def _hear(self, decision_id: str) -> None:
        await workflow.wait_condition(lambda: decision_id in self.answered)

    async def _close_workbench(self) -> None:
        if not self._host:
            return
        task = CloseInput(workspace_id=self.start.workspace_id, mission_id=self.start.mission_id)
        try:
            await workflow.execute_activity_method(CodeActivities.close_workbench, task, **host_git(self._host))
        except ActivityError:
            workflow.logger.warning("the host is gone; its worktree is swept when it returns")

    def _unforeseen(self, error: BaseException) -> MissionEnds:
        """A cancel from Temporal's own tools keeps a merge; a part of ours that broke for good fails the mission."""
        if is_cancelled_exception(error):
            return MissionEnds(MissionOutcome.CANCELED, "canceled in Temporal", self.stage, capa=bool(self.merge_sha))
        cause = error.cause if isinstance(error, ActivityError) and error.cause else error
        return MissionEnds(MissionOutcome.FAILED, str(cause)[:2000], self.stage)

    # How activities are called

    async def _on_host(
        self,
        method: MethodAsyncSingleParam[Any, P, R],
        task: P,
        policy: Callable[[str], ActivityConfig] = host_git,
        *,
        stoppable: bool = True,
    ) -> R:
        """Do a stage on the mission's host, as a step that an operator may stop."""
        self.stage = task.ref.stage  # type: ignore[attr-defined]  # every task names its stage
        return await self.step(lambda: self._with_host(method, task, policy), stoppable=stoppable)

    async def _with_host(
        self, method: MethodAsyncSingleParam[Any, P, R], task: P, policy: Callable[[str], ActivityConfig]
    ) -> R:
        """Call an activity on the mission's host; when that host is gone, another takes the mission over."""
        while True:
            try:
                return await workflow.execute_activity_method(method, task, **policy(self._host))
            except ActivityError as error:
                if not _nobody_answers(error):
                    raise
            close = CloseInput(workspace_id=self.start.workspace_id, mission_id=self.start.mission_id)
            self._host = (
                await workflow.execute_activity_method(ContextActivities.take_over, close, **shared_git())
            ).name

    async def _locally(self, method: MethodAsyncSingleParam[Any, StageInput, R], stage: StageName) -> R:
        self.stage = stage
        task = self._task(stage)
        return await self.step(lambda: workflow.execute_local_activity_method(method, task, **RECORD), stoppable=False)

    def _require(self, result: StageResult | MergeResult, stage: StageName | None = None) -> None:
        if result.status is StageStatus.FAILED:
            raise MissionEnds(MissionOutcome.FAILED, result.reason, stage or self.stage)

    def _ref(self, stage: StageName) -> StageRef:
        return StageRef(
            workspace_id=self.start.workspace_id,
            mission_id=self.start.mission_id,
            stage=stage,
            round=self._round,
            candidate=self._candidate,
        )

    def _task(self, stage: StageName) -> StageInput:
        return StageInput(
            ref=self._ref(stage), base_sha=self._base_sha, head_sha=self._head_sha, merge_sha=self.merge_sha
        )

    @workflow.query
    def snapshot(self) -> MissionSnapshot:
        """Show where the mission stands."""
        return MissionSnapshot(
            stage=self.stage,
            round=self._round,
            candidate=self._candidate,
            paused=self.is_paused,
            canceling=self.canceled is not None,
            merge_sha=self.merge_sha,
            decision_id=self._decision_id,
            outcome=self._outcome,
            notes=self.notes,
        )


def _nobody_answers(error: ActivityError) -> bool:
    return isinstance(error.cause, TimeoutError) and error.cause.type is TimeoutType.SCHEDULE_TO_START
