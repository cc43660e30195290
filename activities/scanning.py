from temporalio import activity

from models.contracts.pipeline import StageInput, StageResult


class ScanActivities:
    @activity.defn
    async def security_scan(self, task: StageInput) -> StageResult:
        raise RuntimeError
