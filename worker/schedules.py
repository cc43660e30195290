"""Temporal Schedules that every installation has; made again on each start, which changes nothing."""

from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)

from models.settings import Settings
from workflows.queues import control_queue
from workflows.reconcile import ReconcileWorkflow

EVERY = timedelta(seconds=10)


async def ensure_reconciler(client: Client, settings: Settings) -> None:
    """Make sure that the reconciler runs every 10 s, never two at once, and that missed passes are not made up for."""
    prefix = settings.task_queue_prefix
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            ReconcileWorkflow.run,
            id=f"{prefix}reconcile",
            task_queue=control_queue(prefix),
            execution_timeout=timedelta(minutes=5),
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=EVERY)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(seconds=10)),
    )
    name = f"{prefix}reconciler"
    try:
        await client.create_schedule(name, schedule)
    except ScheduleAlreadyRunningError:

        def replace(_: ScheduleUpdateInput) -> ScheduleUpdate:
            return ScheduleUpdate(schedule=schedule)

        await client.get_schedule_handle(name).update(replace)
