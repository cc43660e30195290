"""What a merge queue asks of the world: to exist, and whether a holder still lives."""

from collections.abc import Awaitable, Callable
from typing import Any

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError, RPCStatusCode

from activities.heartbeats import heartbeating
from models.contracts.merge_queue import MergeQueueState, QueueRef, SlotRequest
from models.contracts.pipeline import TASK_TIMEOUT
from models.domain.ids import merge_queue_workflow_id
from models.store import workbenches
from models.store.database import Database

QueueRun = Callable[[Any, MergeQueueState], Awaitable[None]]
"""The queue workflow's run method: handed in, because activities sit below workflows."""


class MergeQueueActivities:
    """Talks to Temporal on behalf of queues and missions."""

    def __init__(self, db: Database, client: Client, queue_run: QueueRun, task_queue: str) -> None:
        self._db, self._client, self._queue_run, self._task_queue = db, client, queue_run, task_queue

    @activity.defn
    async def ensure_queue(self, queue: QueueRef) -> None:
        """Start the queue's workflow unless it runs; a new one's tokens are above all that an earlier one gave out."""
        async with heartbeating():
            async with self._db.system() as session:
                token = await workbenches.first_token(session)
            await self._client.start_workflow(
                self._queue_run,
                MergeQueueState(token=token),
                id=merge_queue_workflow_id(queue.repository_id, queue.branch),
                task_queue=self._task_queue,
                task_timeout=TASK_TIMEOUT,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                static_summary=f"Merge queue of {queue.branch}",
            )

    @activity.defn
    async def has_ended(self, holder: SlotRequest) -> bool:
        """Tell whether a slot's holder is closed or gone."""
        async with heartbeating():
            try:
                handle = self._client.get_workflow_handle(holder.workflow_id, run_id=holder.run_id)
                return (await handle.describe()).status is not WorkflowExecutionStatus.RUNNING
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return True
                raise
