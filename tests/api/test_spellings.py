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
    for path, name in {
        "missions": "assigned_to",
        "runs": "agent_id",
        "keys": "principal",
        "audit": "actor",
        "activity": "agent_id",
    }.items():
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
    decided = {"agent_id": WIDE, "input": "i", "reasoning": "r", "output": "o"}
    await data(await client(team.service).post("/api/v1/activity", json=decided))
    done = await data(await api.get("/api/v1/activity", params={"agent_id": WIDE}))
    assert "probe" in [act["agent_id"] for act in done["items"]]
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


async def test_of_tickets(api: httpx2.AsyncClient) -> None:
    said = ("\uff34-9", "T-9 ", "T-9")
    runs = [await data(await api.post("/api/v1/runs", json={"ticket_id": name})) for name in said]
    assert [run["ticket_id"] for run in runs] == ["T-9"] * 3
    cap = {"scope": "ticket", "owner": "ticket", "name": "\uff34-9", "cap_usd": "0.01", "cap_tokens": None}
    assert (await data(await api.put("/api/v1/budgets", json=cap)))["name"] == "T-9"
    for path in ("budgets/spending?subject", "runs?ticket_id", "costs?group_by=ticket&ticket_id"):
        found = [(await data(await api.get(f"/api/v1/{path}={name}")))["items"] for name in said]
        assert found[0] == found[1] == found[2], path
    [counter] = (await data(await api.get("/api/v1/budgets/spending?scope=ticket")))["items"]
    assert (counter["subject"], counter["cap_usd"]) == ("T-9", "0.01")


@pytest.mark.parametrize("ticket", ["PROJ/1", "..", "\uff0f", "T-9\u200b", "T-9\ufe0f", "\u0301", "a\nb", " "])
async def test_of_tickets_that_no_path_could_name(api: httpx2.AsyncClient, ticket: str) -> None:
    cap = {"scope": "ticket", "owner": "ticket", "name": ticket, "cap_usd": "1", "cap_tokens": None}
    refused = [await api.post("/api/v1/runs", json={"ticket_id": ticket}), await api.put("/api/v1/budgets", json=cap)]
    refused += [await api.get(f"/api/v1/{path}", params={"ticket_id": ticket}) for path in ("runs", "costs")]
    assert [answer.status_code for answer in refused] == [422] * 4


async def test_the_question_about_a_ticket_is_opened_by_its_link(api: httpx2.AsyncClient) -> None:
    run = await data(await api.post("/api/v1/runs", json={"ticket_id": " \uff30ROJ 1%2F?#\u00e9"}))
    refused = await api.post(f"/api/v1/runs/{run['run_id']}/costs", json={"usd": "7"})
    assert refused.status_code == 409, refused.text
    [question] = (await data(await api.get("/api/v1/decisions?status=pending&kind=budget")))["items"]
    link = question["links"]["self"]
    assert (await data(await api.get(link)))["decision_id"] == "budget.ticket.PROJ 1%2F?#\u00e9.1"
    answer = {"decision": "approve", "explanation": "go on"}
    assert (await data(await api.post(f"{link}/resolve", json=answer)))["status"] == "approved"
    assert (await data(await api.get(f"/api/v1/runs/{run['run_id']}")))["status"] is None


async def test_of_repositories_and_tools(api: httpx2.AsyncClient, repo: Repo) -> None:
    body = {"url": str(repo.path), "name": "\uff50ayments "}
    made = await data(await api.post("/api/v1/repositories", json=body))
    assert made["name"] == "payments"
    for name in ("payments", "\uff50ayments", "payments "):
        found = await data(await api.get(f"/api/v1/repositories/{name}"))
        assert found["repository_id"] == made["repository_id"]
    assert (await api.post("/api/v1/repositories", json=body | {"name": ".."})).status_code == 422
    run = await data(await api.post("/api/v1/runs", json={}))
    calls = f"/api/v1/runs/{run['run_id']}/tool-calls"
    assert (await data(await api.post(calls, json={"tool": " \uff47rep "})))["tool"] == "grep"
    assert (await api.post(calls, json={"tool": "grep\ufe0f"})).status_code == 422


async def test_parameters_are_read_whatever_letters_they_hold(api: httpx2.AsyncClient) -> None:
    for query in ("subsystemId=%C3%89", "subsystem_id=%c3%a9", "subsystem_id=%FF", "subsystemId=\u00e9"):
        answer = await api.get(f"/api/v1/missions?{query}")
        assert answer.status_code in (200, 422), answer.text
