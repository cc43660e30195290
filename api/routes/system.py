"""Whether this process lives, whether it can serve, and its numbers. No key: bind them to the inside."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

from api.deps import INSIDE, Db, Workflows
from api.routing import Route
from api.sdk_metrics import sdk_metrics
from api.services import Services, services
from models.domain.errors import Unavailable
from models.schemas.envelope import Success
from models.schemas.system import Alive, Ready
from models.store import audit_tree, system
from models.store.migrate import expected_revision
from models.store.system import Schema

routes = APIRouter(route_class=Route, tags=["system"], dependencies=[INSIDE])
_EXPECTED = expected_revision()

WATCHERS = Gauge("mission_control_event_watchers", "Open event streams.")
MISSIONS = Gauge("mission_control_missions", "Missions that have not ended.", ["status"])
DECISIONS = Gauge("mission_control_pending_decisions", "Questions waiting for a human.")
SEALED = Gauge("mission_control_audit_sealed_rows", "Audit rows under the newest checkpoint.")
MIRRORED = Gauge("mission_control_audit_mirrored_rows", "Audit rows under the newest checkpoint that the mirror has.")
UNSEALED = Gauge("mission_control_audit_unsealed_seconds", "Age of the oldest audit row that is not sealed yet.")


@routes.get("/healthz")
async def healthz() -> Success[Alive]:
    """Tell that the process answers."""
    return Success(data=Alive())


@routes.get("/readyz")
async def readyz(request: Request, db: Db, gateway: Workflows) -> Success[Ready]:
    """Tell whether requests can be served now; 503 with the reason if not."""
    async with db.system() as session:
        _require_schema(await system.schema(session))
    _require_begun(services(request))
    temporal: Literal["ok", "unavailable"] = "ok" if await gateway.answers() else "unavailable"
    return Success(data=Ready(migrations=_EXPECTED, temporal=temporal))


@routes.get("/metrics", response_class=Response, include_in_schema=False)
async def metrics(request: Request, db: Db) -> Response:
    """Show this process's numbers, and those of its Temporal client, in Prometheus' text form."""
    WATCHERS.set(services(request).feed.watching)
    async with db.system() as session:
        load = await system.load(session)
        audit = await audit_tree.standing(session)
    for name, count in load.missions.items():
        MISSIONS.labels(name).set(count)
    DECISIONS.set(load.pending_decisions)
    SEALED.set(audit.sealed)
    MIRRORED.set(audit.mirrored)
    UNSEALED.set(audit.unsealed_seconds)
    return Response(generate_latest() + await sdk_metrics().text(), media_type=CONTENT_TYPE_LATEST)


def _require_schema(found: Schema) -> None:
    if found.revision != _EXPECTED:
        raise Unavailable(
            "migrations_pending",
            f"the database has schema {found.revision}, this version needs {_EXPECTED}: run `mission-control migrate`",
        )
    if found.restored:
        raise Unavailable("restored_dump", "the database was restored from a dump: run `mission-control migrate` once")


def _require_begun(process: Services) -> None:
    first_start = process.first_start
    if not first_start.done() or first_start.exception():
        raise Unavailable("no_admin_key", "the first admin key is not made yet; the log says what it waits for")
    if not process.feed.is_following:
        raise Unavailable(
            "events_stalled",
            "this process does not follow the events; its log says why: look for event_tail_interrupted, or restart it",
        )
