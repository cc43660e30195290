"""Corrective and preventive actions (HEAL-23, HEAL-24, V-18)."""

from fastapi import Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.deps import Db, Newest, OnlyOnce, Operator, Reader, ServiceOrOperator
from api.routing import router
from api.views import page_of
from models.contracts.missions import Named
from models.domain.states import CapaStatus, Severity
from models.schemas.capa import CapaCreate, CapaPatch, CapaView
from models.schemas.envelope import Page, Success
from models.store import capas

routes = router("capa")


@routes.post("/capa", status_code=201, response_model=Success[CapaView])
async def create_capa(new: CapaCreate, call: ServiceOrOperator, once: OnlyOnce) -> Response:
    """Open a CAPA."""

    async def create(session: AsyncSession) -> CapaView:
        return CapaView.model_validate(await capas.create(session, call.workspace_id, new, call.actor))

    return await once.commit(create)


@routes.get("/capa")
async def list_capa(
    call: Reader,
    db: Db,
    page: Newest,
    mission_id: str | None = None,
    status: CapaStatus | None = None,
    severity: Severity | None = None,
    owner: Named | None = None,
) -> Success[Page[CapaView]]:
    """List CAPAs, the newest first."""
    filters = {"mission_id": mission_id, "status": status, "severity": severity, "owner": owner}
    async with db.workspace(call.workspace_id) as session:
        return page_of(CapaView, await capas.list_page(session, call.workspace_id, filters, page))


@routes.get("/capa/{capa_id}")
async def get_capa(capa_id: str, call: Reader, db: Db) -> Success[CapaView]:
    """Show a CAPA."""
    async with db.workspace(call.workspace_id) as session:
        return Success(data=CapaView.model_validate(await capas.require(session, call.workspace_id, capa_id)))


@routes.patch("/capa/{capa_id}", response_model=Success[CapaView])
async def patch_capa(capa_id: str, patch: CapaPatch, call: Operator, once: OnlyOnce) -> Response:
    """Move a CAPA along (open, in_progress, closed), or fill in what was found out."""

    async def change(session: AsyncSession) -> CapaView:
        return CapaView.model_validate(await capas.change(session, call.workspace_id, capa_id, patch, call.actor))

    return await once.commit(change)
