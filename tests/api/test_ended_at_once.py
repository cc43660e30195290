"""What ends a key, or what its owner may do, holds in the process that was told for the very next request."""

import asyncio
from typing import Any

import httpx2
import psycopg
import pytest

from api.keyring import KeyRing
from models.domain.errors import Unauthenticated
from models.store.connections import plain
from models.store.database import Database
from tests.fixtures.agents import admitted
from tests.fixtures.api import Caller, Team
from tests.fixtures.waiting import eventually

PEOPLE = [
    ("DELETE", "/keys/{key_id}", None, 401),
    ("POST", "/keys/{key_id}/rotate", {"grace_hours": 0}, 401),
    ("DELETE", "/principals/olga", None, 401),
    ("DELETE", "/workspaces/{workspace_id}/members/olga", None, 401),
    ("PUT", "/workspaces/{workspace_id}/members/olga", {"role": "observer"}, 403),
]
AGENTS = [
    ("DELETE", "/agents/probe", None, 401),
    ("POST", "/agents/probe/stop", None, 401),
    ("POST", "/agents/probe/pause", None, 409),
    ("POST", "/agents/probe/rotate-key", {"grace_hours": 0}, 401),
]


@pytest.fixture
def admin(client: Caller, team: Team) -> httpx2.AsyncClient:
    return client(team.admin)


@pytest.mark.parametrize(("verb", "path", "body", "refusal"), PEOPLE)
async def test_a_human_acts_no_more(
    admin: httpx2.AsyncClient, client: Caller, team: Team, verb: str, path: str, body: Any, refusal: int
) -> None:
    made = await admin.post("/api/v1/keys", json={"principal": "olga", "role": "operator"})
    key = made.json()["data"]
    olga = client(key["secret"])
    assert (await olga.get("/api/v1/status")).status_code == 200
    place = path.format(key_id=key["key_id"], workspace_id=team.workspace_id)
    ended = await admin.request(verb, f"/api/v1{place}", json=body)
    assert ended.is_success, ended.text
    assert (await olga.post("/api/v1/alerts/none/ack", json={})).status_code == refusal


@pytest.mark.parametrize(("verb", "path", "body", "refusal"), AGENTS)
async def test_an_agent_begins_nothing_more(
    admin: httpx2.AsyncClient, client: Caller, team: Team, verb: str, path: str, body: Any, refusal: int
) -> None:
    _, agent = await admitted(admin, client, team)
    assert (await agent.post("/api/v1/runs", json={})).status_code == 201
    assert (await admin.request(verb, f"/api/v1{path}", json=body)).is_success
    assert (await agent.post("/api/v1/runs", json={})).status_code == refusal


async def test_what_was_asked_before_is_not_kept(
    admin: httpx2.AsyncClient, db: Database, database_url: str, team: Team
) -> None:
    """Whose key it was may have been looked up just before that was changed."""
    key = (await admin.post("/api/v1/keys", json={"principal": "olga", "role": "operator"})).json()["data"]
    ring = KeyRing(db)
    async with await psycopg.AsyncConnection.connect(plain(database_url)) as locked:
        await locked.execute("LOCK TABLE api_key")
        asking = asyncio.create_task(ring.open(key["secret"]))

        async def waits() -> bool:
            found = await locked.execute("SELECT FROM pg_locks WHERE NOT granted AND relation = 'api_key'::regclass")
            return await found.fetchone() is not None

        await eventually(waits)
        ring.forget_all()
    assert (await asking).name == "olga"
    assert (await admin.delete(f"/api/v1/keys/{key['key_id']}")).status_code == 200
    with pytest.raises(Unauthenticated):
        await ring.open(key["secret"])
