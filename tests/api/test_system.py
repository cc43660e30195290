"""Health, readiness, numbers, versions, docs; and what works while Temporal is away."""

from collections.abc import Callable

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import SecretStr
from sqlalchemy import text

from api.app import create_app
from api.deps import INSIDE
from api.registry import VERSIONS
from api.routes import system
from api.routing import Route, router
from models.domain.principals import Role
from models.schemas.envelope import Success
from models.settings import Settings
from models.store.database import Database
from models.store.migrate import expected_revision
from tests.fixtures.access import make_key
from tests.fixtures.api import Caller, Team, running
from tests.fixtures.logs import Lines
from tests.fixtures.servers import PostgresServer

PUT_RIGHT = "UPDATE installation SET system_identifier = (pg_control_system()).system_identifier"
PUBLIC = {("POST", "/api/v1/auth/session"), ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics")}
"""Requirements C-08: the only routes that take no key."""
STRANGERS_TOO = {("POST", "/api/v1/agents")}
"""And the one that also takes none."""


def all_routes() -> list[tuple[str, str, APIRoute]]:
    """Every route of the product: method, path, route."""
    placed = [("", system.routes), *(("/api/v1", routes) for routes in VERSIONS["v1"])]
    return [
        (method, prefix + route.path, route)
        for prefix, routes in placed
        for route in routes.routes
        if isinstance(route, APIRoute)
        for method in sorted(route.methods or ())
    ]


def asgi(application: FastAPI, key: str = "") -> httpx2.AsyncClient:
    """A client of an application of the test's own."""
    transport = httpx2.ASGITransport(application, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://test", headers={"X-API-Key": key} if key else {})


async def test_it_names_the_steps_of_its_start(settings: Settings, logged: Callable[[], Lines]) -> None:
    lines = logged()
    async with running(create_app(settings)):
        told = lines()
    steps = [line["step"] for line in told if line["event"] == "boot.done"]
    assert steps == ["database", "first_start", "temporal", "events"]
    assert told[-1]["event"] == "api.ready"


class TestHealth:
    async def test_alive_and_ready_without_temporal(self, client: Caller) -> None:
        assert (await client(None).get("/healthz")).json() == {"success": True, "data": {"status": "ok"}}
        ready = (await client(None).get("/readyz")).json()["data"]
        assert ready == {"database": "ok", "migrations": expected_revision(), "temporal": "unavailable"}

    async def test_not_ready_before_the_migrations(self, postgres_server: PostgresServer, settings: Settings) -> None:
        empty = settings.model_copy(update={"database_url": SecretStr(postgres_server.create_database())})
        application = create_app(empty)
        async with running(application), asgi(application) as anyone:
            answer = await anyone.get("/readyz")
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "migrations_pending")
            assert (await anyone.get("/healthz")).status_code == 200

    async def test_not_ready_after_a_restore_that_nobody_noticed(self, client: Caller, db: Database) -> None:
        async with db.system() as session:
            await session.execute(text("UPDATE installation SET system_identifier = '1'"))
        try:
            answer = await client(None).get("/readyz")
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "restored_dump")
        finally:
            async with db.system() as session:
                await session.execute(text(PUT_RIGHT))

    async def test_no_database(self, settings: Settings) -> None:
        away = settings.model_copy(update={"database_url": SecretStr("postgresql://nobody@127.0.0.1:1/x")})
        application = create_app(away)
        async with running(application), asgi(application) as anyone:
            for path in ("/readyz", "/metrics"):
                answer = await anyone.get(path)
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_unavailable")
            answer = await anyone.get("/api/v1/events", headers={"X-API-Key": "mc_x"})
            assert answer.status_code == 503


class TestMetrics:
    async def test_numbers_of_ours(self, client: Caller, team: Team) -> None:
        event = {"type": "subsystem.report", "subject": {"kind": "s", "id": "x"}}
        await client(team.agent).post("/api/v1/events", json=event)
        await client(None).get("/api/v1/no/such/path")
        answer = await client(None).get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        for line in (
            'mission_control_requests_total{method="POST",route="/events",status="202"}',
            'mission_control_requests_total{method="GET",route="unmatched",status="404"}',
            'mission_control_events_ingested_total{type="subsystem.report"}',
            "mission_control_event_watchers 0.0",
            'mission_control_missions{status="open"} 0.0',
            "mission_control_pending_decisions 0.0",
        ):
            assert line in answer.text


class TestVersions:
    @pytest.mark.parametrize("version", ["v1", "v2"])
    async def test_both_prefixes_answer(self, client: Caller, team: Team, version: str) -> None:
        event = {"type": "subsystem.report", "subject": {"kind": "s", "id": "x"}}
        assert (await client(team.agent).post(f"/api/{version}/events", json=event)).status_code == 202

    async def test_a_version_may_differ_in_one_route(self, settings: Settings, team: Team) -> None:
        differs = router("trial")

        @differs.post("/events", dependencies=[INSIDE])
        async def post_event() -> Success[str]:
            return Success(data="another way")

        application = create_app(settings, {**VERSIONS, "v2": (differs, *VERSIONS["v2"])})
        event = {"type": "subsystem.report", "subject": {"kind": "s", "id": "x"}}
        async with running(application), asgi(application, team.agent) as agent:
            assert (await agent.post("/api/v2/events", json=event)).json()["data"] == "another way"
            assert "id" in (await agent.post("/api/v1/events", json=event)).json()["data"]


class TestRoutes:
    async def test_docs(self, client: Caller) -> None:
        page = await client(None).get("/api-docs")
        assert (page.status_code, page.headers["content-type"].split(";")[0]) == (200, "text/html")

    @pytest.mark.parametrize(("method", "path", "route"), all_routes())
    def test_each_declares_its_caller_and_its_query(self, method: str, path: str, route: APIRoute) -> None:
        assert isinstance(route, Route), "make routers with api.routing.router: it refuses what is not declared"
        assert (route.caller is None) == ((method, path) in PUBLIC)

    async def test_each_wants_a_key(self, client: Caller) -> None:
        for method, path, _ in all_routes():
            if (method, path) not in PUBLIC:
                answer = await client(None).request(method, path)
                wanted = 422 if (method, path) in STRANGERS_TOO else 401
                assert answer.status_code == wanted, f"{method} {path}"

    async def test_each_refuses_unknown_parameters(self, client: Caller, team: Team, db: Database) -> None:
        async with db.system() as session:
            root = await make_key(session, team.workspace_id, "root", role=Role.PLATFORM_ADMIN)
        for method, path, route in all_routes():
            key = team.agent if isinstance(route, Route) and route.caller and route.caller.callers.agents else root
            place = path.replace("{workspace_id}", team.workspace_id)
            answer = await client(key).request(method, f"{place}?no_such=1")
            assert answer.json()["error"]["code"] == "unknown_parameter", f"{method} {path}"
