"""A mission's side of the merge queue: ask for the slot, hold it for a block, give it back however the block ends."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from types import TracebackType

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.merge_queue import MergeQueueActivities
    from models.contracts.merge_queue import QueueRef, SlotRelease, SlotRequest
    from models.domain.ids import merge_queue_workflow_id
    from workflows.policies import CONTROL_CALL

from workflows.merge_queue import MergeQueueWorkflow
from workflows.mission import Mission

QueueHandle = workflow.ExternalWorkflowHandle[MergeQueueWorkflow]


class MergeSlot:
    """One request for the slot. The grant comes to the mission as a signal, and is void when the block ends."""

    def __init__(self, mission: Mission, queue: QueueRef, rank: int, created_at: datetime) -> None:
        info = workflow.info()
        self._mission = mission
        self._queue = queue
        self._request = SlotRequest(workflow_id=info.workflow_id, run_id=info.run_id, rank=rank, created_at=created_at)

    async def __aenter__(self) -> None:
        self._mission.grant = None
        await self._tell(lambda queue: queue.signal(MergeQueueWorkflow.request_slot, self._request))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mission.grant, self._mission.in_slot = None, False
        release = SlotRelease(workflow_id=self._request.workflow_id, run_id=self._request.run_id)
        await self._tell(lambda queue: queue.signal(MergeQueueWorkflow.release_slot, release))

    async def _tell(self, send: Callable[[QueueHandle], Awaitable[None]]) -> None:
        """Signal the queue; when it does not run (never started, or ended by hand), start it and signal again."""
        name = merge_queue_workflow_id(self._queue.repository_id, self._queue.branch)
        while True:
            try:
                return await send(workflow.get_external_workflow_handle_for(MergeQueueWorkflow.run, name))
            except ApplicationError:
                await workflow.execute_activity_method(MergeQueueActivities.ensure_queue, self._queue, **CONTROL_CALL)
