"""A stopped agent cannot be heard of: once it is resumed, its silence is counted anew."""

import httpx2
from sqlalchemy import text

from models.store import agents
from models.store.database import Database
from tests.fixtures.api import Team, add_agents


async def test_a_resumed_agent_has_the_usual_time(api: httpx2.AsyncClient, team: Team, db: Database) -> None:
    async with db.system() as session:
        await add_agents(session, team.workspace_id, "a1")
    assert (await api.post("/api/v1/agents/a1/stop", json={})).is_success
    async with db.system() as session:
        await session.execute(text("UPDATE agent SET last_heartbeat_at = now() - interval '1 hour' WHERE name = 'a1'"))
    assert (await api.post("/api/v1/agents/a1/resume", json={})).is_success
    async with db.system() as session:
        await agents.sweep(session)
    assert (await api.get("/api/v1/agents/a1")).json()["data"]["silence"] == "none"
    late = "UPDATE agent SET last_heartbeat_at = last_heartbeat_at - interval '91 seconds' WHERE name = 'a1'"
    async with db.system() as session:
        await session.execute(text(late))
        await agents.sweep(session)
    assert (await api.get("/api/v1/agents/a1")).json()["data"]["silence"] == "stale"
