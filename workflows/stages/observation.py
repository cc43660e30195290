"""Stage 10: the window in which a merge must prove itself in the world."""

from datetime import datetime, timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.observing import ObservationActivities
    from models.contracts.pipeline import ObserveInput, ObserveResult
    from models.domain.stages import StageName
    from models.domain.states import MissionOutcome
    from workflows.policies import RECORD, host_commands

from workflows.mission import MissionEnds
from workflows.pipeline import Pipeline


async def observe(mission: Pipeline) -> None:
    """Look at the world until the window ends, then test the merged branch once more."""
    mission.stage = StageName.OBSERVE
    started = workflow.now()
    ends = started + timedelta(seconds=mission.context.observation_seconds)
    seen, number = ObserveResult(), 0
    while (left := (ends - workflow.now()).total_seconds()) > 0:
        await _wait(mission, min(left, mission.context.poll_seconds))
        number += 1
        seen = await _look(mission, _question(mission, started, number, seen))
        if seen.anomaly:
            raise MissionEnds(MissionOutcome.ROLLED_BACK, seen.anomaly, StageName.OBSERVE)
    last = _question(mission, started, number + 1, seen)
    finished = await mission.on_host(ObservationActivities.finish, last, host_commands)
    if finished.failed:
        raise MissionEnds(MissionOutcome.ROLLED_BACK, finished.reason, StageName.OBSERVE)
    mission.bench_closed = finished.bench_closed


async def _wait(mission: Pipeline, seconds: float) -> None:
    try:
        await mission.wait_until(lambda: mission.wants_out, timedelta(seconds=seconds))
    except TimeoutError:
        return
    mission.leave_if_canceled()


async def _look(mission: Pipeline, question: ObserveInput) -> ObserveResult:
    """Watching is harmless, so a pause does not stop it: it holds before stage 11."""
    if mission.context.has_probe:
        return await mission.with_host(ObservationActivities.probe, question, host_commands)
    return await workflow.execute_local_activity_method(ObservationActivities.look, question, **RECORD)


def _question(mission: Pipeline, started: datetime, number: int, before: ObserveResult) -> ObserveInput:
    return ObserveInput(
        ref=mission.ref(StageName.OBSERVE),
        merge_sha=mission.merge_sha,
        started_at=started,
        number=number,
        breaches=before.breaches,
    )
