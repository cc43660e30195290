"""Puts right what no workflow could: rows whose workflow was ended from outside, answers nobody heard, stray worktrees.

Started by the Temporal Schedule `reconciler` (see `worker.schedules`); overlapping passes are skipped.
"""

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.code import CodeActivities
    from activities.reconciling import ReconcileActivities
    from models.contracts.reconciling import Leftover, Reconciled
    from workflows.policies import ONE_PASS, clearing

from workflows.queues import host_queue, prefix_of


@workflow.defn
class ReconcileWorkflow:
    """One pass."""

    @workflow.run
    async def run(self) -> Reconciled:
        """Repeat unheard answers, close dead missions, give back what they held, keep house."""
        signals = await workflow.execute_activity_method(ReconcileActivities.repeat_answers, **ONE_PASS)
        closed = await workflow.execute_activity_method(ReconcileActivities.close_ended, **ONE_PASS)
        leftovers = await workflow.execute_activity_method(ReconcileActivities.leftovers, **ONE_PASS)
        await workflow.execute_activity_method(ReconcileActivities.keep_house, **ONE_PASS)
        swept = await asyncio.gather(*(self._sweep(leftover) for leftover in leftovers))
        return Reconciled(signals=signals, closed=closed, swept=sum(swept))

    async def _sweep(self, leftover: Leftover) -> bool:
        """Ask the host to clear up; one that is away is asked again in a later pass."""
        queue = host_queue(prefix_of(workflow.info().task_queue), leftover.host)
        try:
            await workflow.execute_activity_method(CodeActivities.close_workbench, leftover.task, **clearing(queue))
        except ActivityError:
            return False
        return True
