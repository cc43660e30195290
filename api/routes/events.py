"""Events: reporting one, and watching the stream."""

from fnmatch import fnmatchcase
from typing import Annotated

from fastapi import Header, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import Counter

from api.deps import Reader, Reporter
from api.discretion import discretion
from api.idempotency import KeyHeader, identified_by, replay
from api.routing import router, unwrapped
from api.services import services
from api.sse import Stream, Wanted
from api.streams import HeldStream, guard
from models.domain.errors import InvalidInput
from models.domain.events import EventType
from models.domain.names import MAX_ID
from models.schemas.envelope import Success
from models.schemas.events import EventAccepted, EventPost
from models.store.events import NewEvent, Place
from models.store.idempotency import Answer

routes = router("events")
INGESTED = Counter("mission_control_events_ingested", "Events posted by clients.", ["type"])


@routes.post("/events", status_code=202, response_model=Success[EventAccepted])
async def post_event(request: Request, body: EventPost, call: Reporter, key: KeyHeader = None) -> Response:
    """Report a fact. It is stored when the answer comes; a repetition under its key is answered `deduped: true`."""
    body.require_small()
    key = _one_key(key, body.idempotency_key)
    event = NewEvent(body.type, body.subject, call.actor, body.data)
    identified = identified_by(request, call.workspace_id, key) if key else None
    await request.state.look_again(request)  # the body may have come slowly, and the caller's key ended meanwhile
    stored = await services(request).ingest.write(call.workspace_id, event, identified)
    if isinstance(stored, Answer):
        return replay(stored)
    INGESTED.labels(body.type.value).inc()
    return JSONResponse({"success": True, "data": {"id": str(stored), "deduped": False}}, 202)


@routes.get("/events", response_class=Response, responses=unwrapped("text/event-stream"))
async def watch_events(
    request: Request,
    call: Reader,
    type: Annotated[str | None, Query(max_length=1000, description="Types or globs: `mission.*,stage.failed`.")] = None,
    subject: Annotated[
        str | None, Query(max_length=2 * MAX_ID, description="The id of what the events are about.")
    ] = None,
    after: Annotated[str | None, Query(max_length=64, description="An event's id; `0-0-0` is the beginning.")] = None,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=64)] = None,
) -> HeldStream:
    """Watch what happens, as server-sent events: first what came after the given event, then live.

    An agent sees of decisions those that it may read.
    """
    feed = services(request).feed
    place = _place(last_event_id or after)
    wanted = Wanted(_types(type) if type else None, subject)
    await feed.ready()
    show = discretion(services(request).db, call.principal)
    stream = Stream(feed, call.workspace_id, wanted, place, guard(request), show)
    return HeldStream(request, stream.chunks(), "text/event-stream", {"X-Accel-Buffering": "no"})


def _one_key(header: str | None, body: str | None) -> str | None:
    if header and body and header != body:
        raise InvalidInput("two_idempotency_keys", "the header Idempotency-Key and idempotency_key differ; send one")
    return header or body


def _place(value: str | None) -> Place | None:
    if not value:
        return None
    try:
        return Place.parse(value)
    except ValueError as error:
        raise InvalidInput("invalid_event_id", f"{value!r} is no event id of ours; send the id of an event") from error


def _types(value: str) -> frozenset[EventType]:
    """Expand a comma list of types and globs; a glob may match types that come later, a name must be known."""
    wanted: set[EventType] = set()
    for pattern in value.split(","):
        found = {kind for kind in EventType if fnmatchcase(kind.value, pattern.strip())}
        if not found and "*" not in pattern:
            known = ", ".join(sorted(kind.value for kind in EventType))
            raise InvalidInput("unknown_event_type", f"there are no events of type {pattern!r}; known: {known}")
        wanted |= found
    return frozenset(wanted)
