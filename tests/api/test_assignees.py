"""A mission is filed for somebody whom there is, and waits for nobody else."""

from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from models.store import claims
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.api import Team, add_agents
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import body, filed, refusal, repo

__all__ = ["repo"]


async def claimed(api: httpx2.AsyncClient, agent: str) -> Any:
    answer = await api.get("/api/v1/queue/next", params={"agent_id": agent, "agent_role": "healing"})
    assert answer.is_success, answer.text
    return answer.json()["data"] and answer.json()["data"]["mission_id"]


@pytest.fixture(autouse=True)
async def _at_work(db: Database, team: Team) -> None:
    async with db.system() as session:
        await add_agents(session, team.workspace_id, "a1", "a2", capabilities=["healing"])


async def registered(api: httpx2.AsyncClient, name: str) -> str:
    answer = await api.post("/api/v1/agents", json={"name": name, "endpoint": "https://a.example.org/x"})
    assert answer.is_success, answer.text
    return str(answer.json()["data"]["agent_id"])


async def decided(api: httpx2.AsyncClient, agent_id: str, verb: str) -> None:
    answer = await api.post(f"/api/v1/agents/{agent_id}/{verb}", json={"explanation": "because"})
    assert answer.is_success, answer.text


async def test_of_whom_there_is_not(api: httpx2.AsyncClient, repo: Repo) -> None:
    answer = await api.post("/api/v1/missions", json=body(repo, assigned_to="a-1"))
    assert refusal(answer) == (404, "agent_not_found")
    assert "register it first" in answer.json()["error"]["message"]
    assert (await api.get("/api/v1/missions")).json()["data"]["items"] == [], "nothing is left behind"


@pytest.mark.parametrize("name", ["a1", "healing", "coding", "elite_coding_agent", "operator"])
async def test_of_agents_roles_and_members(api: httpx2.AsyncClient, repo: Repo, name: str) -> None:
    assert (await filed(api, repo, assigned_to=name))["assigned_to"] == name


async def test_an_agent_is_named_by_its_id(api: httpx2.AsyncClient, repo: Repo) -> None:
    agent_id = (await api.get("/api/v1/agents/a1")).json()["data"]["agent_id"]
    mission = await filed(api, repo, assigned_to=agent_id)
    assert (mission["assigned_to"], await claimed(api, "a1")) == ("a1", mission["mission_id"])
    unknown = await api.post("/api/v1/missions", json=body(repo, assigned_to="agent_0123456789abcdef"))
    assert refusal(unknown) == (404, "agent_not_found")


async def test_lists_take_its_name_and_its_id(api: httpx2.AsyncClient, repo: Repo) -> None:
    agent_id = (await api.get("/api/v1/agents/a1")).json()["data"]["agent_id"]
    mission = await filed(api, repo, assigned_to="a1")
    await filed(api, repo, assigned_to="a2")
    for said, found in (
        ("a1", [mission["mission_id"]]),
        (agent_id, [mission["mission_id"]]),
        (agent_id[:-1] + "!", []),
    ):
        listed = (await api.get("/api/v1/missions", params={"assigned_to": said})).json()["data"]["items"]
        assert [row["mission_id"] for row in listed] == found, said


async def test_what_was_filed_for_an_agent_that_is_not_let_in_goes_to_all(api: httpx2.AsyncClient, repo: Repo) -> None:
    agent_id = await registered(api, "late")
    waits, of_role = (
        await filed(api, repo, assigned_to="late"),
        await filed(api, repo, assigned_to="elite_coding_agent"),
    )
    assert await claimed(api, "a1") is None
    await decided(api, agent_id, "reject")
    assert [await claimed(api, "a1") for _ in range(2)] == [waits["mission_id"], None]
    assert (await api.get(of_role["links"]["self"])).json()["data"]["assigned_to"] == "elite_coding_agent"
    assert refusal(await api.post("/api/v1/missions", json=body(repo, assigned_to="late"))) == (404, "agent_not_found")


async def test_what_is_filed_for_a_role_later_is_not_that_agents(
    api: httpx2.AsyncClient, repo: Repo, db: Database, team: Team
) -> None:
    """Somebody who once asked for the name of a role, in vain, gives nothing of that role to others."""
    await decided(api, await registered(api, "reviewer"), "reject")
    async with db.system() as session:
        await add_agents(session, team.workspace_id, "r1", capabilities=["reviewer"])
        earlier = "UPDATE agent SET decided_at = decided_at - interval '2 minutes' WHERE name = 'reviewer'"
        await session.execute(text(earlier))
    await filed(api, repo, assigned_to="reviewer")
    async with db.system() as session:
        await session.execute(text("UPDATE agent SET registration = 'deactivated' WHERE name = 'r1'"))
        await claims.give_back(session, Actor("reconciler", "a pass"))
    assert await claimed(api, "a1") is None


async def test_of_one_that_ended(api: httpx2.AsyncClient, repo: Repo, db: Database) -> None:
    mission = await filed(api, repo, assigned_to="a1")
    place = f"/api/v1/missions/{mission['mission_id']}"
    assert (await api.post(f"{place}/cancel", json={})).is_success
    async with db.system() as session:
        await session.execute(text("UPDATE agent SET registration = 'deactivated' WHERE name = 'a1'"))
    again = (await api.post(f"{place}/retry", json={})).json()["data"]
    assert (again["assigned_to"], await claimed(api, "a2")) == (None, again["mission_id"])
    assert refusal(await api.post("/api/v1/missions", json=body(repo, assigned_to="a1"))) == (404, "agent_not_found")


async def test_a_repetition_gets_its_first_answer(api: httpx2.AsyncClient, repo: Repo, db: Database) -> None:
    async def ask() -> httpx2.Response:
        given = body(repo, assigned_to="a1")
        return await api.post("/api/v1/missions", json=given, headers={"Idempotency-Key": "once"})

    first = await ask()
    async with db.system() as session:
        await session.execute(text("UPDATE agent SET registration = 'deactivated' WHERE name = 'a1'"))
    again = await ask()
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
