"""The coding pipeline: a mission's eleven stages, from the state of the world to a change merged, watched and provable.

Id: `mission/<workspace>/<mission>`; messages: see `workflows.mission`. Workflows hold order and waiting only. An
activity does a stage and records it; short stages that only touch Postgres ride as local activities.
"""

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from models.contracts.merge_queue import SlotGrant
    from models.contracts.pipeline import PipelineInput
    from models.domain.states import MissionOutcome

from workflows.mission import MissionEnds
from workflows.pipeline import Pipeline
from workflows.stages.approval import approve
from workflows.stages.ending import close, unforeseen
from workflows.stages.merge_slot import give_back
from workflows.stages.merging import merge
from workflows.stages.observation import observe
from workflows.stages.proof import prove


@workflow.defn
class CodingPipelineWorkflow(Pipeline):
    """One mission that patches code."""

    @workflow.init
    def __init__(self, start: PipelineInput) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: PipelineInput) -> MissionOutcome:
        """Tell the mission's story to its one outcome."""
        return await self.see_through(self._story())

    @workflow.signal
    async def slot_granted(self, grant: SlotGrant) -> None:
        """Hear that the merge slot is ours; a grant that answers an earlier request was given back already.

        One that answers a later request was asked for by a workflow task that was lost: nobody knows of it any more,
        and a mission that is held would keep the slot from all others.
        """
        if grant.number == self.slot_number:
            self.grant = grant
        elif grant.number > self.slot_number:
            await give_back(self, waited=True)

    async def _story(self) -> MissionOutcome:
        """Whatever ends the story early is recorded by stage 11, and a merge that must go is taken back."""
        try:
            await self._pursue()
            end = MissionEnds(MissionOutcome.MERGED, "", capa=False)
        except MissionEnds as early:
            end = early
        except FailureError as error:
            end = unforeseen(self, error)
        return await close(self, end)

    async def _pursue(self) -> None:
        await prove(self)
        await approve(self)
        await merge(self)
        await observe(self)
        await self.hold()
