"""A pipeline as a careless change would leave it: it does something before the first stage. Its replay must fail."""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from models.contracts.pipeline import PipelineInput
    from models.domain.states import MissionOutcome

from workflows.coding_pipeline import CodingPipelineWorkflow


@workflow.defn(name="CodingPipelineWorkflow")
class DivergentWorkflow(CodingPipelineWorkflow):
    """The pipeline, after a short rest."""

    @workflow.init
    def __init__(self, start: PipelineInput) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: PipelineInput) -> MissionOutcome:
        await workflow.sleep(timedelta(seconds=1))
        return await super().run(start)
