"""Hands out the merge slot of one branch: by severity, then age, one at a time, and takes it back from the dead.

Id: `merge-queue/<repository>/<branch>`. Signals: request_slot, release_slot. Query: snapshot. It runs for ever and
continues as new between offers; while nobody waits it sets no timer and costs nothing. Who holds the slot stands in
Postgres: a mission that finds it free, and nobody waiting, takes it there and never comes here.
"""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.merge_queue import MergeQueueActivities
    from models.contracts.merge_queue import MergeQueueState, SlotRelease, SlotRequest
    from workflows.policies import CONTROL_CALL, RECORD

WATCH = timedelta(seconds=10)
"""How often a holder is looked after while others wait."""


@workflow.defn
class MergeQueueWorkflow:
    """The queue of one repository's branch. Its rules are pure and live in `MergeQueueState`."""

    @workflow.init
    def __init__(self, state: MergeQueueState) -> None:
        self._state = state

    @workflow.run
    async def run(self, state: MergeQueueState) -> None:
        """Offer, watch, and start afresh when the history has grown."""
        while not workflow.info().is_continue_as_new_suggested():
            await workflow.wait_condition(lambda: bool(self._state.waiting or self._state.left))
            if self._state.holder is None:
                await self._offer()
            else:
                await self._watch_holder(self._state.holder)
        workflow.continue_as_new(self._state)

    async def _offer(self) -> None:
        """Give the slot to the next one; Postgres says whether it is free. Where nobody waits, say so there."""
        offer = self._state.offer()
        outcome = await workflow.execute_local_activity_method(MergeQueueActivities.offer_slot, offer, **RECORD)
        self._state = self._state.offered(offer, outcome)

    async def _watch_holder(self, holder: SlotRelease) -> None:
        """Wait for the release; when it does not come, ask whether the holder still lives, and look for oneself."""
        try:
            await workflow.wait_condition(lambda: self._state.holder is not holder, timeout=WATCH)
        except TimeoutError:
            ended = await workflow.execute_activity_method(MergeQueueActivities.has_ended, holder, **CONTROL_CALL)
            self._state = self._state.release(holder) if ended else self._state.look_again()

    @workflow.signal
    def request_slot(self, request: SlotRequest) -> None:
        """Queue up; asking twice queues once."""
        self._state = self._state.enqueue(request)

    @workflow.signal
    def release_slot(self, release: SlotRelease) -> None:
        """Give the slot back, or leave the queue."""
        self._state = self._state.release(release)

    @workflow.query
    def snapshot(self) -> MergeQueueState:
        """Show who holds the slot and who waits."""
        return self._state
