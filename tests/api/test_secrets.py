"""Keys stay with who holds them: none is in a log, an event, an error or any row, wherever a client may put it."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from models.store.database import Database
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo
from tests.fixtures.logs import logged
from tests.fixtures.misplaced import misplace
from tests.fixtures.missions import filed, repo

__all__ = ["logged", "repo"]
TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"


async def test_they_leave_no_trace(
    client: Caller,
    team: Team,
    app: FastAPI,
    db: Database,
    repo: Repo,
    capsys: pytest.CaptureFixture[str],
    logged: Callable[[], Callable[[], Any]],
) -> None:
    logged()
    api, said = client(team.admin), []
    secrets = await use_every_kind(api, client, team, repo)
    assert len(secrets) == 7
    for secret in secrets:
        said += await misplace(client(secret), secret)
    await app.state.services.keys.note_now()
    printed = capsys.readouterr()
    assert '"event": "request"' in printed.out, "it was logged"
    stored = await everything(db)
    assert "api_key.created" in stored, "it was stored"
    for secret in secrets:
        for place, found in {"a log": printed.out + printed.err, "a row": stored, "an error": "".join(said)}.items():
            assert secret not in found, f"{secret[:4]}… is in {place}"


async def use_every_kind(api: httpx2.AsyncClient, client: Caller, team: Team, repo: Repo) -> set[str]:
    """Do with keys, tokens and cookies what they are for; all of them."""
    once = {"Idempotency-Key": "once"}
    made = (await api.post("/api/v1/keys", json={"principal": "operator"}, headers=once)).json()["data"]
    rotated = await api.post(f"/api/v1/keys/{made['key_id']}/rotate", json={}, headers={"Idempotency-Key": "2"})
    asked = await client(None).post("/api/v1/agents", json=AGENT | {"workspace": team.workspace_id})
    registered = asked.json()["data"]
    place = f"/api/v1/agents/{registered['agent_id']}"
    await api.post(f"{place}/approve", json={"explanation": "known"})
    agent = (await client(registered["registration_token"]).get(place)).json()["data"]["key"]
    renewed = await client(agent).post(f"{place}/rotate-key", json={})
    browser = client(None)
    opened = await browser.post("/api/v1/auth/session", json={"key": made["secret"]})
    cookie = opened.headers["set-cookie"].split("=", 1)[1].split(";")[0]
    await filed(client(made["secret"]), repo)
    return {
        team.admin,
        made["secret"],
        rotated.json()["data"]["secret"],
        registered["registration_token"],
        agent,
        renewed.json()["data"]["secret"],
        cookie,
    }


AGENT = {"name": "probe", "endpoint": "https://agents.example.org/probe"}


async def everything(db: Database) -> str:
    """All rows of all tables, as text."""
    dump: list[str] = []
    async with db.system() as session:
        for table in (await session.execute(text(TABLES))).scalars().all():
            if await may_read(session, table):
                dump += (await session.execute(text(f'SELECT t::text FROM "{table}" t'))).scalars().all()  # noqa: S608
    return "\n".join(dump)


async def may_read(session: Any, table: str) -> bool:
    allowed = await session.execute(text("SELECT has_table_privilege(:table, 'SELECT')"), {"table": table})
    return bool(allowed.scalar_one())
