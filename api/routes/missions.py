"""Missions: filed and found (MISS-17..19)."""

from typing import Annotated

from fastapi import Depends, Query, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth import Call
from api.deps import AnyActor, AppSettings, Db, OnlyOnce, Operator, Pagination, Reader
from api.missions import ThisMission, read_candidate
from api.routing import router
from api.views import mission_view, page_of
from models.configuration import load_catalog
from models.contracts.missions import Named
from models.domain.errors import InvalidInput, NotPermitted
from models.domain.principals import Kind
from models.domain.repositories import RepositoryUrl
from models.domain.states import MissionOutcome, MissionStatus, Severity
from models.repositories import look
from models.schemas.envelope import Page, Success
from models.schemas.missions import MissionCreate, MissionSummary, MissionView
from models.schemas.pagination import PageRequest
from models.store import candidates, missions, repositories
from models.tables.missions import Mission

routes = router("missions")
Order = Annotated[PageRequest, Depends(Pagination("created_at", "severity", default="-created_at"))]


@routes.post("/missions", status_code=201, response_model=Success[MissionView])
async def create_mission(new: MissionCreate, call: AnyActor, once: OnlyOnce, settings: AppSettings) -> Response:
    """File a mission; `execute` starts it.

    Metrics that its symptoms name and its criteria do not are held to the catalog's bounds (MISS-32).
    """
    _require_operator_for_overrides(new, call)
    tried = [await read_candidate(candidate, call) for candidate in new.patch_candidates]
    package = new.with_default_targets(load_catalog(settings.config_dir))
    place = await look(new.place, settings.repository_roots)

    async def create(session: AsyncSession) -> MissionView:
        if agent := call.principal.own_agent:
            await missions.require_room(session, call.workspace_id, agent)
        mission = await _create(session, package, place, settings.env, call)
        await candidates.keep(session, call.workspace_id, mission.mission_id, tried, call.actor.name)
        return await mission_view(session, mission, settings)

    return await once.commit(create)


@routes.get("/missions")
async def list_missions(
    call: Reader,
    db: Db,
    page: Order,
    status: MissionStatus | None = None,
    severity: Severity | None = None,
    outcome: MissionOutcome | None = None,
    subsystem_id: str | None = None,
    assigned_to: Annotated[Named | None, Query(description="By name or id.")] = None,
    repository_id: str | None = None,
    retry_of: str | None = None,
    created_by: Named | None = None,
) -> Success[Page[MissionSummary]]:
    """List missions, the newest first. `sort=severity` puts the most urgent first, and of those the oldest."""
    filters = {
        "status": status,
        "severity": severity,
        "outcome": outcome,
        "subsystem_id": subsystem_id,
        "assigned_to": assigned_to,
        "repository_id": repository_id,
        "retry_of": retry_of,
        "created_by": created_by,
    }
    return page_of(MissionSummary, await missions.list_page(db, call.workspace_id, filters, page))


@routes.get("/missions/{mission_id}")
async def get_mission(call: Reader, mission: ThisMission, db: Db, settings: AppSettings) -> Success[MissionView]:
    """Show a mission: its package, its history and signatures, its outcome, and where its evidence is."""
    async with db.workspace(call.workspace_id) as session:
        return Success(data=await mission_view(session, mission, settings))


@routes.post("/missions/{mission_id}/retry", status_code=201, response_model=Success[MissionView])
async def retry_mission(call: Operator, mission: ThisMission, once: OnlyOnce, settings: AppSettings) -> Response:
    """File an ended mission again: a new one with the same package and candidates, and `retry_of`."""

    async def retry(session: AsyncSession) -> MissionView:
        again = await missions.retry(session, call.workspace_id, mission.mission_id, call.actor)
        await candidates.copy(session, call.workspace_id, mission.mission_id, again.mission_id)
        return await mission_view(session, again, settings)

    return await once.commit(retry)


async def _create(
    session: AsyncSession, new: MissionCreate, place: RepositoryUrl | InvalidInput, env: str, call: Call
) -> Mission:
    """File a mission on the repository that it names; operators may name one that is not registered, or its branch."""
    chooses = _is_operator(call)
    repository = await repositories.resolve(
        session, call.workspace_id, new.place, place, env, call.actor, may_register=chooses
    )
    return await missions.create(session, call.workspace_id, new, repository, call.actor, may_choose_branch=chooses)


def _is_operator(call: Call) -> bool:
    """Tell operators from the agents and services that may file missions, too: they choose no rules (AnyActor)."""
    return call.principal.kind is Kind.HUMAN


def _require_operator_for_overrides(new: MissionCreate, call: Call) -> None:
    """The judged never write the law: who only files missions may not choose how they are judged."""
    if new.overrides.given and not _is_operator(call):
        raise NotPermitted("overrides_need_operator", "only an operator may override a repository's commands")
