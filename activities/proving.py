"""Stages 3 to 5 of one candidate: patched, tested, scanned and stressed, until one of them does not pass."""

from temporalio import activity

from activities.code import CodeActivities
from activities.scanning import ScanActivities
from activities.testing import TestingActivities
from models.contracts.pipeline import CandidateTask, Proof, StageInput
from models.domain.stages import StageName


class ProofActivities:
    """Each stage keeps its own record, so that a repeated try goes on with the first that has none."""

    def __init__(self, code: CodeActivities, testing: TestingActivities, scanning: ScanActivities) -> None:
        self._code, self._testing, self._scanning = code, testing, scanning

    @activity.defn
    async def prove_candidate(self, task: CandidateTask) -> Proof:
        """Do the stages in their order; say which one failed, if any did."""
        patched = await self._code.branch_and_patch(stage_of(task, StageName.BRANCH_AND_PATCH))
        proof = Proof(head_sha=patched.head_sha, patch_id=patched.patch_id)
        if patched.failed:
            return proof.model_copy(update={"failed_stage": StageName.BRANCH_AND_PATCH, "reason": patched.reason})
        rest = [(StageName.RUN_TESTS, self._testing.run_tests), (StageName.SECURITY_SCAN, self._scanning.security_scan)]
        if task.has_stress:
            rest.append((StageName.STRESS_TESTS, self._testing.stress_tests))
        for stage, prove in rest:
            result = await prove(stage_of(task, stage, patched.head_sha))
            if result.failed:
                return proof.model_copy(update={"failed_stage": stage, "reason": result.reason})
        return proof


def stage_of(task: CandidateTask, stage: StageName, head_sha: str = "") -> StageInput:
    """Ask for one of the candidate's stages."""
    ref = task.ref.model_copy(update={"stage": stage})
    return StageInput(ref=ref, base_sha=task.base_sha, head_sha=head_sha)
