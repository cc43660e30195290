from temporalio import activity

from models.contracts.pipeline import ObserveInput, ObserveResult, StageInput, StageResult


class ObservationActivities:
    @activity.defn
    async def look(self, task: ObserveInput) -> ObserveResult:
        raise RuntimeError

    @activity.defn
    async def probe(self, task: ObserveInput) -> ObserveResult:
        raise RuntimeError

    @activity.defn
    async def finish(self, task: ObserveInput) -> StageResult:
        raise RuntimeError

    @activity.defn
    async def verify_rollback(self, task: StageInput) -> StageResult:
        raise RuntimeError
