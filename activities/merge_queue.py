"""What missions and merge queues say to each other, and whether a slot's holder still lives.

A signal that an activity sends costs Temporal half of what a workflow's own costs: nothing is carried from one history
to another, and no workflow task is spent on hearing of its delivery. Each may be sent twice, and says the same again.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, NamedTuple

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError, RPCStatusCode

from activities.heartbeats import heartbeating
from models.contracts.merge_queue import (
    MergeQueueState,
    QueueRef,
    SlotAsk,
    SlotGrant,
    SlotOffer,
    SlotOutcome,
    SlotRelease,
    SlotRequest,
    SlotReturn,
)
from models.contracts.pipeline import TASK_TIMEOUT
from models.domain.ids import merge_queue_workflow_id
from models.store import merge_slots
from models.store.database import Database

RPC_TIMEOUT = timedelta(seconds=5)


class Doors(NamedTuple):
    """The workflows' own methods, handed in because activities sit below workflows."""

    run_queue: Callable[[Any, MergeQueueState], Awaitable[None]]
    request_slot: Callable[[Any, SlotRequest], Awaitable[None] | None]
    release_slot: Callable[[Any, SlotRelease], Awaitable[None] | None]
    slot_granted: Callable[[Any, SlotGrant], Awaitable[None] | None]


class MergeQueueActivities:
    """Talks to Temporal on behalf of queues and missions."""

    def __init__(self, db: Database, client: Client, doors: Doors, task_queue: str) -> None:
        self._db, self._client, self._doors, self._task_queue = db, client, doors, task_queue

    @activity.defn
    async def request_slot(self, ask: SlotAsk) -> int | None:
        """Queue a mission up; a queue that does not run (never started, or ended by hand) is started.

        The token of who asks again, where it has the slot and could not be told.
        """
        if ask.again and (token := await self._token(ask)) is not None:
            return token
        if not await self._signal(_name(ask.queue), None, self._doors.request_slot, ask.request):
            await self._start(ask.queue)
            await self._signal(_name(ask.queue), None, self._doors.request_slot, ask.request)
        return None

    async def _token(self, ask: SlotAsk) -> int | None:
        async with self._db.workspace(ask.queue.workspace_id) as session:
            return await merge_slots.held(session, ask.queue, ask.request)

    @activity.defn
    async def release_slot(self, back: SlotReturn) -> None:
        """Give the slot back, or leave the queue, which hears of it where it may be waiting for that."""
        is_awaited = await merge_slots.release(self._db, back.queue, back.release)
        if is_awaited or back.waited:
            await self._signal(_name(back.queue), None, self._doors.release_slot, back.release)

    @activity.defn
    async def offer_slot(self, offer: SlotOffer) -> SlotOutcome:
        """Give the slot to who is next and tell the mission, unless another holds it."""
        if offer.to is None:
            async with self._db.workspace(offer.queue.workspace_id) as session:
                await merge_slots.settle(session, offer.queue, offer.left)
            return SlotOutcome()
        async with self._db.workspace(offer.queue.workspace_id) as session:
            holder, token = await merge_slots.grant(session, offer.queue, offer.to, offer.left)
        return await self._tell(offer, offer.to, token) if holder.same(offer.to) else SlotOutcome(held=holder)

    async def _tell(self, offer: SlotOffer, to: SlotRequest, token: int) -> SlotOutcome:
        grant = SlotGrant(number=to.number, token=token)
        try:
            is_told = await self._signal(to.workflow_id, to.run_id, self._doors.slot_granted, grant)
        except RPCError as error:
            if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                raise
            is_told = True  # it takes no more signals, and finds that it has the slot when it asks again
        if is_told:
            return SlotOutcome()
        await merge_slots.release(self._db, offer.queue, to)
        return SlotOutcome(gone=True)

    @activity.defn
    async def has_ended(self, holder: SlotRelease) -> bool:
        """Tell whether a slot's holder is closed or gone."""
        async with heartbeating():
            try:
                handle = self._client.get_workflow_handle(holder.workflow_id, run_id=holder.run_id)
                return (await handle.describe()).status is not WorkflowExecutionStatus.RUNNING
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return True
                raise

    async def _signal(self, workflow_id: str, run_id: str | None, signal: Any, message: Any) -> bool:
        """Send a signal; false when nobody is there to hear it."""
        try:
            handle = self._client.get_workflow_handle(workflow_id, run_id=run_id)
            await handle.signal(signal, message, rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True

    async def _start(self, queue: QueueRef) -> None:
        """Start a queue unless it runs."""
        await self._client.start_workflow(
            self._doors.run_queue,
            MergeQueueState(queue=queue),
            id=_name(queue),
            task_queue=self._task_queue,
            task_timeout=TASK_TIMEOUT,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            static_summary=f"Merge queue of {queue.branch}",
            rpc_timeout=RPC_TIMEOUT,
        )


def _name(queue: QueueRef) -> str:
    return merge_queue_workflow_id(queue.repository_id, queue.branch)
