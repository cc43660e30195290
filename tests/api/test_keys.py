"""API keys: who makes them, what they open, and how they end."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from api.registry import VERSIONS
from models.domain.principals import NOUNS, Role
from models.settings import Settings
from models.store.database import Database
from tests.fixtures.access import make_key, make_workspace
from tests.fixtures.api import NO_TEMPORAL, Caller, Team
from tests.fixtures.budgets import clock_moved
from tests.fixtures.keys import admin, made
from tests.fixtures.missions import refusal
from tests.fixtures.waiting import eventually
from worker.dev.ports import free_port

__all__ = ["admin"]

EVENT = {"type": "subsystem.report", "subject": {"kind": "subsystem", "id": "billing"}}


def refused(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


class TestCreate:
    async def test_it_opens_for_its_principal(self, admin: httpx2.AsyncClient, client: Caller) -> None:
        key = await made(admin)
        assert key["secret"].startswith(key["hint"])
        assert (key["created_by"], key["role"], key["scopes"]) == ("admin", "operator", [])
        assert (await client(key["secret"]).get("/api/v1/missions")).status_code == 200
        assert refused(await client(key["secret"]).get("/api/v1/keys")) == (403, "not_permitted")

    async def test_the_secret_is_shown_once(self, admin: httpx2.AsyncClient, db: Database) -> None:
        body, again = {"principal": "olga", "role": "operator"}, {"Idempotency-Key": "k"}
        first, second = [await admin.post("/api/v1/keys", json=body, headers=again) for _ in range(2)]
        secret = first.json()["data"]["secret"]
        assert second.json()["data"] == first.json()["data"] | {"secret": None}
        listed = await admin.get("/api/v1/keys")
        assert secret not in listed.text
        async with db.system() as session:
            for table in ("api_key", "idempotency", "event"):
                rows = (await session.execute(text(f"SELECT {table}::text FROM {table}"))).scalars()  # noqa: S608
                assert not any(secret in row for row in rows), table

    @pytest.mark.parametrize(
        "body",
        [
            {"kind": "agent"},
            {"kind": "system"},
            {"rate_per_minute": 0},
            {"principal": "policy"},
            {"principal": "a/b"},
            {"scopes": ["everything"]},
            {"expires_in_days": 0},
            {"expires_in_days": 1e300},
            {"principal": ""},
            {"secret": "mine"},
        ],
        ids=str,
    )
    async def test_what_makes_no_sense_is_refused(self, admin: httpx2.AsyncClient, body: dict[str, Any]) -> None:
        answer = await admin.post("/api/v1/keys", json={"principal": "olga", "role": "operator"} | body)
        assert refused(answer) == (422, "invalid_input")

    async def test_only_admins_make_keys(self, client: Caller, team: Team) -> None:
        for secret in (team.operator, team.observer, team.agent, team.service):
            answer = await client(secret).post("/api/v1/keys", json={"principal": "me", "role": "admin"})
            assert refused(answer) == (403, "not_permitted")

    async def test_each_is_told_of(self, admin: httpx2.AsyncClient, db: Database, team: Team) -> None:
        key = await made(admin)
        await admin.post(f"/api/v1/keys/{key['key_id']}/rotate", json={})
        await admin.delete(f"/api/v1/keys/{key['key_id']}")
        async with db.workspace(team.workspace_id) as session:
            told = (await session.execute(text("SELECT type, actor FROM event ORDER BY id"))).all()
        types = ["principal.created", *["api_key.created"] * 2, "api_key.rotated", "api_key.revoked"]
        assert [tuple(row) for row in told] == [(kind, "admin") for kind in types]


class TestScopes:
    @pytest.mark.parametrize(
        ("scopes", "reads", "posts"),
        [([], 200, 202), (["events"], 403, 202), (["read"], 200, 403), (["missions:read"], 200, 403)],
        ids=str,
    )
    async def test_a_key_does_what_it_is_for(
        self, admin: httpx2.AsyncClient, client: Caller, scopes: list[str], reads: int, posts: int
    ) -> None:
        key = await made(admin, principal="probe", kind="agent", role=None, scopes=scopes)
        caller = client(key["secret"])
        assert (await caller.get("/api/v1/missions")).status_code == reads
        assert (await caller.post("/api/v1/events", json=EVENT)).status_code == posts

    @pytest.mark.parametrize(
        ("owner", "scope", "status"),
        [
            ({"kind": "service", "role": None}, "decisions", 422),
            ({"kind": "service", "role": None}, "read", 422),
            ({"kind": "service", "role": None}, "events", 201),
            ({"kind": "agent", "role": None}, "audit", 422),
            ({"kind": "agent", "role": None}, "queue:read", 201),
            ({"role": "observer"}, "keys:read", 422),
            ({"role": "observer"}, "audit:read", 201),
        ],
        ids=str,
    )
    async def test_one_that_opens_nothing_is_refused(
        self, admin: httpx2.AsyncClient, owner: dict[str, Any], scope: str, status: int
    ) -> None:
        answer = await admin.post("/api/v1/keys", json={"principal": "probe", "scopes": ["activity", scope]} | owner)
        assert answer.status_code == status, answer.text
        if status == 422:
            assert answer.json()["error"]["code"] == "scope_opens_nothing"
            assert f"`{scope}`" in answer.json()["error"]["message"]
            assert (await admin.get("/api/v1/principals/probe")).status_code == 404, "nobody was made, either"

    async def test_each_is_kept_once(self, admin: httpx2.AsyncClient) -> None:
        key = await made(admin, scopes=["missions", "events", "missions"])
        assert key["scopes"] == ["missions", "events"]
        kept = (await admin.get(f"/api/v1/keys/{key['key_id']}")).json()["data"]
        assert kept["scopes"] == ["missions", "events"]

    async def test_a_refusal_names_them(self, admin: httpx2.AsyncClient, client: Caller) -> None:
        key = await made(admin, scopes=["events"])
        answer = await client(key["secret"]).get("/api/v1/missions")
        assert refused(answer) == (403, "out_of_scope")
        assert "events" in answer.json()["error"]["message"]

    def test_every_noun_of_the_api_is_one(self) -> None:
        assert {str(routes.tags[0]) for routes in VERSIONS["v1"]} == set(NOUNS)


class TestRotate:
    async def test_both_open_in_the_grace_period(self, admin: httpx2.AsyncClient, client: Caller) -> None:
        key = await made(admin, scopes=["missions"])
        answer = await admin.post(f"/api/v1/keys/{key['key_id']}/rotate", json={"grace_hours": 1})
        successor = answer.json()["data"]
        assert (successor["principal"], successor["scopes"]) == ("olga", ["missions"])
        for secret in (key["secret"], successor["secret"]):
            assert (await client(secret).get("/api/v1/missions")).status_code == 200
        old = (await admin.get(f"/api/v1/keys/{key['key_id']}")).json()["data"]
        assert (old["rotated_to"], old["expires_at"] is not None) == (successor["key_id"], True)

    async def test_left_out_the_grace_period_is_a_day(
        self, admin: httpx2.AsyncClient, client: Caller, database_url: str
    ) -> None:
        key = await made(admin)
        successor = (await admin.post(f"/api/v1/keys/{key['key_id']}/rotate", json={})).json()["data"]
        old = (await admin.get(f"/api/v1/keys/{key['key_id']}")).json()["data"]
        rotated, ends = (datetime.fromisoformat(at) for at in (successor["created_at"], old["expires_at"]))
        assert ends - rotated == timedelta(hours=24)
        async with clock_moved(database_url, "23 hours 59 minutes"):
            assert (await client(key["secret"]).get("/api/v1/missions")).status_code == 200
        async with clock_moved(database_url, "24 hours 1 minute"):
            await shut_out(client(key["secret"]))
            assert (await client(successor["secret"]).get("/api/v1/missions")).status_code == 200

    async def test_the_shortest_life_is_no_everlasting_one(self, admin: httpx2.AsyncClient, client: Caller) -> None:
        key = await made(admin, expires_in_days=1e-12)
        assert key["expires_at"]
        assert (await client(key["secret"]).get("/api/v1/missions")).status_code == 401

    async def test_the_successor_lives_no_longer_and_nor_does_the_old_one(self, admin: httpx2.AsyncClient) -> None:
        key = await made(admin, expires_in_days=0.5, rate_per_minute=70)
        rotated = await admin.post(f"/api/v1/keys/{key['key_id']}/rotate", json={"grace_hours": 168})
        successor, old = rotated.json()["data"], (await admin.get(f"/api/v1/keys/{key['key_id']}")).json()["data"]
        assert {successor["expires_at"], old["expires_at"]} == {key["expires_at"]}
        assert successor["rate_per_minute"] == 70

    async def test_who_lost_the_successor_is_sent_to_an_admin(self, admin: httpx2.AsyncClient, client: Caller) -> None:
        key = await made(admin)
        holder, rotate = client(key["secret"]), "/api/v1/keys/{}/rotate"
        successor = (await holder.post(rotate.format(key["key_id"]), json={})).json()["data"]["key_id"]
        again = await holder.post(rotate.format(key["key_id"]), json={})
        assert refusal(again) == (409, "key_rotated")
        assert "an admin rotates it" in again.json()["error"]["message"]
        assert (await admin.post(rotate.format(successor), json={})).status_code == 201

    async def test_the_old_one_ends_with_it(self, admin: httpx2.AsyncClient, client: Caller) -> None:
        key = await made(admin)
        assert (await client(key["secret"]).get("/api/v1/missions")).status_code == 200
        await admin.post(f"/api/v1/keys/{key['key_id']}/rotate", json={"grace_hours": 0})
        await shut_out(client(key["secret"]))

    async def test_whoever_holds_a_key_rotates_it(self, admin: httpx2.AsyncClient, client: Caller, team: Team) -> None:
        key = await made(admin, principal="probe", kind="agent", role=None)
        place = f"/api/v1/keys/{key['key_id']}/rotate"
        assert refused(await client(team.agent).post(place, json={})) == (404, "key_not_found")
        assert (await client(key["secret"]).post(place, json={})).status_code == 201
        assert refused(await client(key["secret"]).post(place, json={})) == (409, "key_rotated")

    @pytest.mark.parametrize("hours", [-1, 169, "NaN"])
    async def test_a_grace_period_has_bounds(self, admin: httpx2.AsyncClient, hours: Any) -> None:
        key = await made(admin)
        answer = await admin.post(f"/api/v1/keys/{key['key_id']}/rotate", json={"grace_hours": hours})
        assert refused(answer) == (422, "invalid_input")

    async def test_what_has_ended_has_no_successor(self, admin: httpx2.AsyncClient) -> None:
        key = await made(admin)
        await admin.delete(f"/api/v1/keys/{key['key_id']}")
        assert refused(await admin.post(f"/api/v1/keys/{key['key_id']}/rotate", json={})) == (409, "key_ended")


class TestRevoke:
    async def test_it_opens_nothing_within_a_second(self, admin: httpx2.AsyncClient, client: Caller) -> None:
        key = await made(admin)
        caller = client(key["secret"])
        assert (await caller.get("/api/v1/missions")).status_code == 200
        for _ in range(2):
            assert (await admin.delete(f"/api/v1/keys/{key['key_id']}")).status_code == 200
        await shut_out(caller)

    async def test_it_is_dead_in_every_process_within_a_second(
        self, admin: httpx2.AsyncClient, settings: Settings
    ) -> None:
        """Measured from the answer; where the machine was busy with other things, again."""
        async with process(settings) as one, process(settings) as two:
            took: list[float] = []
            while len(took) < 3 and (not took or min(took) > 1):
                took.append(await lasting(admin, await made(admin), (one, two)))
        assert min(took) <= 1

    async def test_its_event_stream_ends(self, admin: httpx2.AsyncClient, address: str) -> None:
        key = await made(admin)
        headers = {"X-API-Key": key["secret"]}
        async with (
            httpx2.AsyncClient(base_url=address, headers=headers, timeout=10) as browser,
            browser.stream("GET", "/api/v1/events") as stream,
        ):
            chunks = stream.aiter_bytes()
            assert await anext(chunks) == b": open\n\n"
            await admin.delete(f"/api/v1/keys/{key['key_id']}")
            async with asyncio.timeout(5):
                heard = b"".join([chunk async for chunk in chunks])
        assert heard.count(b"\nevent: ") <= 3, "of what came meanwhile"

    async def test_the_stream_of_a_visitor_ends_with_the_right_to_visit(
        self, db: Database, address: str, other_team: Team
    ) -> None:
        """A platform admin of another workspace becomes a mere observer at home."""
        async with db.system() as session:
            await make_workspace(session, "home")
            secret = await make_key(session, "home", "olga", role=Role.PLATFORM_ADMIN)
        headers = {"X-API-Key": secret, "X-Workspace": other_team.workspace_id}
        async with (
            httpx2.AsyncClient(base_url=address, headers=headers, timeout=10) as visitor,
            visitor.stream("GET", "/api/v1/events") as stream,
        ):
            chunks = stream.aiter_bytes()
            assert await anext(chunks) == b": open\n\n"
            async with db.system() as session:
                await make_key(session, "home", "olga", role=Role.OBSERVER)
            async with asyncio.timeout(5):
                assert b"event: " not in b"".join([chunk async for chunk in chunks])

    async def test_the_last_admin_key_stays(self, admin: httpx2.AsyncClient, client: Caller) -> None:
        [own] = (await admin.get("/api/v1/keys?role=admin")).json()["data"]["items"]
        place = f"/api/v1/keys/{own['key_id']}"
        assert refused(await admin.delete(place)) == (409, "last_admin_key")
        await made(admin, principal="anna", role="admin", expires_in_days=1)
        assert refused(await admin.delete(place)) == (409, "last_admin_key"), "one that expires is no way back in"
        other = await made(admin, principal="anna", role=None)
        answers = await asyncio.gather(
            admin.delete(place), client(other["secret"]).delete(f"/api/v1/keys/{other['key_id']}")
        )
        assert sorted(answer.status_code for answer in answers) == [200, 409], "one of two at once"


class TestState:
    async def test_is_that_of_the_databases_clock(
        self, admin: httpx2.AsyncClient, client: Caller, database_url: str
    ) -> None:
        key = await made(admin, expires_in_days=0.5)
        place = f"/api/v1/keys/{key['key_id']}"
        async with clock_moved(database_url, "1 day"):
            assert (await client(key["secret"]).get("/api/v1/missions")).status_code == 401
            listed = (await admin.get("/api/v1/keys")).json()["data"]["items"]
            states = [(await admin.get(place)).json()["data"]["state"]]
            states += [item["state"] for item in listed if item["key_id"] == key["key_id"]]
        assert states == ["expired", "expired"]
        assert (await admin.get(place)).json()["data"]["state"] == key["state"] == "active"


class TestList:
    async def test_it_is_filtered_and_paged(self, admin: httpx2.AsyncClient) -> None:
        ids = [(await made(admin, principal=f"agent-{n}", kind="agent", role=None))["key_id"] for n in range(3)]
        first = (await admin.get("/api/v1/keys?kind=agent&limit=2&sort=created_at")).json()["data"]
        second = (await admin.get(f"/api/v1/keys?kind=agent&sort=created_at&cursor={first['next_cursor']}")).json()
        found = [key["key_id"] for page in (first, second["data"]) for key in page["items"]]
        assert found[-3:] == ids

    async def test_another_workspaces_keys_are_not_there(
        self, client: Caller, admin: httpx2.AsyncClient, other_team: Team
    ) -> None:
        key, stranger = await made(admin), client(other_team.admin)
        assert key["key_id"] not in (await stranger.get("/api/v1/keys")).text
        place = f"/api/v1/keys/{key['key_id']}"
        for answer in (
            await stranger.get(place),
            await stranger.delete(place),
            await stranger.post(f"{place}/rotate", json={}),
        ):
            assert refused(answer) == (404, "key_not_found")

    async def test_when_a_key_was_used_is_written_now_and_then(
        self, admin: httpx2.AsyncClient, client: Caller, app: FastAPI
    ) -> None:
        key = await made(admin)
        await client(key["secret"]).get("/api/v1/missions")
        place = f"/api/v1/keys/{key['key_id']}"
        assert (await admin.get(place)).json()["data"]["last_used_at"] is None
        await app.state.services.keys.note_now()
        assert (await admin.get(place)).json()["data"]["last_used_at"] is not None


@asynccontextmanager
async def process(settings: Settings) -> AsyncIterator[str]:
    """Run an API as a process of its own on the same database; its address."""
    url, port = settings.database_url, free_port()
    assert url is not None
    own = {"DATABASE_URL": url.get_secret_value(), "TEMPORAL_ADDRESS": NO_TEMPORAL}
    own |= {"MC_API_PORT": str(port), "MC_DATA_DIR": str(settings.data_dir), "MC_HUMAN_REQUESTS_PER_MINUTE": "60000"}
    quiet = asyncio.subprocess.DEVNULL
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api", env=os.environ | own, stdout=quiet, stderr=quiet
    )
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as anyone:

            async def answers() -> bool:
                assert started.returncode is None
                with suppress(httpx2.TransportError):
                    return (await anyone.get("/api/v1/missions")).status_code == 401
                return False

            await eventually(answers)
            yield str(anyone.base_url)
    finally:
        started.terminate()
        await started.wait()


async def lasting(admin: httpx2.AsyncClient, key: dict[str, Any], addresses: tuple[str, ...]) -> float:
    """Revoke a key that every process knows; seconds until the last of them refuses it."""
    async with AsyncExitStack() as stack:
        headers = {"X-API-Key": key["secret"]}
        callers = [
            await stack.enter_async_context(httpx2.AsyncClient(base_url=address, headers=headers))
            for address in addresses
        ]
        for caller in callers:
            assert (await caller.get("/api/v1/missions")).status_code == 200
        assert (await admin.delete(f"/api/v1/keys/{key['key_id']}")).status_code == 200
        began = time.monotonic()
        return max(await asyncio.gather(*(refused_after(caller, began) for caller in callers)))


async def refused_after(caller: httpx2.AsyncClient, began: float) -> float:
    """Seconds until a request was sent that is refused."""
    asked = time.monotonic()
    while (await caller.get("/api/v1/missions")).status_code != 401:
        await asyncio.sleep(0.01)
        asked = time.monotonic()
    return asked - began


async def shut_out(caller: httpx2.AsyncClient) -> None:
    """Wait until a key opens nothing any more."""
    async with asyncio.timeout(3):
        while (await caller.get("/api/v1/missions")).status_code != 401:
            pass
