from temporalio import activity

from models.contracts.pipeline import StageInput, StageResult


class TestingActivities:
    @activity.defn
    async def run_tests(self, task: StageInput) -> StageResult:
        raise RuntimeError

    @activity.defn
    async def stress_tests(self, task: StageInput) -> StageResult:
        raise RuntimeError
