"""A mission's side of the merge queue: ask for the slot, hold it for a block, give it back however the block ends."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.merge_queue import MergeQueueActivities
    from models.contracts.merge_queue import QueueRef, SlotRelease, SlotRequest
    from models.domain.ids import merge_queue_workflow_id
    from workflows.policies import CONTROL_CALL

from workflows.merge_queue import MergeQueueWorkflow
from workflows.mission import SlotYielded
from workflows.pipeline import Pipeline

ASK_AGAIN = timedelta(seconds=10)
ASK_AGAIN_AT_LAST = timedelta(minutes=10)
"""A queue that was ended by hand has forgotten who waits: ask again, at first soon, then ever more rarely."""

Send = Callable[[workflow.ExternalWorkflowHandle[MergeQueueWorkflow]], Awaitable[None]]


@asynccontextmanager
async def merge_slot(mission: Pipeline) -> AsyncIterator[None]:
    """Hold the slot of the mission's branch for a block.

    Raises:
        SlotYielded: a pause ended the wait.
        MissionEnds: a cancel did.
    """
    try:
        await _ask_until_granted(mission)
        mission.leave_if_canceled()
        if mission.grant is None:
            raise SlotYielded
        mission.in_slot = True
        yield
    except Exception:  # and no other: when the worker lets go of the workflow, there is nobody to tell
        await _give_back(mission)
        raise
    await _give_back(mission)


async def _ask_until_granted(mission: Pipeline) -> None:
    """Ask; return when the slot is ours, or no longer wanted."""
    mission.grant = None
    mission.slot_number += 1
    request, patience = _request(mission), ASK_AGAIN
    while True:
        await _tell(mission, lambda queue: queue.signal(MergeQueueWorkflow.request_slot, request))
        try:
            return await mission.wait_until(
                lambda: mission.grant is not None or mission.is_paused or mission.wants_out, patience
            )
        except TimeoutError:
            patience = min(2 * patience, ASK_AGAIN_AT_LAST)


async def _give_back(mission: Pipeline) -> None:
    mission.grant, mission.in_slot = None, False
    info = workflow.info()
    release = SlotRelease(workflow_id=info.workflow_id, run_id=info.run_id)
    await _tell(mission, lambda queue: queue.signal(MergeQueueWorkflow.release_slot, release))


async def _tell(mission: Pipeline, send: Send) -> None:
    """Signal the queue; when it does not run (never started, or ended by hand), start it and signal again."""
    queue = QueueRef(repository_id=mission.context.repository_id, branch=mission.context.branch)
    name = merge_queue_workflow_id(queue.repository_id, queue.branch)
    while True:
        try:
            return await send(workflow.get_external_workflow_handle_for(MergeQueueWorkflow.run, name))
        except ApplicationError:
            await workflow.execute_activity_method(MergeQueueActivities.ensure_queue, queue, **CONTROL_CALL)


def _request(mission: Pipeline) -> SlotRequest:
    info, context = workflow.info(), mission.context
    return SlotRequest(
        workflow_id=info.workflow_id,
        run_id=info.run_id,
        number=mission.slot_number,
        rank=context.severity.rank,
        created_at=context.created_at or info.start_time,
    )
