"""A name has one spelling (NFKC): whoever is named in another one is meant all the same, wherever that is said."""

from typing import Any

import httpx2
import pytest

from models.domain.policy import parse_policy
from models.store.database import Database
from tests.fixtures.api import Caller, Team, add_agents
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import DIFF, filed, repo
from tests.fixtures.policies import SOURCE

__all__ = ["repo"]

WIDE = "\uff50robe"
"""`probe`, with its first letter in full width."""
WIDE_ROLE = "\uff43oding"


@pytest.fixture(autouse=True)
async def _probe(db: Database, team: Team) -> None:
    async with db.system() as session:
        await add_agents(session, team.workspace_id, "probe")


async def data(answer: httpx2.Response) -> Any:
    assert answer.is_success, answer.text
    return answer.json()["data"]


async def test_in_paths_and_parameters(api: httpx2.AsyncClient, repo: Repo) -> None:
    probe = await data(await api.get(f"/api/v1/agents/{WIDE}"))
    assert probe["name"] == "probe"
    assert (await data(await api.get(f"/api/v1/trust-scores/{WIDE}")))["agent_id"] == probe["agent_id"]
    assert (await data(await api.post(f"/api/v1/agents/{WIDE}/pause")))["status"] == "paused"
    await api.post(f"/api/v1/agents/{WIDE}/resume")
    mission = await filed(api, repo, trust_requirements={"allowed_roles": [WIDE_ROLE]})
    await data(await api.patch(f"/api/v1/agents/{WIDE}", json={"capabilities": [WIDE_ROLE]}))
    asked = {"agent_id": WIDE, "agent_role": "coding"}
    assert (await data(await api.get("/api/v1/queue/next", params=asked)))["mission_id"] == mission["mission_id"]
    for path, name in {"missions": "assigned_to", "runs": "agent_id", "keys": "principal", "audit": "actor"}.items():
        said = await api.get(f"/api/v1/{path}", params={name: " "})
        assert said.status_code == 422, said.text
    found = await data(await api.get("/api/v1/missions", params={"assigned_to": WIDE}))
    assert [item["mission_id"] for item in found["items"]] == [mission["mission_id"]]


async def test_in_bodies(api: httpx2.AsyncClient, client: Caller, team: Team, repo: Repo) -> None:
    patch = {"diff": DIFF, "author": WIDE}
    mission = await filed(api, repo, assigned_to=WIDE, detected_by=WIDE, patch_candidates=[patch])
    shown = await data(await api.get(mission["links"]["self"]))
    assert (shown["assigned_to"], shown["detected_by"]) == ("probe", "probe")
    [candidate] = (await data(await api.get(f"/api/v1/missions/{mission['mission_id']}/candidates")))["items"]
    assert candidate["author"] == "probe"
    run = await data(await api.post("/api/v1/runs", json={"agent_id": WIDE}))
    assert run["agent_id"] == "probe"
    capped = {"scope": "run", "owner": "agent", "name": WIDE, "cap_usd": "1", "cap_tokens": None}
    await data(await api.put("/api/v1/budgets", json=capped))
    assert "probe" in [cap["name"] for cap in (await data(await api.get("/api/v1/budgets")))["items"]]
    capa = {"title": "t", "cause": "c", "severity": "low", "owner": "\uff4flga"}
    assert (await data(await api.post("/api/v1/capa", json=capa)))["owner"] == "olga"


async def test_of_workspaces_principals_and_those_whom_a_policy_names(api: httpx2.AsyncClient, team: Team) -> None:
    renamed = await api.patch(f"/api/v1/workspaces/{team.workspace_id}", json={"name": "\uff34eam Ⅳ"})
    assert (await data(renamed))["name"] == "Team IV"
    made = await data(await api.post("/api/v1/principals", json={"name": "\uff41nna", "role": "observer"}))
    assert made["name"] == "anna"
    put = await api.put(f"/api/v1/workspaces/{team.workspace_id}/members/\uff41nna", json={"role": "member"})
    assert (await data(put))["name"] == "anna"
    assert (await data(await api.post("/api/v1/keys", json={"principal": "\uff41nna"})))["principal"] == "anna"
    law = parse_policy(SOURCE.replace("resolve:\n", f"resolve:\n  plan: {{role: operator, agents: [{WIDE}]}}\n"))
    assert law.resolvers("plan").agents == ("probe",)


async def test_parameters_are_read_whatever_letters_they_hold(api: httpx2.AsyncClient) -> None:
    for query in ("subsystemId=%C3%89", "subsystem_id=%c3%a9", "subsystem_id=%FF", "subsystemId=\u00e9"):
        answer = await api.get(f"/api/v1/missions?{query}")
        assert answer.status_code in (200, 422), answer.text
