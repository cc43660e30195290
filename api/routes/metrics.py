"""The metrics catalog, and the samples that missions are judged by (METRIC-12, METRIC-13)."""

from typing import Annotated

from fastapi import Depends, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.deps import AnyActor, AppSettings, Db, OnlyOnce, Pagination, Reader
from api.routing import router
from api.views import page_of
from models.configuration import load_catalog
from models.schemas.envelope import Page, Success
from models.schemas.metrics import (
    CatalogMetric,
    Observations,
    ObservationsAccepted,
    ObservationView,
)
from models.schemas.pagination import PageRequest
from models.store import metrics

routes = router("metrics")
Newest = Annotated[PageRequest, Depends(Pagination("at", default="-at"))]


@routes.get("/metrics")
async def get_catalog(call: Reader, settings: AppSettings) -> Success[Page[CatalogMetric]]:
    """Show the metrics that have a bound, with comparator and unit."""
    known = load_catalog(settings.config_dir).metrics.items()
    return Success(data=Page(items=[CatalogMetric(metric_id=name, **entry.model_dump()) for name, entry in known]))


@routes.post("/metrics/observations", status_code=201, response_model=Success[ObservationsAccepted])
async def post_observations(new: Observations, call: AnyActor, once: OnlyOnce) -> Response:
    """Report one sample, or up to 1,000 at once, of which all are kept or none."""

    async def observe(session: AsyncSession) -> ObservationsAccepted:
        kept = await metrics.observe(session, call.workspace_id, new.samples, call.actor)
        return ObservationsAccepted(accepted=len(kept), observation_ids=tuple(kept))

    return await once.commit(observe)


@routes.get("/metrics/observations")
async def list_observations(
    call: Reader, db: Db, page: Newest, metric_id: str | None = None, mission_id: str | None = None
) -> Success[Page[ObservationView]]:
    """List samples, the newest first."""
    filters = {"metric_id": metric_id, "mission_id": mission_id}
    async with db.workspace(call.workspace_id) as session:
        return page_of(ObservationView, await metrics.list_page(session, call.workspace_id, filters, page))
