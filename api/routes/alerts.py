"""Alerts: what somebody should look at (BUDG-13, AGENT-11, INTV-20)."""

from typing import Annotated

from fastapi import Body, Depends, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.deps import Db, OnlyOnce, Operator, Pagination, Reader
from api.routing import router
from api.views import page_of
from models.domain.alerts import AlertKind, AlertStatus
from models.schemas.alerts import AlertChange, AlertView
from models.schemas.envelope import Page, Success
from models.schemas.pagination import PageRequest
from models.store import alerts

routes = router("alerts")
Newest = Annotated[PageRequest, Depends(Pagination("detected_at", default="-detected_at"))]
Change = Annotated[AlertChange, Body(default_factory=AlertChange)]


@routes.get("/alerts")
async def list_alerts(
    call: Reader,
    db: Db,
    page: Newest,
    status: AlertStatus | None = None,
    kind: AlertKind | None = None,
    subject_kind: str | None = None,
    subject_id: str | None = None,
) -> Success[Page[AlertView]]:
    """List alerts, the newest first; `status=open` is what nobody has seen yet."""
    filters = {"status": status, "kind": kind, "subject_kind": subject_kind, "subject_id": subject_id}
    async with db.workspace(call.workspace_id) as session:
        return page_of(AlertView, await alerts.list_page(session, call.workspace_id, filters, page))


@routes.get("/alerts/{alert_id}")
async def get_alert(alert_id: str, call: Reader, db: Db) -> Success[AlertView]:
    """Show an alert: since when, what it is about, and who has seen to it."""
    async with db.workspace(call.workspace_id) as session:
        return Success(data=AlertView.model_validate(await alerts.require(session, call.workspace_id, alert_id)))


@routes.post("/alerts/{alert_id}/ack", response_model=Success[AlertView])
async def acknowledge_alert(alert_id: str, body: Change, call: Operator, once: OnlyOnce) -> Response:
    """Say that somebody has seen it."""

    async def acknowledge(session: AsyncSession) -> AlertView:
        seen = await alerts.acknowledge(session, call.workspace_id, alert_id, body.note, call.actor)
        return AlertView.model_validate(seen)

    return await once.commit(acknowledge)


@routes.post("/alerts/{alert_id}/resolve", response_model=Success[AlertView])
async def resolve_alert(alert_id: str, body: Change, call: Operator, once: OnlyOnce) -> Response:
    """Say that it is over. Most alerts are resolved by themselves once what they tell of has ceased."""

    async def resolve(session: AsyncSession) -> AlertView:
        over = await alerts.resolve(session, call.workspace_id, alert_id, body.note, call.actor)
        return AlertView.model_validate(over)

    return await once.commit(resolve)
