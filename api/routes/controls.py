"""Steering a mission: start, pause, resume, note, cancel (MISS-20). Commands go in through Temporal."""

from collections.abc import Awaitable
from typing import Annotated

from fastapi import Body, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth import Call
from api.deps import AppSettings, Assignee, Db, OnlyOnce, Operator, Policies, Workflows
from api.missions import ThisMission, begin, require_assigned, require_start
from api.routing import router
from api.views import mission_links
from models.contracts.controls import CancelCommand, Command, ControlAnswer, Note
from models.domain.stages import StageName
from models.schemas.envelope import Success
from models.schemas.missions import MissionCancel, MissionCommand, MissionExecute, MissionNote, MissionStarted
from models.store import missions
from models.tables.missions import Mission

routes = router("missions")
# Nothing in these bodies must be said, so none need come.
ToExecute = Annotated[MissionExecute, Body(default_factory=MissionExecute)]
ToCommand = Annotated[MissionCommand, Body(default_factory=MissionCommand)]
ToCancel = Annotated[MissionCancel, Body(default_factory=MissionCancel)]


@routes.post("/missions/{mission_id}/execute", status_code=202, response_model=Success[MissionStarted])
async def execute_mission(
    body: ToExecute,
    call: Assignee,
    mission: ThisMission,
    once: OnlyOnce,
    db: Db,
    gateway: Workflows,
    settings: AppSettings,
    book: Policies,
) -> Response:
    """Start a mission's workflow.

    An agent starts what is assigned to it, as far as policy, budget, trust and roles let it.
    """
    require_assigned(mission, call)

    async def start(_: str) -> MissionStarted:
        run_id = once.is_repeated and mission.run_id  # we died after the start, and before its answer
        if not run_id:
            await require_start(mission, call, db, book)
            run_id = await begin(mission, call, db, gateway, is_repeated=once.is_repeated)
        links = mission_links(call.workspace_id, mission.mission_id, run_id, settings)
        return MissionStarted(mission_id=mission.mission_id, run_id=run_id, links=links)

    return await once.command(start)


@routes.post("/missions/{mission_id}/pause", response_model=Success[ControlAnswer])
async def pause_mission(
    body: ToCommand, call: Operator, mission: ThisMission, once: OnlyOnce, gateway: Workflows
) -> Response:
    """Hold a mission before its next stage, and stop a command that runs; the answer says which of the two."""
    command = _command(body, call)
    return await once.command(
        lambda key: _at(mission, gateway.pause(call.workspace_id, mission.mission_id, command, key))
    )


@routes.post("/missions/{mission_id}/resume", response_model=Success[ControlAnswer])
async def resume_mission(
    body: ToCommand, call: Operator, mission: ThisMission, once: OnlyOnce, gateway: Workflows
) -> Response:
    """Let a paused mission go on. What a limit blocks stays so: `still_blocked`, with the reason."""
    command = _command(body, call)

    async def resume(key: str) -> ControlAnswer:
        answer = await _at(mission, gateway.resume(call.workspace_id, mission.mission_id, command, key))
        is_held = answer.effect == "still_blocked"
        return answer.model_copy(update={"reason": mission.blocked or ""}) if is_held else answer

    return await once.command(resume)


@routes.post("/missions/{mission_id}/inject", response_model=Success[ControlAnswer])
async def inject_note(
    body: MissionNote, call: Operator, mission: ThisMission, once: OnlyOnce, gateway: Workflows
) -> Response:
    """Add a remark to a running mission's history."""
    note = Note(actor=call.actor.name, correlation_id=call.request_id, text=body.text)
    return await once.command(lambda key: _at(mission, gateway.note(call.workspace_id, mission.mission_id, note, key)))


@routes.post("/missions/{mission_id}/cancel", response_model=Success[ControlAnswer])
async def cancel_mission(
    body: ToCancel, call: Operator, mission: ThisMission, once: OnlyOnce, gateway: Workflows
) -> Response:
    """End a mission. Before the merge nothing is left behind; after it, `merged` says keep or roll_back."""

    async def close(session: AsyncSession) -> ControlAnswer:
        await missions.cancel_open(session, call.workspace_id, mission.mission_id, body.reason, call.actor)
        return ControlAnswer(effect="cleans_up")

    if missions.is_waiting(mission):
        return await once.commit(close)
    command = CancelCommand(
        actor=call.actor.name, correlation_id=call.request_id, reason=body.reason, merged=body.merged
    )
    return await once.command(
        lambda key: _at(mission, gateway.cancel(call.workspace_id, mission.mission_id, command, key))
    )


async def _at(mission: Mission, answered: Awaitable[ControlAnswer]) -> ControlAnswer:
    """Name the stage that ran when the command came: a workflow tells stages that ride together as their last one."""
    answer = await answered
    return answer.model_copy(update={"stage": mission.stage and StageName(mission.stage)})


def _command(body: MissionCommand, call: Call) -> Command:
    return Command(actor=call.actor.name, correlation_id=call.request_id, reason=body.reason)
