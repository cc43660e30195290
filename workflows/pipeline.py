"""A coding mission's place in its story, and how its stages are called: on its host, or as short local activities."""

from collections.abc import Callable
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, TimeoutError, TimeoutType
from temporalio.types import MethodAsyncSingleParam
from temporalio.workflow import ActivityConfig

with workflow.unsafe.imports_passed_through():
    from activities.context import ContextActivities
    from models.contracts.controls import MissionSnapshot
    from models.contracts.pipeline import (
        CloseInput,
        MergeResult,
        PipelineContext,
        PipelineInput,
        RollbackCheck,
        StageInput,
        StageRef,
        StageResult,
        StageTask,
    )
    from models.domain.approval import Binding
    from models.domain.stages import StageName, StageStatus
    from models.domain.states import MissionOutcome
    from workflows.policies import host_git, shared_git

from workflows.mission import Mission, MissionEnds

P = TypeVar("P", bound=StageTask)
R = TypeVar("R")


class Pipeline(Mission):
    """What the stages of one mission share. `round` counts how often the target branch moved under it."""

    def __init__(self, start: PipelineInput) -> None:
        super().__init__(start)
        self.context = PipelineContext(status=StageStatus.RUNNING)
        self.host = ""
        self.round = self.candidate = 0
        self.base_sha = self.head_sha = self.patch_id = ""
        self.approved: Binding | None = None
        self.approved_round = -1
        self.decision_id = ""
        self.bench_closed = False
        self.revert_sha = ""
        self.check: RollbackCheck | None = None
        self.outcome: MissionOutcome | None = None

    async def on_host(
        self,
        method: MethodAsyncSingleParam[Any, P, R],
        task: P,
        policy: Callable[[str], ActivityConfig] = host_git,
        *,
        stoppable: bool = True,
    ) -> R:
        """Do a stage on the mission's host, as a step that an operator may stop."""
        self.stage = task.ref.stage
        return await self.step(lambda: self.with_host(method, task, policy), stoppable=stoppable)

    async def with_host(
        self, method: MethodAsyncSingleParam[Any, P, R], task: P, policy: Callable[[str], ActivityConfig]
    ) -> R:
        """Call an activity on the mission's host; when that host is gone, another takes the mission over."""
        while True:
            try:
                return await workflow.execute_activity_method(method, task, **policy(self.host))
            except ActivityError as error:
                if not _nobody_answers(error):
                    raise
            taken = await workflow.execute_activity_method(ContextActivities.take_over, self.bench(), **shared_git())
            self.host = taken.name

    def require(self, result: StageResult | MergeResult) -> None:
        """End the mission when its own work did not pass."""
        if result.status is StageStatus.FAILED:
            raise MissionEnds(MissionOutcome.FAILED, result.reason, self.stage)

    def ref(self, stage: StageName) -> StageRef:
        """Name this round's run of a stage."""
        return StageRef(
            workspace_id=self.start.workspace_id,
            mission_id=self.start.mission_id,
            stage=stage,
            round=self.round,
            candidate=self.candidate,
        )

    def task(self, stage: StageName) -> StageInput:
        """Ask for a stage on the present base and the mission's commit."""
        return StageInput(ref=self.ref(stage), base_sha=self.base_sha, head_sha=self.head_sha, merge_sha=self.merge_sha)

    def bench(self) -> CloseInput:
        """Name the mission's workbench."""
        return CloseInput(workspace_id=self.start.workspace_id, mission_id=self.start.mission_id)

    @workflow.query
    def snapshot(self) -> MissionSnapshot:
        """Show where the mission stands."""
        return MissionSnapshot(
            stage=self.stage,
            round=self.round,
            candidate=self.candidate,
            paused=self.is_held,
            canceling=self.canceled is not None,
            merge_sha=self.merge_sha,
            decision_id=self.decision_id,
            outcome=self.outcome,
            notes=self.notes,
        )


def _nobody_answers(error: ActivityError) -> bool:
    return isinstance(error.cause, TimeoutError) and error.cause.type is TimeoutType.SCHEDULE_TO_START
