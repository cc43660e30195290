"""Steering missions over HTTP, with the real workflow on a real Temporal server."""

import asyncio
import uuid
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from models.domain.principals import Role
from models.domain.stages import StageName
from models.store.database import Database
from tests.fixtures.access import make_key
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo
from tests.fixtures.instant_ports import InstantPorts
from tests.fixtures.missions import DIFF, refusal, repo
from tests.fixtures.stages import service_key
from tests.fixtures.steering import Mission, ended, in_tests, mission, ports, ready, say, settings, when
from tests.fixtures.waiting import eventually, until

__all__ = ["mission", "ports", "repo", "service_key", "settings"]


async def question(api: httpx2.AsyncClient, mission: Mission) -> dict[str, Any]:
    """What the mission asks, as soon as it does."""

    async def asked() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await api.get(f"{mission['links']['decisions']}&status=pending")).json()["data"][
            "items"
        ]
        return items

    return (await eventually(asked, pause=0.05))[0]


class TestSteer:
    async def test_an_operator_may(
        self, client: Caller, team: Team, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts
    ) -> None:
        """WORKSPACE-08."""
        gate = ports.script(mission["mission_id"]).blocks[StageName.RUN_TESTS] = asyncio.Event()
        operator = client(team.operator)
        assert (await say(operator, mission, "execute")).status_code == 202
        await when(operator, mission, in_tests)
        for verb, more in (("pause", {}), ("inject", {"text": "look"}), ("resume", {}), ("cancel", {})):
            assert (await say(operator, mission, verb, **more)).status_code == 200, verb
        gate.set()
        assert (await when(operator, mission, ended))["outcome"] == "canceled"

    async def test_pause_note_and_resume(self, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts) -> None:
        gate = ports.script(mission["mission_id"]).blocks[StageName.RUN_TESTS] = asyncio.Event()
        await say(api, mission, "execute")
        await when(api, mission, in_tests)
        paused = (await say(api, mission, "pause", reason="let me look")).json()["data"]
        assert (paused["effect"], paused["paused"], paused["stage"]) == ("stops_command", True, "run_tests")
        assert (await when(api, mission, lambda m: m["paused"]))["status"] == "in_progress"
        assert (await say(api, mission, "pause")).json()["data"]["effect"] == "already"
        assert (await say(api, mission, "inject", text="it is the cache")).json()["data"]["effect"] == "noted"
        gate.set()
        assert (await say(api, mission, "resume")).json()["data"]["effect"] == "resumed"
        found = await when(api, mission, ended)
        assert found["outcome"] == "merged"
        acts = [(entry["action"], entry["actor"]) for entry in found["remediation_history"]]
        assert [act for act in acts if act[1] == "admin"] == [
            ("pause", "admin"),
            ("note", "admin"),
            ("resume", "admin"),
        ]

    async def test_a_visitor_is_named_with_its_home(
        self, client: Caller, team: Team, db: Database, mission: Mission, ports: InstantPorts
    ) -> None:
        async with db.system() as session:
            name = f"root-{uuid.uuid4().hex[:8]}"
            root = client(await make_key(session, "default", name, role=Role.PLATFORM_ADMIN))
        root.headers["X-Workspace"] = team.workspace_id
        added = await root.post(mission["links"]["candidates"], json={"diff": DIFF})
        assert added.json()["data"]["author"] == f"default/{name}"
        gate = ports.script(mission["mission_id"]).blocks[StageName.RUN_TESTS] = asyncio.Event()
        await say(root, mission, "execute")
        await when(root, mission, in_tests)
        for verb, said in (("pause", {}), ("inject", {"text": "a note"}), ("resume", {}), ("cancel", {"reason": "x"})):
            assert (await say(root, mission, verb, **said)).status_code == 200
        gate.set()
        await when(root, mission, ended)
        async with db.workspace(team.workspace_id) as session:
            rows = await session.execute(text("SELECT DISTINCT actor FROM event WHERE actor LIKE '%root-%'"))
        assert set(rows.scalars()) == {f"default/{name}"}

    async def test_a_mission_that_does_not_run_takes_no_command(
        self, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts
    ) -> None:
        for verb in ("pause", "resume", "inject"):
            body = {"text": "x"} if verb == "inject" else {}
            assert refusal(await say(api, mission, verb, **body)) == (409, "mission_not_running")


class TestCancel:
    async def test_before_the_start(self, api: httpx2.AsyncClient, mission: Mission) -> None:
        answer = await say(api, mission, "cancel", reason="filed by mistake")
        assert (answer.status_code, answer.json()["data"]["effect"]) == (200, "cleans_up")
        found = (await api.get(mission["links"]["self"])).json()["data"]
        assert (found["status"], found["outcome"], found["reason"]) == ("escalated", "canceled", "filed by mistake")
        assert refusal(await say(api, mission, "execute")) == (409, "illegal_transition")

    async def test_while_it_runs(self, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts) -> None:
        ports.script(mission["mission_id"]).blocks[StageName.RUN_TESTS] = asyncio.Event()
        await say(api, mission, "execute")
        await when(api, mission, in_tests)
        assert (await say(api, mission, "cancel")).json()["data"]["effect"] == "cleans_up"
        found = await when(api, mission, ended)
        assert (found["outcome"], found["merge_sha"]) == ("canceled", None)

    async def test_the_stage_that_runs_is_named(
        self, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts
    ) -> None:
        ports.script(mission["mission_id"]).blocks[StageName.PULL_CODE] = asyncio.Event()
        await say(api, mission, "execute")
        await when(api, mission, lambda found: found["stage"] == "pull_code")
        assert (await say(api, mission, "cancel")).json()["data"]["stage"] == "pull_code"
        assert (await when(api, mission, ended))["outcome"] == "canceled"

    @pytest.mark.parametrize(
        ("merged", "effect", "outcome"),
        [("keep", "keeps_merge", "canceled"), ("roll_back", "rolls_back", "rolled_back")],
    )
    async def test_after_the_merge_the_caller_chooses(
        self, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts, merged: str, effect: str, outcome: str
    ) -> None:
        ports.script(mission["mission_id"]).observation_seconds = 600
        await say(api, mission, "execute")
        await when(api, mission, lambda found: found["status"] == "observing")
        assert refusal(await say(api, mission, "cancel")) == (409, "merged_choice_required")
        told = (await say(api, mission, "cancel", merged=merged)).json()["data"]
        assert (told["effect"], told["stage"]) == (effect, "observe")
        assert (await when(api, mission, ended))["outcome"] == outcome


class TestBlocked:
    async def test_a_limit_holds_it_at_once_and_a_raised_cap_lets_it_go_on_at_once(
        self, client: Caller, team: Team, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts
    ) -> None:
        """Nobody reconciles here."""
        gate = ports.script(mission["mission_id"]).blocks[StageName.RUN_TESTS] = asyncio.Event()
        await say(api, mission, "execute")
        await when(api, mission, in_tests)
        agent = client(team.service)
        started = await agent.post("/api/v1/runs", json={"mission_id": mission["mission_id"], "level": "intern"})
        run = f"/api/v1/runs/{started.json()['data']['run_id']}"
        assert refusal(await agent.post(f"{run}/costs", json={"usd": "0.26"})) == (409, "budget_exceeded")
        found = await when(api, mission, lambda m: m["paused"])
        await until(lambda: ports.script(mission["mission_id"]).stopped == [StageName.RUN_TESTS])
        why = f"the run's limit of 0.25 USD is crossed; an admin may raise it (run {run.rpartition('/')[2]})"
        assert found["blocked"] == why
        assert (await say(api, mission, "pause")).status_code == 200
        for _ in range(2):
            answer = (await say(api, mission, "resume")).json()["data"]
            assert (answer["effect"], answer["reason"]) == ("still_blocked", found["blocked"])
        gate.set()
        [asked] = (await api.get("/api/v1/decisions?kind=budget")).json()["data"]["items"]
        assert asked["question"]["proposed"]["cap_usd"] == "0.50"
        yes = {"decision": "approve", "explanation": "it is worth that"}
        assert (await api.post(f"{asked['links']['self']}/resolve", json=yes)).status_code == 200
        assert (await when(api, mission, ended))["outcome"] == "merged"
        assert (await agent.post(f"{run}/costs", json={"usd": "0.26"})).status_code == 201

    async def test_a_workspace_that_has_nothing_left_begins_none(
        self, client: Caller, team: Team, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts
    ) -> None:
        budget = f"/api/v1/workspaces/{team.workspace_id}/budget"
        assert refusal(await client(team.operator).put(budget, json={"cap_tokens": 0})) == (403, "not_permitted")
        assert (await api.put(budget, json={"cap_tokens": 0})).json()["data"]["cap_tokens"] == 0
        assert (await say(api, mission, "execute")).status_code == 202
        found = await when(api, mission, lambda m: bool(m["blocked"]))
        assert (found["status"], found["paused"], found["stage"]) == ("in_progress", True, None)
        assert "of 0 tokens is crossed" in found["blocked"]
        [alert] = (await api.get("/api/v1/alerts")).json()["data"]["items"]
        assert (alert["kind"], alert["subject_id"]) == ("cost_spike", f"workspace_month/{team.workspace_id}")
        assert (await api.put(budget, json={"cap_tokens": None})).status_code == 200
        assert (await when(api, mission, ended))["outcome"] == "merged"
        [audited] = [row for row in (await api.get("/api/v1/audit?action=budget.changed")).json()["data"]["items"]][-1:]
        assert audited["actor"] == "admin"


class TestApproval:
    async def test_an_answer_lets_the_mission_go_on(
        self, client: Caller, team: Team, repo: Repo, ports: InstantPorts
    ) -> None:
        filer, answerer = client(team.operator), client(team.admin)
        mission = await ready(filer, repo, requires_governance_approval=True)
        await say(filer, mission, "execute")
        await when(filer, mission, lambda found: found["stage"] == "governance")
        asked = await question(answerer, mission)
        body = {"decision": "approve", "explanation": "looks right"}
        await answerer.post(f"{asked['links']['self']}/resolve", json=body)
        assert (await when(filer, mission, ended))["outcome"] == "merged"
        found = (await answerer.get(asked["links"]["self"])).json()["data"]
        assert (found["status"], found["resolved_by"]) == ("approved", "admin")
        assert found["acknowledged_at"]


async def test_status_sees_the_worker(api: httpx2.AsyncClient, ports: InstantPorts) -> None:
    async def healthy() -> dict[str, Any] | None:
        found: dict[str, Any] = (await api.get("/api/v1/status")).json()["data"]
        return found if found["overall_health"] == "healthy" else None

    found = await eventually(healthy, pause=0.1)
    assert {part["state"] for part in found["subsystems"]} == {"healthy"}
