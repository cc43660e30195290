"""How often a key, and an address without one, may ask (API-08, V-41)."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.requests import HTTPConnection

from api import keyring
from api.app import create_app
from api.keyring import KeyRing
from api.limiter import MAX_COUNTED, Limiter
from models.domain.errors import RateLimited, Unauthenticated
from models.domain.principals import Kind, Principal, Role
from models.domain.rates import MAX_RATE
from models.settings import Settings
from models.store import keys
from models.store.database import Database
from tests.fixtures.access import make_key
from tests.fixtures.api import Team, running, served
from tests.fixtures.missions import refusal
from tests.fixtures.waiting import eventually

LIMITS: dict[str, Any] = {
    "human_requests_per_minute": 3,
    "agent_requests_per_minute": 5,
    "service_requests_per_minute": 6,
    "anonymous_requests_per_minute": 4,
}


@pytest.fixture
def shipped(settings: Settings) -> Settings:
    """Settings whose limits nobody has set."""
    return settings.model_copy(update={name: Settings.model_fields[name].default for name in LIMITS})


@asynccontextmanager
async def as_shipped(settings: Settings, key: str | None) -> AsyncIterator[httpx2.AsyncClient]:
    """A caller of an API with the limits that it comes with."""
    application = create_app(settings)
    async with running(application), caller(application, key, "192.0.2.1") as api:
        yield api


@asynccontextmanager
async def hurried(settings: Settings, address: str = "192.0.2.1", **limits: int) -> AsyncIterator[Any]:
    """An API with these limits, and its callers by key."""
    application = create_app(settings.model_copy(update=LIMITS | limits))
    async with running(application):
        yield lambda key=None, where=address: caller(application, key, where)


def caller(app: FastAPI, key: str | None, address: str) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False, client=(address, 1))
    headers = {"X-API-Key": key} if key else {}
    return httpx2.AsyncClient(transport=transport, base_url="http://test", headers=headers)


async def until_refused(client: httpx2.AsyncClient, path: str = "/api/v1/missions") -> list[httpx2.Response]:
    """Ask until there is nothing left; all answers."""
    answers = [await client.get(path)]
    while answers[-1].status_code != 429 and len(answers) < 50:
        answers.append(await client.get(path))
    return answers


@pytest.mark.parametrize(("kind", "limit"), [("observer", 3), ("agent", 5), ("service", 6)])
async def test_a_key_has_the_number_of_its_kind(settings: Settings, team: Team, kind: str, limit: int) -> None:
    async with hurried(settings) as client, client(getattr(team, kind)) as api:
        *passed, refused = await until_refused(api)
    assert len(passed) == limit
    assert [answer.headers["x-ratelimit-remaining"] for answer in passed] == [str(left) for left in range(limit)][::-1]
    for answer in (*passed, refused):
        assert answer.headers["x-ratelimit-limit"] == str(limit)
        assert 0 < int(answer.headers["x-ratelimit-reset"]) <= 60
    assert refused.json()["error"]["code"] == "rate_limited"
    assert 0 < int(refused.headers["retry-after"]) <= 60 // limit
    assert refused.headers["x-ratelimit-remaining"] == "0"


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("observer", 600), ("member", 600), ("operator", 600), ("admin", 600), ("agent", 1_200), ("service", 6_000)],
)
async def test_what_is_shipped(shipped: Settings, team: Team, kind: str, limit: int) -> None:
    async with as_shipped(shipped, getattr(team, kind)) as api:
        answers = [await api.get("/api/v1/missions") for _ in range(2)]
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {str(limit)}
    left = [int(answer.headers["x-ratelimit-remaining"]) for answer in answers]
    assert left in ([limit - 1, limit - 2], [limit - 1] * 2), "a service's comes back while one asks"


async def test_what_is_shipped_for_whoever_has_no_key(shipped: Settings) -> None:
    async with as_shipped(shipped, None) as api:
        *passed, refused = await until_refused(api)
    assert 30 <= len(passed) <= 31, "one comes back every two seconds"
    assert {answer.status_code for answer in passed} == {401}
    assert {answer.headers["x-ratelimit-limit"] for answer in (*passed, refused)} == {"30"}


EVENT = {"type": "subsystem.report", "subject": {"kind": "subsystem", "id": "billing"}}
ANSWERS = [
    ("observer", "GET", "/missions", 200),
    ("agent", "POST", "/events", 202),
    ("observer", "POST", "/events", 403),
    ("observer", "GET", "/missions/none", 404),
    ("observer", "GET", "/missions?colour=red", 422),
    ("operator", "POST", "/missions", 422),
    (None, "GET", "/missions", 401),
    (None, "POST", "/missions", 401),
    (None, "POST", "/agents", 422),
    (None, "POST", "/auth/session", 401),
]
"""Whoever asks for what, and the status of the answer."""


@pytest.mark.parametrize(("kind", "method", "path", "status"), ANSWERS)
async def test_each_answer_tells_what_is_left(
    settings: Settings, team: Team, kind: str | None, method: str, path: str, status: int
) -> None:
    bodies = {"/events": EVENT, "/auth/session": {"key": "mc_x"}}
    async with hurried(settings) as client, client(getattr(team, kind) if kind else None) as api:
        body = bodies.get(path, {}) if method == "POST" else None
        answer = await api.request(method, f"/api/v1{path}", json=body)
    assert answer.status_code == status, answer.text
    limit = {"agent": 5, None: 4}.get(kind, 3)
    assert answer.headers["x-ratelimit-limit"] == str(limit)
    assert answer.headers["x-ratelimit-remaining"] == str(limit - 1)
    assert 0 < int(answer.headers["x-ratelimit-reset"]) <= 60


async def test_keys_do_not_share_and_one_may_have_its_own_number(settings: Settings, team: Team, db: Database) -> None:
    """An admin may make it less than its kind's, and a platform admin more."""
    async with db.system() as session:
        secret = await make_key(session, team.workspace_id, "root", role=Role.PLATFORM_ADMIN)
    async with (
        hurried(settings) as client,
        client(team.admin) as admin,
        client(secret) as root,
        client(team.observer) as observer,
    ):
        more = {"principal": "observer", "rate_per_minute": 7}
        assert refusal(await admin.post("/api/v1/keys", json=more)) == (403, "platform_admins_only")
        assert (await admin.post("/api/v1/keys", json=more | {"rate_per_minute": 3})).status_code == 201
        made = await root.post("/api/v1/keys", json=more)
        assert len(await until_refused(observer)) == 4
        async with client(made.json()["data"]["secret"]) as other:
            assert len(await until_refused(other)) == 8


async def test_a_key_and_its_successors_share_one_number(settings: Settings, team: Team) -> None:
    async with hurried(settings) as client, client(team.agent) as agent, client(team.admin) as admin:
        [old] = (await admin.get("/api/v1/keys?principal=agent")).json()["data"]["items"]
        made = (await agent.post(f"/api/v1/keys/{old['key_id']}/rotate", json={})).json()["data"]
        async with client(made["secret"]) as second:
            again = await second.post(f"/api/v1/keys/{made['key_id']}/rotate", json={})
            async with client(again.json()["data"]["secret"]) as third:
                assert len(await until_refused(third)) == LIMITS["agent_requests_per_minute"] - 2 + 1
            for other in (agent, second):
                assert (await other.get("/api/v1/missions")).status_code == 429


@pytest.mark.parametrize("key", [None, "mc_unknown"])
async def test_without_a_good_key_it_is_the_address_that_counts(
    settings: Settings, team: Team, key: str | None
) -> None:
    async with hurried(settings) as client, client(key) as stranger, client(key, "192.0.2.2") as neighbour:
        statuses = [answer.status_code for answer in await until_refused(stranger)]
        assert statuses == [401] * 4 + [429]
        assert (await neighbour.get("/api/v1/missions")).status_code == 401
        async with client(team.observer) as known:
            assert (await known.get("/api/v1/missions")).status_code == 200


async def test_who_guesses_too_often_asks_postgres_no_more_and_takes_nothing_from_good_keys(
    settings: Settings, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    find = keys.find_all

    async def counted(db: Database, digests: Sequence[str]) -> dict[str, Principal]:
        asked.append(len(digests))
        return await find(db, digests)

    monkeypatch.setattr(keys, "find_all", counted)
    monkeypatch.setattr(keyring, "KEEP_SECONDS", 0.0)
    limits = {"anonymous_requests_per_minute": 30, "human_requests_per_minute": MAX_RATE}
    async with hurried(settings, "192.0.2.1", **limits) as client, client(team.observer) as known:

        async def guess(number: int) -> int:
            async with client(f"mc_{number}") as stranger:
                answer: httpx2.Response = await stranger.get("/api/v1/missions")
            return answer.status_code

        assert (await known.get("/api/v1/missions")).status_code == 200
        begun = time.monotonic()
        guesses = asyncio.gather(*(guess(number) for number in range(300)))
        async with client(team.operator) as fresh:
            answers = await asyncio.gather(*(one.get("/api/v1/missions") for one in (known, fresh) * 5))
        statuses = await guesses
    come_back = math.ceil((time.monotonic() - begun) * 30 / 60)
    assert {answer.status_code for answer in answers} == {200}
    assert 30 <= statuses.count(401) <= 30 + come_back
    assert statuses.count(401) + statuses.count(429) == 300
    assert len(asked) < 30 + come_back + 1 + 10 + 20, "those beyond the limit are asked together"
    assert sum(asked) >= 300


def test_a_good_key_costs_its_address_nothing(settings: Settings) -> None:
    limiter = Limiter(settings.model_copy(update=LIMITS))
    for _ in range(20):
        with limiter.guess(connection()) as may_ask:
            assert may_ask
        with pytest.raises(OSError, match="away"), limiter.guess(connection()):
            raise OSError("away")
    for _ in range(4):
        with pytest.raises(Unauthenticated), limiter.guess(connection()):
            raise Unauthenticated("invalid_api_key", "no")
    with limiter.guess(connection()) as may_ask:
        assert not may_ask


async def test_an_ipv6_network_is_one_address(settings: Settings) -> None:
    async with hurried(settings) as client:
        for last in range(4):
            async with client(None, f"2001:db8:1:2::{last}") as one:
                assert (await one.get("/api/v1/missions")).status_code == 401
        async with client(None, "2001:db8:1:2:ffff::1") as same, client(None, "2001:db8:1:3::1") as other:
            assert (await same.get("/api/v1/missions")).status_code == 429
            assert (await other.get("/api/v1/missions")).status_code == 401


async def test_registrations_are_five_an_hour(settings: Settings, team: Team) -> None:
    async with hurried(settings, anonymous_requests_per_minute=100) as client, client() as stranger:
        bodies = [
            {"name": f"a{n}", "endpoint": "https://example.org", "workspace": team.workspace_id} for n in range(6)
        ]
        answers = [await stranger.post("/api/v1/agents", json=body) for body in bodies]
    assert [answer.status_code for answer in answers] == [201] * 5 + [429]
    assert 60 < int(answers[-1].headers["retry-after"]) <= 12 * 60


async def test_keys_are_guessed_no_faster_through_sessions(settings: Settings) -> None:
    async with hurried(settings) as client, client() as stranger:
        tries = [await stranger.post("/api/v1/auth/session", json={"key": "mc_x"}) for _ in range(5)]
    assert [answer.status_code for answer in tries] == [401] * 4 + [429]


async def test_postgres_is_asked_of_an_unknown_key_once_a_second(db: Database, team: Team) -> None:
    ring, secret = KeyRing(db), keys.new_secret()
    with pytest.raises(Unauthenticated):
        await ring.open(secret)
    async with db.system() as session:
        await make_key(session, team.workspace_id, "late", role=Role.OBSERVER, secret=secret)
    with pytest.raises(Unauthenticated):
        await ring.open(secret)

    async def is_known() -> bool:
        with suppress(Unauthenticated):
            return bool(await ring.open(secret))
        return False

    assert await eventually(is_known, 5)


async def test_guesses_fill_no_memory(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "MAX_KEPT", 3)
    ring = KeyRing(db)
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            await ring.open(keys.new_secret())
    assert len(ring._unknown) <= 3


@pytest.mark.parametrize(("proxies", "statuses"), [("", [401, 429]), ("127.0.0.1", [401, 401])])
async def test_only_a_proxy_that_is_named_says_where_a_request_comes_from(
    settings: Settings, proxies: str, statuses: list[int]
) -> None:
    limited = settings.model_copy(update={"anonymous_requests_per_minute": 1, "trusted_proxies": proxies})
    async with served(limited) as url, httpx2.AsyncClient(base_url=url) as here:
        answers = [
            await here.get("/api/v1/missions", headers={"X-Forwarded-For": f"192.0.2.{last}"}) for last in (1, 2)
        ]
    assert [answer.status_code for answer in answers] == statuses


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/", 404),
        ("DELETE", "/api/v1/missions", 405),
        ("GET", "/api/openapi", 200),
        ("GET", "/api-docs", 200),
        ("POST", "/api-docs", 405),
    ],
)
async def test_what_no_route_of_a_key_answers_is_counted(
    settings: Settings, team: Team, method: str, path: str, status: int
) -> None:
    async with hurried(settings) as client, client() as stranger, client(team.observer) as known:
        answers = [await stranger.request(method, path) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [status] * 4 + [429]
        assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["3", "2", "1", "0", "0"]
        assert 0 < int(answers[-1].headers["retry-after"]) <= 15
        assert (await known.get("/api/v1/missions")).headers["x-ratelimit-remaining"] == "2"
        if status != 200:
            again = await known.request(method, path)
            own = ("3", "1") if path != "/api-docs" else ("4", "0")
            assert (again.headers["x-ratelimit-limit"], again.headers["x-ratelimit-remaining"]) == own


async def test_liveness_is_not_counted(settings: Settings) -> None:
    async with hurried(settings) as client, client() as inside:
        answers = [await inside.request(method, "/healthz") for _ in range(9) for method in ("GET", "HEAD")]
    assert [answer.status_code for answer in answers] == [200, 405] * 9


async def test_it_writes_nothing(settings: Settings, team: Team, db: Database) -> None:
    async with hurried(settings) as client, client(team.observer) as api:
        before = await next_xid(db)
        await until_refused(api)
        assert await next_xid(db) == before


async def next_xid(db: Database) -> str:
    """The number of the next transaction that writes."""
    async with db.system() as session:
        return str((await session.execute(text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))).scalar_one())


def connection() -> HTTPConnection:
    """A request of nobody in particular."""
    return HTTPConnection({"type": "http"})


def test_its_memory_is_bounded(settings: Settings) -> None:
    limiter, asked = Limiter(settings), connection()
    for number in range(MAX_COUNTED + 100):
        principal = Principal("w", "p", Kind.SERVICE, None, f"key_{number}")
        limiter.count(asked, principal)
    assert len(limiter._full_at) <= MAX_COUNTED


def test_a_refusal_says_when(settings: Settings) -> None:
    limiter = Limiter(settings.model_copy(update=LIMITS))
    principal = Principal("w", "p", Kind.HUMAN, None, "key")
    for _ in range(3):
        limiter.count(connection(), principal)
    with pytest.raises(RateLimited) as refused:
        limiter.count(connection(), principal)
    assert refused.value.details == {"limit": 3, "wait_seconds": 20}
    assert refused.value.message == "3 requests a minute are used up; try again in 20 s"


def test_one_request_is_one(settings: Settings) -> None:
    limiter, principal = Limiter(settings), Principal("w", "p", Kind.HUMAN, None, "key", rate=1)
    limiter.count(connection(), principal)
    with pytest.raises(RateLimited, match=r"^1 request a minute is used up; "):
        limiter.count(connection(), principal)
