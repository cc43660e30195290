"""A stopped agent cannot be heard of: once it is resumed, its silence is counted anew."""

import httpx2
from sqlalchemy import text

from models.store import agents
from models.store.database import Database
from tests.fixtures.api import Caller, Team, add_agents
from tests.fixtures.missions import refusal


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
    late = "UPDATE agent SET resumed_at = resumed_at - interval '91 seconds' WHERE name = 'a1'"
    async with db.system() as session:
        await session.execute(text(late))
        await agents.sweep(session)
    assert (await api.get("/api/v1/agents/a1")).json()["data"]["silence"] == "stale"


async def test_it_is_offered_no_work_and_said_to_be_heard_before_it_is(
    api: httpx2.AsyncClient, client: Caller, team: Team, db: Database
) -> None:
    async with db.system() as session:
        await session.execute(text("UPDATE agent SET last_heartbeat_at = NULL WHERE name = 'agent'"))
    for verb in ("stop", "resume"):
        assert (await api.post(f"/api/v1/agents/agent/{verb}", json={})).is_success
    assert (await api.get("/api/v1/agents/agent")).json()["data"]["last_heartbeat_at"] is None
    made = await api.post("/api/v1/keys", json={"principal": "agent", "kind": "agent"})
    agent = client(made.json()["data"]["secret"])
    assert refusal(await agent.get("/api/v1/queue/next?agent_id=agent&agent_role=coding")) == (409, "agent_stale")
    assert (await agent.post("/api/v1/agents/agent/heartbeat", json={})).is_success
    assert (await agent.get("/api/v1/queue/next?agent_id=agent&agent_role=coding")).is_success
