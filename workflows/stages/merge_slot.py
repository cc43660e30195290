"""A mission's side of the merge queue: ask for the slot, hold it for a block, give it back however the block ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.merge_queue import MergeQueueActivities
    from models.contracts.merge_queue import QueueRef, SlotAsk, SlotGrant, SlotRelease, SlotRequest, SlotReturn
    from workflows.policies import RECORD

from workflows.mission import SlotYielded
from workflows.pipeline import Pipeline

ASK_AGAIN = timedelta(seconds=10)
ASK_AGAIN_AT_LAST = timedelta(minutes=10)
"""A queue that was ended by hand has forgotten who waits, and a grant may be refused as any signal: ask again, at first
soon, then ever more rarely."""


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
        await _leave(mission)
        raise
    await _leave(mission)


async def _ask_until_granted(mission: Pipeline) -> None:
    """Ask, unless stage 8 took a free slot already; return when the slot is ours, or no longer wanted."""
    mission.grant, mission.taken = mission.taken, None
    if mission.grant is not None:
        return
    mission.slot_number += 1
    ask, patience = SlotAsk(queue=_queue(mission), request=_request(mission)), ASK_AGAIN
    while True:
        token = await workflow.execute_local_activity_method(MergeQueueActivities.request_slot, ask, **RECORD)
        if token is not None:
            mission.grant = SlotGrant(number=mission.slot_number, token=token)
            return
        try:
            return await mission.wait_until(
                lambda: mission.grant is not None or mission.is_held or mission.wants_out, patience
            )
        except TimeoutError:
            ask, patience = ask.model_copy(update={"again": True}), min(2 * patience, ASK_AGAIN_AT_LAST)


async def _leave(mission: Pipeline) -> None:
    waited = mission.grant is None
    mission.grant, mission.in_slot = None, False
    await give_back(mission, waited=waited)


async def give_back(mission: Pipeline, *, waited: bool) -> None:
    """Say that the mission holds the slot no more, nor waits for it."""
    info = workflow.info()
    release = SlotRelease(workflow_id=info.workflow_id, run_id=info.run_id)
    back = SlotReturn(queue=_queue(mission), release=release, waited=waited)
    await workflow.execute_local_activity_method(MergeQueueActivities.release_slot, back, **RECORD)


def _queue(mission: Pipeline) -> QueueRef:
    """Name the queue of the mission's branch."""
    where = mission.context
    return QueueRef(workspace_id=mission.start.workspace_id, repository_id=where.repository_id, branch=where.branch)


def _request(mission: Pipeline) -> SlotRequest:
    info, context = workflow.info(), mission.context
    return SlotRequest(
        workflow_id=info.workflow_id,
        run_id=info.run_id,
        number=mission.slot_number,
        rank=context.severity.rank,
        created_at=context.created_at or info.start_time,
    )
