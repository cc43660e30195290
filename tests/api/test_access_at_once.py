"""Who changes at the same moment who may do what: one after the other, and never in a ring."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from secrets import token_hex
from typing import Any

import httpx2
import psycopg
import pytest
from psycopg.rows import tuple_row

from models.domain.principals import Role
from models.store.connections import plain
from models.store.database import Database
from models.store.keys import note_uses
from tests.fixtures.access import make_key
from tests.fixtures.agents import admitted, registered
from tests.fixtures.api import Caller, Team
from tests.fixtures.waiting import eventually, somebody_waits

PEOPLE = [f"human-{number}" for number in range(4)]
WHY = {"explanation": "known to us"}


def act(api: httpx2.AsyncClient, kind: str, workspace_id: str, name: str, key_id: str, role: str) -> Any:
    """Begin one change of what somebody may do."""
    member = f"/api/v1/workspaces/{workspace_id}/members/{name}"
    return {
        "role": lambda: api.put(member, json={"role": role}),
        "remove": lambda: api.delete(member),
        "revoke": lambda: api.delete(f"/api/v1/keys/{key_id}"),
        "rotate": lambda: api.post(f"/api/v1/keys/{key_id}/rotate", json={"grace_hours": 1}),
        "create": lambda: api.post("/api/v1/keys", json={"principal": name}),
    }[kind]()


@pytest.mark.parametrize("kinds", ["role", "role remove", "role revoke rotate", "role remove revoke rotate create"])
async def test_a_crowd_is_answered_and_nobody_is_given_up(client: Caller, team: Team, kinds: str) -> None:
    api, drawn = client(team.admin), random.Random(3)  # a test's dice
    for _ in range(6):
        owned: dict[str, list[str]] = {}
        for name in PEOPLE:
            await act(api, "role", team.workspace_id, name, "", drawn.choice(["admin", "operator"]))
            made = [await act(api, "create", "", name, "", "") for _ in range(2)]
            owned[name] = [answer.json()["data"]["key_id"] for answer in made]
        crowd = []
        for _ in range(16):
            name, role = drawn.choice(PEOPLE), drawn.choice(["admin", "operator"])
            crowd.append(
                act(api, drawn.choice(kinds.split()), team.workspace_id, name, drawn.choice(owned[name]), role)
            )
        answers = await asyncio.gather(*crowd)
        assert [answer.text for answer in answers if answer.status_code >= 500] == []


@pytest.fixture
async def outside(database_url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A connection beside the API's."""
    async with await psycopg.AsyncConnection.connect(plain(database_url), row_factory=tuple_row) as connection:
        yield connection


async def hold_access(outside: psycopg.AsyncConnection[Any], workspace_id: str) -> None:
    """Take the lock of whoever changes who may do what in a workspace."""
    await outside.execute("SELECT pg_advisory_xact_lock(hashtextextended('access/' || %s, 0))", (workspace_id,))


CHANGES: Mapping[str, tuple[str, str, Any]] = {
    "a role": ("PUT", "/workspaces/{workspace}/members/olga", {"role": "operator"}),
    "a new member": ("PUT", "/workspaces/{workspace}/members/newcomer", {"role": "operator"}),
    "a removal": ("DELETE", "/workspaces/{workspace}/members/olga", None),
    "a deactivation": ("DELETE", "/principals/olga", None),
    "a new principal": ("POST", "/principals", {"name": "newcomer", "kind": "service"}),
    "a new key": ("POST", "/keys", {"principal": "olga"}),
    "a first key": ("POST", "/keys", {"principal": "newcomer", "kind": "service"}),
    "a rotation": ("POST", "/keys/{key}/rotate", {"grace_hours": 1}),
    "a revocation": ("DELETE", "/keys/{key}", None),
    "an agent's approval": ("POST", "/agents/{pending}/approve", WHY),
    "an agent's stop": ("POST", "/agents/probe/stop", None),
    "an agent's end": ("DELETE", "/agents/probe", None),
    "an agent's new key": ("POST", "/agents/probe/rotate-key", {"grace_hours": 1}),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_waits_for_its_turn_before_it_takes_anybody(
    client: Caller, team: Team, outside: psycopg.AsyncConnection[Any], change: str
) -> None:
    api = client(team.admin)
    key = (await api.post("/api/v1/keys", json={"principal": "olga", "role": "observer"})).json()["data"]["key_id"]
    await admitted(api, client, team)
    pending = (await registered(client(None), team, name="other"))["agent_id"]
    method, path, body = CHANGES[change]
    place = path.format(workspace=team.workspace_id, key=key, pending=pending)
    await hold_access(outside, team.workspace_id)
    asked = asyncio.create_task(api.request(method, f"/api/v1{place}", json=body))
    await eventually(lambda: somebody_waits(outside))
    for taken in (b"principal", b"api_key"):
        free = b"SELECT FROM %b WHERE workspace_id = %%s FOR UPDATE NOWAIT" % taken
        await outside.execute(free, (team.workspace_id,))
    await outside.rollback()
    assert (await asked).is_success


async def test_a_note_of_use_waits_for_nobody(
    client: Caller, team: Team, db: Database, outside: psycopg.AsyncConnection[Any]
) -> None:
    items = (await client(team.admin).get("/api/v1/keys")).json()["data"]["items"]
    at = (await (await outside.execute("SELECT now()")).fetchone() or [None])[0]
    uses = {(team.workspace_id, item["key_id"]): at for item in items}
    taken = items[0]["key_id"]
    await outside.execute("SELECT FROM api_key WHERE key_id = %s FOR UPDATE", (taken,))
    async with db.system() as session:
        assert await note_uses(session, uses) == uses.keys() - {(team.workspace_id, taken)}


@pytest.mark.parametrize("by", ["cookie", "visit"])
async def test_many_who_make_what_is_no_workspaces_hold_up_nobody(
    client: Caller, team: Team, other_team: Team, db: Database, by: str
) -> None:
    """Each looks again at its key, or at the place that it visits, while it holds a connection of the same kind."""
    async with db.system() as session:
        secret = await make_key(session, team.workspace_id, "root", role=Role.PLATFORM_ADMIN)
    many = client(secret)
    if by == "cookie":
        opened = await client(None).post("/api/v1/auth/session", json={"key": secret})
        many = client(None)
        many.headers["cookie"] = f"mission_control_session={opened.cookies['mission_control_session']}"
    else:
        many.headers["x-workspace"] = other_team.workspace_id
    sent = [many.post("/api/v1/workspaces", json={"slug": f"w-{token_hex(6)}", "name": "many"}) for _ in range(60)]
    assert {answer.status_code for answer in await asyncio.gather(*sent)} == {201}
