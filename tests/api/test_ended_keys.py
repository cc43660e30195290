"""Keys that have ended stay so, also while the database's clock is back at a time when they had not."""

from collections.abc import Sequence
from typing import Any

import httpx2
from sqlalchemy import text

from models.store import keys
from models.store.database import Database
from models.store.migrate import migrate
from tests.fixtures.api import Caller, Team
from tests.fixtures.budgets import clock_moved, told
from tests.fixtures.keys import admin, made
from tests.fixtures.missions import refusal
from tests.fixtures.servers import PostgresServer
from tests.fixtures.sql import rows

__all__ = ["admin"]

BACK = ("-5 seconds", "-1 hour", "-1 day")
EXPIRED = {"expires_in_days": 1e-12}


async def rotated(admin: httpx2.AsyncClient, key: dict[str, Any], hours: float = 0) -> dict[str, Any]:
    answer = await admin.post(f"/api/v1/keys/{key['key_id']}/rotate", json={"grace_hours": hours})
    assert answer.status_code == 201, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


async def opening(db: Database, url: str, made: Sequence[dict[str, Any]]) -> set[str]:
    """Which of these keys open anything at one of those times."""
    found = set()
    for moved in BACK:
        async with clock_moved(url, moved):
            owners = await keys.find_all(db, [keys.digest(key["secret"]) for key in made])
            found |= {owner.key_id for owner in owners.values()}
    return found


async def of_keys(db: Database, team: Team) -> list[tuple[str, str]]:
    return [(row["type"], row["subject_id"]) for row in await told(db, team.workspace_id, "api_key.%")]


async def test_one_that_was_rotated_without_grace(
    db: Database, admin: httpx2.AsyncClient, team: Team, database_url: str
) -> None:
    old = await made(admin)
    new = await rotated(admin, old)
    assert await opening(db, database_url, [old, new]) == {new["key_id"]}
    shown = (await admin.get(f"/api/v1/keys/{old['key_id']}")).json()["data"]
    assert (shown["state"], shown["rotated_to"]) == ("revoked", new["key_id"])
    assert shown["revoked_at"] == shown["expires_at"] == new["created_at"]
    assert refusal(await admin.post(f"/api/v1/keys/{old['key_id']}/rotate", json={})) == (409, "key_rotated")
    about = [("api_key.created", old["key_id"]), ("api_key.created", new["key_id"]), ("api_key.rotated", old["key_id"])]
    assert (await of_keys(db, team))[-3:] == about


async def test_those_of_one_who_was_removed_and_came_back(
    db: Database, admin: httpx2.AsyncClient, team: Team, database_url: str
) -> None:
    ended = [await made(admin, **EXPIRED), await made(admin)]
    assert (await admin.delete("/api/v1/principals/olga")).status_code == 200
    assert await opening(db, database_url, ended) == set()
    assert (await of_keys(db, team))[-1:] == [("api_key.revoked", ended[1]["key_id"])], "the other had ended before"
    back = await admin.put(f"/api/v1/workspaces/{team.workspace_id}/members/olga", json={"role": "operator"})
    assert back.status_code == 200, back.text
    new = await made(admin)
    assert await opening(db, database_url, [*ended, new]) == {new["key_id"]}


async def test_those_of_an_agent_that_was_stopped_and_resumed(
    db: Database, admin: httpx2.AsyncClient, database_url: str
) -> None:
    await admin.post("/api/v1/agents", json={"name": "probe", "endpoint": "https://a.example/", "capabilities": ["x"]})
    assert (await admin.post("/api/v1/agents/probe/approve", json={"explanation": "ok"})).status_code == 200
    old = (await admin.post("/api/v1/agents/probe/rotate-key", json={})).json()["data"]
    expired = await made(admin, principal="probe", kind="agent", role=None, **EXPIRED)
    for verb in ("stop", "resume"):
        assert (await admin.post(f"/api/v1/agents/probe/{verb}", json={"reason": "x"})).status_code == 200
    assert await opening(db, database_url, [old, expired]) == set()


async def test_one_whose_owner_was_deactivated_opens_nothing(
    db: Database, admin: httpx2.AsyncClient, client: Caller, team: Team
) -> None:
    key = await made(admin)
    lent = await client(None).post("/api/v1/auth/session", json={"key": key["secret"]})
    cookie = lent.headers["set-cookie"].split("=", 1)[1].split(";")[0]
    for seen in (True, False):
        assert (await keys.find(db, keys.digest(key["secret"])) is not None) == seen
        assert bool(await keys.find_sessions(db, [keys.digest(cookie)])) == seen
        async with db.system() as session:
            ended = "UPDATE principal SET deactivated_at = mc_now() WHERE workspace_id = :w AND name = 'olga'"
            await session.execute(text(ended), {"w": team.workspace_id})


OLD = """
INSERT INTO workspace (workspace_id, slug, name) VALUES ('w', 'w', 'W');
INSERT INTO principal (workspace_id, name, kind, role, created_by, deactivated_at) VALUES
    ('w', 'olga', 'human', 'operator', 'x', NULL), ('w', 'gone', 'human', 'operator', 'x', '2026-01-05Z');
INSERT INTO api_key
    (workspace_id, key_id, lineage, digest, principal, kind, role, rotated_to, created_at, expires_at, revoked_at)
SELECT 'w', id, id, id, who, 'human', 'operator', successor, CAST(made AS date), CAST(ends AS date), CAST(off AS date)
FROM (VALUES
    ('grace-0', 'olga', 'new', '2026-01-01', '2026-01-02', NULL), ('new', 'olga', NULL, '2026-01-02', NULL, NULL),
    ('grace-1', 'olga', 'new', '2026-01-01', '2026-01-03', NULL),
    ('old', 'olga', NULL, '2026-01-01', '2026-01-02', NULL),
    ('left', 'gone', NULL, '2026-01-01', '2026-01-02', NULL), ('off', 'gone', NULL, '2026-01-01', NULL, '2026-01-04')
) AS t (id, who, successor, made, ends, off);
"""


def test_those_that_ended_so_before_are_revoked(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    migrate(url, "0046")
    rows(url, OLD)
    migrate(url)
    found = "SELECT key_id, CAST(revoked_at AS date)::text FROM api_key WHERE revoked_at IS NOT NULL ORDER BY 1"
    assert rows(url, found) == [("grace-0", "2026-01-02"), ("left", "2026-01-05"), ("off", "2026-01-04")]
