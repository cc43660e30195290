"""Tool calls that were made although nobody had approved them: told as made, whoever looks, and an alert (POL-04)."""

from typing import Any

import httpx2
import pytest

from models.store.database import Database
from tests.api.test_withdrawn_calls import close
from tests.fixtures.api import Caller, Team
from tests.fixtures.budgets import told
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo
from tests.fixtures.tool_calls import NO, RUNS, YES, agent, answer, call, end, now, run

__all__ = ["agent", "repo", "run"]

MADE = "made already, without an approval"


async def alerts(api: httpx2.AsyncClient, query: str = "?kind=unapproved_call") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await api.get(f"/api/v1/alerts{query}")).json()["data"]["items"]
    return items


async def test_it_is_asked_about_as_what_it_is(agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str) -> None:
    made, wanted = await call(agent, run, "email", duration_ms=3), await call(agent, run, "email")
    assert (made["status"], made["reason"].startswith(f"pending: {MADE}; ")) == ("pending", True)
    assert MADE not in wanted["reason"]
    question, other = [
        (await api.get(f"/api/v1/decisions/{each['decision_id']}")).json()["data"] for each in (made, wanted)
    ]
    assert (question["question"]["made"], other["question"]["made"]) == (True, False)
    assert question["reasons"] == [MADE, *other["reasons"]]
    assert refusal(await end(agent, run, made)) == (409, "tool_call_ended")


@pytest.mark.parametrize("how", [{"duration_ms": 3}, {"error": "exit 2"}])
async def test_denied_it_was_made_all_the_same(
    agent: httpx2.AsyncClient, client: Caller, team: Team, run: str, how: dict[str, Any]
) -> None:
    made = await call(agent, run, "email", **how)
    assert (await answer(client(team.operator), made, NO)).status_code == 200
    denied = await now(agent, run, made)
    assert (denied["status"], denied["reason"]) == ("denied", f"denied: {MADE}; operator: looked at it")
    assert denied["ended_at"] == made["ended_at"] is not None
    assert refusal(await end(agent, run, made)) == (409, "tool_call_ended")


async def test_people_are_told_once_for_a_run(
    agent: httpx2.AsyncClient, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database, run: str
) -> None:
    made = [await call(agent, run, "email", duration_ms=3) for _ in range(2)]
    [alert] = await alerts(api)
    run_id = run.rpartition("/")[2]
    assert (alert["status"], alert["subject_kind"], alert["subject_id"]) == ("open", "run", run_id)
    assert alert["summary"] == "agent made call 1, email, without an approval"
    named = {name: alert["details"][name] for name in ("number", "tool", "risk", "agent_id", "decision_id")}
    assert named == {
        "number": 1,
        "tool": "email",
        "risk": "RED",
        "agent_id": "agent",
        "decision_id": made[0]["decision_id"],
    }
    assert [event["data"]["made"] for event in await told(db, team.workspace_id, "tool_call.pending")] == [True, True]
    assert len(await told(db, team.workspace_id, "alert.raised")) == 1
    for each in made:
        await answer(client(team.operator), each, YES)
    assert [one["status"] for one in await alerts(api)] == ["open"], "that it was not asked for first stays true"
    await api.post(f"/api/v1/alerts/{alert['alert_id']}/resolve", json={})
    await call(agent, run, "email", duration_ms=3)
    assert sorted(one["status"] for one in await alerts(api)) == ["open", "resolved"]


async def test_so_they_are_of_a_blocked_run(agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str) -> None:
    for _ in range(5):
        await call(agent, run, "read_db", error="E1")
    assert refusal(await agent.post(f"{run}/tool-calls", json={"tool": "email"})) == (409, "run_blocked")
    made = await call(agent, run, "email", duration_ms=3)
    assert (made["number"], made["status"]) == (6, "pending")
    assert [alert["summary"] for alert in await alerts(api)] == ["agent made call 6, email, without an approval"]


async def test_so_they_are_of_what_is_on_no_list(
    agent: httpx2.AsyncClient, api: httpx2.AsyncClient, db: Database, team: Team, run: str
) -> None:
    await api.patch("/api/v1/agents/agent", json={"tools": []})
    assert refusal(await agent.post(f"{run}/tool-calls", json={"tool": "ls"})) == (403, "tool_not_permitted")
    assert await alerts(api) == [], "it was not made"
    off = await agent.post(f"{run}/tool-calls", json={"tool": "ls", "duration_ms": 3})
    assert refusal(off) == (403, "tool_not_permitted")
    made = await now(agent, run, {"number": 2})
    assert made["reason"].startswith(f"denied: {MADE}; the tool is not on the list")
    assert [alert["details"]["number"] for alert in await alerts(api)] == [2]
    assert [event["data"]["made"] for event in await told(db, team.workspace_id, "tool_call.denied")] == [False, True]


async def test_what_may_be_made_tells_nobody(agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str) -> None:
    await call(agent, run, "read_db", duration_ms=3)
    await call(agent, run, "email")
    assert await alerts(api, "") == []


async def test_the_end_of_its_run_leaves_the_alert(
    agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str
) -> None:
    made = await call(agent, run, "email", duration_ms=3)
    assert (await agent.post(f"{run}/end", json={"status": "success"})).status_code == 200
    assert (await now(agent, run, made))["reason"] == f"denied: {MADE}; its run ended before anybody answered"
    assert [alert["status"] for alert in await alerts(api)] == ["open"]


async def test_nobody_is_asked_about_one_of_an_ended_mission(
    agent: httpx2.AsyncClient, api: httpx2.AsyncClient, db: Database, team: Team, repo: Repo
) -> None:
    mission = (await filed(api, repo, assigned_to="agent"))["mission_id"]
    its = f"{RUNS}/{(await agent.post(RUNS, json={'mission_id': mission})).json()['data']['run_id']}"
    await close(db, team, mission)
    made = await call(agent, its, "email", duration_ms=3)
    gone = f"denied: {MADE}; its mission ended before anybody answered"
    assert (made["status"], made["reason"], made["decision_id"]) == ("denied", gone, None)
    assert (await api.get("/api/v1/decisions")).json()["data"]["items"] == []
    assert [alert["details"]["mission_id"] for alert in await alerts(api)] == [mission]
