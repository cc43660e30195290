"""Very many heartbeats of one agent at once: none is lost, and nobody else waits for them."""

import asyncio

import httpx2
from sqlalchemy import text

from models.store.database import Database
from tests.fixtures.api import Caller, Team
from tests.fixtures.missions import refusal
from tests.fixtures.waiting import eventually, somebody_waits

BEAT = "/api/v1/agents/agent/heartbeat"
MORE_THAN_CONNECTIONS = 60


async def test_others_do_not_wait_for_a_crowd_of_one_agent(
    api: httpx2.AsyncClient, client: Caller, db: Database, team: Team
) -> None:
    agent = client(team.agent)
    assert (await agent.post(BEAT)).status_code == 200
    async with db.workspace(team.workspace_id) as session, db.system() as looking:
        await session.execute(text("SELECT FROM agent WHERE name = 'agent' FOR UPDATE"))
        beats = [asyncio.create_task(agent.post(BEAT)) for _ in range(MORE_THAN_CONNECTIONS)]
        await eventually(lambda: somebody_waits(looking))
        async with asyncio.timeout(8):  # less than one waits for a connection that is not there
            assert (await api.get("/api/v1/agents/agent")).status_code == 200
        assert not await somebody_waits(looking, 2), "one write at a time"
        await session.commit()
    assert {answer.status_code for answer in await asyncio.gather(*beats)} == {200}


async def test_each_of_a_crowd_has_its_own_answer(client: Caller, db: Database, team: Team) -> None:
    agent = client(team.agent)
    own = (await agent.get("/api/v1/agents/agent")).json()["data"]["agent_id"]
    paths = [BEAT, f"/api/v1/agents/{own}/heartbeat", "/api/v1/agents/nobody/heartbeat"]
    answers = await asyncio.gather(*(agent.post(path) for path in paths * 3))
    for answer, path in zip(answers, paths * 3, strict=True):
        if "nobody" in path:
            assert refusal(answer) == (404, "agent_not_found")
        else:
            assert answer.json()["data"]["status"] == "active"
