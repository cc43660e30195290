"""The floor of the pipeline benchmark: eleven empty activities, one after another, and nothing else."""

from datetime import timedelta

from temporalio import activity, workflow

STEPS = 11


@activity.defn
async def do_nothing(step: int) -> int:
    """Answer at once."""
    return step


@workflow.defn
class BareWorkflow:
    """What the SDK and the server take for eleven steps."""

    @workflow.run
    async def run(self) -> None:
        """Do all steps."""
        for step in range(STEPS):
            await workflow.execute_activity(do_nothing, step, start_to_close_timeout=timedelta(minutes=1))
