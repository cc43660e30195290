"""Puts the API together."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from api import errors, unrouted
from api.answers import Unsent
from api.auth import COOKIE
from api.bodies import Rooms
from api.claims import claims_of
from api.gateway import Gateway
from api.heartbeats import Heartbeats
from api.ingest import Ingest
from api.keyring import KeyRing
from api.limiter import Limiter
from api.logs import RequestScope
from api.long_work import LongWork
from api.registry import VERSIONS
from api.routes import documents, system
from api.services import Services
from api.sse import Feed
from models.observability import boot_step
from models.settings import Settings
from models.store.database import Database
from models.store.first_start import keep_trying_first_start
from models.store.policies import PolicyBook

log = structlog.get_logger()

_DESCRIPTION = """The control plane for autonomous software agents.

Every answer is `{"success": true, "data": …}` or `{"success": false, "error": {"code", "message", "requestId"}}`.
Names are snake_case; requests may also use camelCase. A repeated request with the same `Idempotency-Key` gets the first
one's answer. `/api/v2` serves the same routes."""

FIRST_START_SECONDS = 2.0
"""How long the API waits for its database before it serves what needs none; `/readyz` says when all is there."""

_SECURITY_SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
}


def create_app(settings: Settings, versions: Mapping[str, Sequence[APIRouter]] = VERSIONS) -> FastAPI:
    """Make the API. It serves once its lifespan has begun; while Temporal is away, only commands to missions fail."""
    app = Api(
        title="Mission Control",
        version=version("mission-control"),
        description=_DESCRIPTION,
        openapi_url=None,  # which we serve ourselves: `documents`
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        lifespan=_lifespan(settings),
        middleware=[Middleware(RequestScope)],
    )
    errors.install(app)
    app.add_exception_handler(HTTPException, unrouted.answer)
    app.include_router(system.routes)
    app.include_router(documents.routes)
    for name, routers in versions.items():
        for routes in routers:
            app.include_router(routes, prefix=f"/api/{name}", include_in_schema=name == "v1")
    app.state.routes = [route for routers in versions.values() for each in routers for route in each.routes]
    return app


class Api(FastAPI):
    """FastAPI, with our ways to authenticate in its document."""

    def openapi(self) -> dict[str, Any]:
        """Describe the API; routes that need no key say so themselves."""
        document = super().openapi()
        document["components"]["securitySchemes"] = _SECURITY_SCHEMES
        document["security"] = [{name: []} for name in _SECURITY_SCHEMES]
        return document


def _lifespan(settings: Settings) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            with boot_step("database"):
                db = Database.from_settings(settings)
                stack.push_async_callback(db.close)
            with boot_step("first_start"):
                first_start = _beside(stack, keep_trying_first_start(db, settings))
                await asyncio.wait([first_start], timeout=FIRST_START_SECONDS)
            with boot_step("temporal"):
                gateway = await Gateway.open(settings)
            with boot_step("events"):
                feed = Feed(db, settings.sse_heartbeat_seconds)
                feed.open()
                stack.push_async_callback(feed.close)
            ring = KeyRing(db)
            held = (Rooms(), Unsent(), LongWork())
            shared = (settings, db, ring, Limiter(settings), *held, gateway, feed, Ingest(db), claims_of(db))
            _beside(stack, ring.note_uses())
            app.state.services = Services(*shared, Heartbeats(db), PolicyBook(settings.config_dir), first_start)
            log.info("api.ready")
            yield

    return lifespan


def _beside(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Do work until the stack is left: it ends, with the connections it was opening, before the database closes."""

    async def end() -> None:
        task.cancel()
        await asyncio.wait({task})

    task = asyncio.create_task(work)
    stack.push_async_callback(end)
    return task
