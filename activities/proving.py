"""Stages 1 to 5: a round begun, and its candidates patched, tested, scanned and stressed until one stage fails.

One that passes is also probed, where the repository has a probe: stage 7 judges by what that measures.
"""

import asyncio

from temporalio import activity

from activities.code import CodeActivities
from activities.context import ContextActivities
from activities.probing import ProbeActivities
from activities.scanning import ScanActivities
from activities.testing import TestingActivities
from models.contracts.pipeline import CandidateTask, CloseInput, Opened, PipelineContext, Proof, StageInput, StageRef
from models.domain.stages import StageName, StageStatus


class ProofActivities:
    """Each stage keeps its own record, so that a repeated try goes on with the first that has none."""

    def __init__(
        self,
        context: ContextActivities,
        code: CodeActivities,
        testing: TestingActivities,
        scanning: ScanActivities,
        probing: ProbeActivities,
    ) -> None:
        self._context, self._code, self._testing, self._scanning = context, code, testing, scanning
        self._probing = probing

    @activity.defn
    async def open_round(self, task: StageInput) -> Opened:
        """Stages 1 and 2, and those of the round's first candidate: a round always begins with one.

        The workflow learns from the answer which host this is. Until then, what is stopped here is given back here.
        """
        try:
            context = await self._context.open(task)
            first = first_of(task, context)
            return Opened(context=context, proof=await self.prove_candidate(first) if first else None)
        except asyncio.CancelledError:
            if not self._context.is_asked_by_name:
                await self._code.close_workbench(bench_of(task.ref))
            raise

    @activity.defn
    async def prove_candidate(self, task: CandidateTask) -> Proof:
        """Do the stages in their order; say which one failed, if any did."""
        patched = await self._code.branch_and_patch(stage_of(task, StageName.BRANCH_AND_PATCH))
        proof = Proof(head_sha=patched.head_sha, patch_id=patched.patch_id)
        if patched.failed:
            await self._scanning.withhold_unapplied(task.ref)
            return proof.model_copy(update={"failed_stage": StageName.BRANCH_AND_PATCH, "reason": patched.reason})
        rest = [(StageName.SECURITY_SCAN, self._scanning.security_scan), (StageName.RUN_TESTS, self._testing.run_tests)]
        if task.has_stress:
            rest.append((StageName.STRESS_TESTS, self._testing.stress_tests))
        for stage, prove in rest:
            result = await prove(stage_of(task, stage, patched.head_sha))
            if result.failed:
                return proof.model_copy(update={"failed_stage": stage, "reason": result.reason})
        if task.has_probe:
            await self._probing.probe_candidate(stage_of(task, StageName.COLLECT_METRICS, patched.head_sha))
        return proof


def first_of(task: StageInput, context: PipelineContext) -> CandidateTask | None:
    """Ask for the proof that an opened round begins with; None where it could not be opened, or has no candidate."""
    if context.status is StageStatus.FAILED or not context.candidates:
        return None
    ref = task.ref.model_copy(update={"stage": StageName.RUN_TESTS})
    return CandidateTask(ref=ref, base_sha=context.base_sha, has_stress=context.has_stress, has_probe=context.has_probe)


def bench_of(ref: StageRef) -> CloseInput:
    """Name the workbench of a stage's mission."""
    return CloseInput(workspace_id=ref.workspace_id, mission_id=ref.mission_id)


def stage_of(task: CandidateTask, stage: StageName, head_sha: str = "") -> StageInput:
    """Ask for one of the candidate's stages."""
    ref = task.ref.model_copy(update={"stage": stage})
    return StageInput(ref=ref, base_sha=task.base_sha, head_sha=head_sha)
