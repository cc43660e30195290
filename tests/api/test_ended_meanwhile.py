"""Whose key is ended while what they asked for waits for its turn changes nothing."""

import asyncio
from typing import Any

import httpx2
import psycopg
import pytest

from models.domain.principals import Role
from models.store.connections import plain
from models.store.database import Database
from tests.fixtures.access import make_key
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo
from tests.fixtures.policies import put_to_several
from tests.fixtures.waiting import eventually, somebody_waits

__all__ = ["repo"]

API = "/api/v1"
TURN = "SELECT pg_advisory_xact_lock(hashtextextended('access/' || %s, 0))"
MANY = 120
"""Requests: more than there are connections, and than the first of them keep busy for a moment."""


async def made(admin: httpx2.AsyncClient, name: str, role: str) -> dict[str, Any]:
    key: dict[str, Any] = (await admin.post(f"{API}/keys", json={"principal": name, "role": role})).json()["data"]
    return key


@pytest.mark.parametrize("ended", ["key", "member"])
async def test_of_very_many_requests_none_is_done_afterwards(
    client: Caller, team: Team, db: Database, ended: str
) -> None:
    root = client(team.admin)
    await root.post(f"{API}/principals", json={"name": "puppet", "role": "admin"})
    key = await made(root, "boss", "admin")
    boss = client(key["secret"])
    asking = [asyncio.create_task(boss.post(f"{API}/keys", json={"principal": "puppet"})) for _ in range(MANY)]
    await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    place = f"keys/{key['key_id']}" if ended == "key" else f"workspaces/{team.workspace_id}/members/boss"
    assert (await root.delete(f"{API}/{place}")).status_code == 200
    answers = {(await each).status_code for each in asking}
    late = """
        SELECT FROM event WHERE type = 'api_key.created' AND actor = 'boss' AND (epoch, event.xid, id) > (
            SELECT epoch, event.xid, id FROM event WHERE type IN ('api_key.revoked', 'principal.deactivated')
            ORDER BY epoch, event.xid, id LIMIT 1)
    """
    assert (answers, await db.alone(team.workspace_id, late, {})) == ({201, 401}, [])


@pytest.mark.parametrize("ended", ["key", "rotated", "member"])
@pytest.mark.parametrize("people", [1, 2])
async def test_whoever_is_ended_answers_nothing(
    client: Caller, team: Team, db: Database, database_url: str, repo: Repo, people: int, ended: str
) -> None:
    root = client(team.admin)
    mission = (await filed(root, repo))["mission_id"]
    decision = await put_to_several(db, team.workspace_id, mission, people)
    key = await made(root, "olga", "operator")
    olga = client(key["secret"])
    async with await psycopg.AsyncConnection.connect(plain(database_url)) as holding:
        await holding.execute("SELECT FROM decision WHERE decision_id = %s FOR UPDATE", [decision])
        body = {"decision": "approve", "explanation": "looked at it"}
        answering = asyncio.create_task(olga.post(f"{API}/decisions/{decision}/resolve", json=body))
        await eventually(lambda: somebody_waits(holding))
        if ended == "rotated":
            gone = await root.post(f"{API}/keys/{key['key_id']}/rotate", json={"grace_hours": 0})
        else:
            place = f"keys/{key['key_id']}" if ended == "key" else f"workspaces/{team.workspace_id}/members/olga"
            gone = await root.delete(f"{API}/{place}")
        assert gone.is_success, gone.text
    assert refusal(await answering) == (403, "not_permitted")


async def test_whoever_is_ended_at_home_answers_nothing_where_they_visit(
    client: Caller, team: Team, other_team: Team, db: Database, database_url: str, repo: Repo
) -> None:
    mission = (await filed(client(other_team.admin), repo))["mission_id"]
    decision = await put_to_several(db, other_team.workspace_id, mission, 1)
    async with db.system() as session:
        secrets = [
            await make_key(session, team.workspace_id, name, role=Role.PLATFORM_ADMIN) for name in ("visitor", "root")
        ]
    visitor, root = (client(secret) for secret in secrets)
    async with await psycopg.AsyncConnection.connect(plain(database_url)) as holding:
        await holding.execute("SELECT FROM decision WHERE decision_id = %s FOR UPDATE", [decision])
        body, there = {"decision": "approve", "explanation": "so"}, {"X-Workspace": other_team.workspace_id}
        answering = asyncio.create_task(visitor.post(f"{API}/decisions/{decision}/resolve", json=body, headers=there))
        await eventually(lambda: somebody_waits(holding))
        gone = await root.delete(f"{API}/workspaces/{team.workspace_id}/members/visitor")
        assert gone.status_code == 200
    assert refusal(await answering) == (401, "invalid_api_key")


async def test_nobody_lets_an_agent_in_behind_their_own_end(
    client: Caller, team: Team, db: Database, database_url: str
) -> None:
    root = client(team.admin)
    key = await made(root, "boss", "admin")
    probe = {"name": "probe", "endpoint": "https://agents.example.org", "capabilities": ["coding"]}
    agent_id = (await root.post(f"{API}/agents", json=probe)).json()["data"]["agent_id"]
    async with await psycopg.AsyncConnection.connect(plain(database_url)) as before:
        await before.execute(TURN, [team.workspace_id])
        body = {"decision": "approve", "explanation": "known"}
        place = f"{API}/decisions/{agent_id}.registration/resolve"
        answering = asyncio.create_task(client(key["secret"]).post(place, json=body))
        await eventually(lambda: somebody_waits(before))
        await before.execute("UPDATE api_key SET revoked_at = now() WHERE key_id = %s", [key["key_id"]])
        await before.commit()
    assert refusal(await answering) == (403, "not_permitted")


async def test_each_turn_is_as_those_before_have_left_it(client: Caller, team: Team, database_url: str) -> None:
    """Also where another process had the turn, and this one still knows the key to be good."""
    root = client(team.admin)
    key = await made(root, "boss", "admin")
    boss = client(key["secret"])
    async with await psycopg.AsyncConnection.connect(plain(database_url)) as before:
        await before.execute(TURN, [team.workspace_id])
        asking = asyncio.create_task(boss.post(f"{API}/keys", json={"principal": "puppet", "role": "observer"}))
        await eventually(lambda: somebody_waits(before))
        await before.execute("UPDATE api_key SET revoked_at = now() WHERE key_id = %s", [key["key_id"]])
        await before.commit()
    assert refusal(await asking) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("workspaces/{place}/members/boss", {"role": "platform_admin"}),
        ("workspaces/{place}/members/puppet", {"role": "platform_admin"}),
        ("keys", {"principal": "root"}),
    ],
)
async def test_whoever_is_lowered_acts_in_no_role_that_they_have_lost(
    client: Caller, team: Team, db: Database, database_url: str, path: str, body: dict[str, str]
) -> None:
    """The route would serve their new role, too."""
    async with db.system() as session:
        root, boss, _ = [
            client(await make_key(session, team.workspace_id, name, role=role))
            for name, role in [("root", TOP), ("boss", TOP), ("puppet", Role.OPERATOR)]
        ]
    members = f"{API}/workspaces/{team.workspace_id}/members"
    async with await psycopg.AsyncConnection.connect(plain(database_url)) as before:
        await before.execute(TURN, [team.workspace_id])
        lowering = asyncio.create_task(root.put(f"{members}/boss", json={"role": "admin"}))
        await eventually(lambda: waiting(before, 1))
        place = f"{API}/{path.format(place=team.workspace_id)}"
        asking = asyncio.create_task(boss.request("POST" if path == "keys" else "PUT", place, json=body))
        await eventually(lambda: waiting(before, 2))
    assert (await lowering).status_code == 200
    assert refusal(await asking) == (409, "role_changed")


TOP = Role.PLATFORM_ADMIN


async def waiting(holding: psycopg.AsyncConnection, count: int) -> bool:
    """So many wait for the turn that is held there."""
    found = await holding.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    return await found.fetchone() == (count,)


async def test_whoever_is_ended_corrects_nothing(client: Caller, team: Team, database_url: str) -> None:
    service, root = client(team.service), client(team.admin)
    run = (await service.post(f"{API}/runs", json={"ticket_id": "T-1"})).json()["data"]["run_id"]
    assert (await service.post(f"{API}/runs/{run}/costs", json={"usd": "1"})).status_code == 201
    key = await made(root, "boss", "admin")
    async with await psycopg.AsyncConnection.connect(plain(database_url)) as holding:
        await holding.execute("SELECT FROM budget WHERE workspace_id = %s FOR UPDATE", [team.workspace_id])
        correction = {"usd": "-0.5", "reason": "a refund"}
        asking = asyncio.create_task(client(key["secret"]).post(f"{API}/runs/{run}/adjustments", json=correction))
        await eventually(lambda: somebody_waits(holding))
        assert (await root.delete(f"{API}/keys/{key['key_id']}")).status_code == 200
    assert refusal(await asking) == (401, "invalid_api_key")
    assert (await root.get(f"{API}/runs/{run}")).json()["data"]["usd"] == "1"
