"""Puts right what no workflow could: rows whose workflow was ended from outside, answers nobody heard, stray worktrees.

Started by the Temporal Schedule `reconciler` (see `worker.schedules`); overlapping passes are skipped.
"""

import asyncio
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError
from temporalio.types import MethodAsyncNoParam

with workflow.unsafe.imports_passed_through():
    from activities.code import CodeActivities
    from activities.reconciling import ReconcileActivities
    from models.contracts.reconciling import Leftover, Reconciled
    from workflows.policies import ONE_PASS, clearing

from workflows.queues import host_queue, prefix_of

R = TypeVar("R")


@workflow.defn
class ReconcileWorkflow:
    """One pass."""

    @workflow.run
    async def run(self) -> Reconciled:
        """Repeat unheard answers, close dead missions, give back what they held, keep house."""
        signals = await self._try(ReconcileActivities.repeat_answers, 0)
        closed = await self._try(ReconcileActivities.close_ended, 0)
        leftovers = await self._try(ReconcileActivities.leftovers, list[Leftover]())
        await self._try(ReconcileActivities.keep_house, None)
        swept = await asyncio.gather(*(self._sweep(leftover) for leftover in leftovers))
        return Reconciled(signals=signals, closed=closed, swept=sum(swept))

    async def _try(self, part: MethodAsyncNoParam[ReconcileActivities, R], otherwise: R) -> R:
        """Do one part; one that fails is left to the next pass and keeps no other from being done."""
        try:
            return await workflow.execute_activity_method(part, **ONE_PASS)
        except ActivityError as error:
            workflow.logger.warning("a part of the pass failed", extra={"cause": str(error.cause)})
            return otherwise

    async def _sweep(self, leftover: Leftover) -> bool:
        """Ask the host to clear up; one that is away is asked again in a later pass."""
        queue = host_queue(prefix_of(workflow.info().task_queue), leftover.host)
        try:
            await workflow.execute_activity_method(CodeActivities.close_workbench, leftover.task, **clearing(queue))
        except ActivityError:
            return False
        return True
