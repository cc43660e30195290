"""Executions over HTTP: who may run what, what it costs, and when it is stopped."""

from typing import Any

import httpx2

from models.store.database import Database
from tests.fixtures.api import Caller, Team, add_agents
from tests.fixtures.budgets import told
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo
from tests.fixtures.spending import RUNS, SONNET, agent, paid, started

__all__ = ["agent", "repo"]


class TestRun:
    async def test_it_has_a_start_an_end_and_what_it_took(self, agent: httpx2.AsyncClient) -> None:
        run = await started(agent)
        for _ in range(2):
            assert (await paid(agent, run, **SONNET)).status_code == 201
        ended = await agent.post(f"{run}/end", json={"status": "success"})
        found = (await agent.get(run)).json()["data"]
        assert found == ended.json()["data"]
        assert (found["agent_id"], found["level"], found["status"]) == ("agent", "intern", "success")
        assert (found["tokens"], found["calls"], found["usd"]) == (4000, 2, "0.036")
        assert found["duration_seconds"] > 0
        assert refusal(await agent.patch(run, json={"status": "failed"})) == (409, "run_ended")
        assert refusal(await paid(agent, run, **SONNET)) == (409, "run_ended")

    async def test_three_statuses_only(self, agent: httpx2.AsyncClient) -> None:
        run = await started(agent)
        assert refusal(await agent.post(f"{run}/end", json={"status": "aborted"}))[0] == 422
        assert (await agent.patch(run, json={"status": "blocked", "reason": "no answer"})).status_code == 200
        listed = (await agent.get(f"{RUNS}?status=blocked")).json()["data"]["items"]
        assert [row["reason"] for row in listed] == ["no answer"]

    async def test_what_runs_now_is_found_as_running(self, agent: httpx2.AsyncClient) -> None:
        runs = [await started(agent) for _ in range(4)]
        for run, status in zip(runs, ("success", "failed", "blocked"), strict=False):
            await agent.patch(run, json={"status": status})
        for status, run in zip(("success", "failed", "blocked", "running"), runs, strict=True):
            listed = (await agent.get(RUNS, params={"status": status})).json()["data"]["items"]
            assert [f"{RUNS}/{row['run_id']}" for row in listed] == [run], status
        assert len((await agent.get(RUNS)).json()["data"]["items"]) == 4
        unknown = await agent.get(RUNS, params={"status": "nope"})
        assert (refusal(unknown)[0], "'running'" in unknown.text) == (422, True), unknown.text

    async def test_an_agent_runs_for_itself_and_says_no_level(
        self, client: Caller, team: Team, agent: httpx2.AsyncClient, db: Database
    ) -> None:
        for body in ({"agent_id": "boss"}, {"level": "lead"}):
            assert refusal(await agent.post(RUNS, json=body)) == (403, "own_runs_only")
        async with db.workspace(team.workspace_id) as session:
            await add_agents(session, team.workspace_id, "boss")
        other = await started(client(team.service), agent_id="boss")
        assert refusal(await paid(agent, other, usd="0.1")) == (404, "run_not_found")
        assert refusal(await agent.post(f"{other}/tool-calls", json={"tool": "sh"})) == (404, "run_not_found")
        assert (await agent.get(other)).status_code == 200, "what it cost is everybody's to see"

    async def test_an_agent_is_meant_by_its_id_as_by_its_name(
        self, api: httpx2.AsyncClient, agent: httpx2.AsyncClient
    ) -> None:
        own = (await api.get("/api/v1/agents/agent")).json()["data"]["agent_id"]
        run = await started(agent, agent_id=own)
        assert (await paid(agent, run, usd="0.01")).status_code == 201
        for name in (own, "agent"):
            [listed] = (await api.get(f"{RUNS}?agent_id={name}")).json()["data"]["items"]
            assert listed["agent_id"] == "agent"
            assert (await api.get(f"/api/v1/costs?agent_id={name}")).json()["data"]["total"]["usd"] == "0.01"
            spent = await api.get(f"/api/v1/budgets/spending?scope=agent_day&subject={name}")
            assert [row["settled_usd"] for row in spent.json()["data"]["items"]] == ["0.01"]
        strange = "agent_0123456789abcdef"
        assert (await api.get(f"{RUNS}?agent_id={strange}")).json()["data"]["items"] == []

    async def test_operators_do_not_report(self, client: Caller, team: Team) -> None:
        assert refusal(await client(team.operator).post(RUNS, json={})) == (403, "not_permitted")

    async def test_of_a_mission_that_is_anothers_or_over(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, repo: Repo, db: Database
    ) -> None:
        """Whoever may spend on a mission may hold it up."""
        foreign = await filed(api, repo)
        own = await filed(api, repo, assigned_to="agent")
        assert refusal(await agent.post(RUNS, json={"mission_id": foreign["mission_id"]})) == (403, "not_assigned")
        assert (await agent.post(RUNS, json={"mission_id": own["mission_id"]})).status_code == 201
        await api.post(f"/api/v1/missions/{own['mission_id']}/cancel", json={})
        for caller in (agent, api):
            answer = await caller.post(RUNS, json={"mission_id": own["mission_id"]})
            assert refusal(answer) == (409, "mission_ended")

    async def test_of_a_mission_that_is_not_there(self, agent: httpx2.AsyncClient) -> None:
        assert refusal(await agent.post(RUNS, json={"mission_id": "mission_x"})) == (404, "mission_not_found")


class TestForAnAgent:
    """What a service or an admin may do in an agent's name."""

    async def test_only_an_active_one_begins_and_at_no_level_above_its_own(
        self, client: Caller, team: Team, api: httpx2.AsyncClient
    ) -> None:
        service = client(team.service)
        assert refusal(await service.post(RUNS, json={"agent_id": "nobody"})) == (404, "agent_not_found")
        for caller in (service, api):
            above = await caller.post(RUNS, json={"agent_id": "agent", "level": "lead"})
            assert refusal(above) == (403, "level_too_high")
        assert (await service.post(RUNS, json={"agent_id": "agent", "level": "intern"})).status_code == 201
        for verb in ("drain", "quarantine"):
            assert (await api.post(f"/api/v1/agents/agent/{verb}", json={})).status_code == 200
            assert refusal(await service.post(RUNS, json={"agent_id": "agent"})) == (409, "agent_not_active")
        asked = await api.post("/api/v1/agents", json={"name": "newcomer", "endpoint": "https://bot.example/"})
        assert asked.status_code in (201, 202), asked.text
        assert refusal(await service.post(RUNS, json={"agent_id": "newcomer"})) == (409, "agent_not_approved")

    async def test_a_held_ones_run_is_paid_but_reserves_and_calls_nothing(
        self, client: Caller, team: Team, api: httpx2.AsyncClient
    ) -> None:
        service = client(team.service)
        run = await started(service, agent_id="agent")
        held = (await service.post(f"{run}/reservations", json={"usd": "0.01"})).json()["data"]
        assert (await api.post("/api/v1/agents/agent/quarantine", json={})).status_code == 200
        for path, body in (("reservations", {"usd": "0.01"}), ("tool-calls", {"tool": "sh"})):
            assert refusal(await service.post(f"{run}/{path}", json=body)) == (409, "agent_not_active")
        assert (
            await service.post(f"{run}/reservations/{held['cost_id']}/settle", json={"usd": "0.01"})
        ).status_code == 200
        assert (await paid(service, run, usd="0.01")).status_code == 201
        assert (await service.post(f"{run}/end", json={"status": "failed"})).status_code == 200


class TestLevels:
    async def test_a_run_has_the_level_that_its_agent_is_registered_with(
        self, client: Caller, team: Team, api: httpx2.AsyncClient, agent: httpx2.AsyncClient
    ) -> None:
        known = (await api.patch("/api/v1/agents/agent", json={"level": "specialist"})).json()["data"]
        assert (known["daily_cap_usd"], known["run_cap_usd"]) == ("5", "0.75")
        run = await started(agent)
        assert (await paid(agent, run, usd="0.75")).status_code == 201
        assert refusal(await paid(agent, run, usd="0.01")) == (409, "budget_exceeded")
        by_id = await started(client(team.service), agent_id=known["agent_id"])
        assert (await api.get(by_id)).json()["data"]["agent_id"] == "agent"

    async def test_an_admin_overrides_what_the_level_gives(
        self, api: httpx2.AsyncClient, agent: httpx2.AsyncClient, db: Database, team: Team
    ) -> None:
        run, place = await started(agent), "/api/v1/agents/agent"
        for caps in ({"run_cap_usd": "9"}, {"daily_cap_usd": None}):
            assert refusal(await agent.patch(place, json=caps)) == (403, "admins_only")
        known = (await api.patch(place, json={"run_cap_usd": "0.30", "daily_cap_usd": "1"})).json()["data"]
        assert (known["run_cap_usd"], known["daily_cap_usd"]) == ("0.30", "1")
        assert (await paid(agent, run, usd="0.30")).status_code == 201
        assert [row["actor"] for row in await told(db, team.workspace_id, "budget.changed")] == ["admin"] * 2
        [listed] = (await api.get("/api/v1/agents")).json()["data"]["items"]
        assert (await api.get(place)).json()["data"] == listed | {"key": None}
        back = (await api.patch(place, json={"run_cap_usd": None})).json()["data"]
        assert (back["run_cap_usd"], back["daily_cap_usd"]) == ("0.25", "1")
        assert refusal(await paid(agent, run, usd="0.01")) == (409, "budget_exceeded")
        for bad in ({"run_cap_usd": "-1"}, {"daily_cap_usd": "NaN"}, {"run_cap_usd": "0." + "1" * 30}, {}):
            assert (await api.patch(place, json=bad)).status_code == 422

    async def test_dollars_that_were_given_back_follow_the_level(
        self, api: httpx2.AsyncClient, agent: httpx2.AsyncClient
    ) -> None:
        own = {"scope": "agent_day", "owner": "agent", "name": "agent", "cap_tokens": 1000}
        lead = {"scope": "agent_day", "owner": "level", "name": "lead", "cap_tokens": None}

        async def listed() -> tuple[Any, ...]:
            shown = (await api.get("/api/v1/agents/agent")).json()["data"]["daily_cap_usd"]
            caps = (await api.get("/api/v1/budgets")).json()["data"]["items"]
            [cap] = [cap for cap in caps if cap["owner"] == "agent"]
            days = (await api.get("/api/v1/budgets/spending?scope=agent_day")).json()["data"]["items"]
            return shown, cap["cap_usd"], cap["cap_tokens"], *((day["cap_usd"], day["cap_tokens"]) for day in days)

        await api.put("/api/v1/budgets", json=own | {"cap_usd": "7"})
        await paid(agent, await started(agent), usd="0.01")
        back = (await api.patch("/api/v1/agents/agent", json={"daily_cap_usd": None})).json()["data"]
        assert back["daily_cap_usd"] == "2"
        assert await listed() == ("2", "2", 1000, ("2", 1000))
        await api.patch("/api/v1/agents/agent", json={"level": "lead"})
        assert await listed() == ("12", "12", 1000, ("12", 1000))
        await api.put("/api/v1/budgets", json=lead | {"cap_usd": "20"})
        assert await listed() == ("20", "20", 1000, ("20", 1000))
        await api.patch("/api/v1/budgets", json=own | {"cap_tokens": 500})
        await api.put("/api/v1/budgets", json=lead | {"cap_usd": "30"})
        assert await listed() == ("30", "30", 500, ("30", 500))
        await api.patch("/api/v1/agents/agent", json={"daily_cap_usd": "9"})
        await api.patch("/api/v1/agents/agent", json={"level": "intern"})
        assert await listed() == ("9", "9", 500, ("9", 500))

    async def test_nobody_writes_the_run_that_is_a_missions_own(
        self, api: httpx2.AsyncClient, db: Database, team: Team
    ) -> None:
        own = "INSERT INTO run (workspace_id, run_id, mission_id, created_by) VALUES (%(w)s, 'm', 'm', 'worker')"
        await db.alone(team.workspace_id, f"{own} RETURNING 1", {"w": team.workspace_id})
        run = f"{RUNS}/m"
        for verb in ("end", "costs", "reservations", "reservations/compute/settle", "reservations/compute/release"):
            body = {"status": "success"} if verb == "end" else {"usd": "0"} if verb.endswith(("s", "settle")) else {}
            assert refusal(await api.post(f"{run}/{verb}", json=body)) == (409, "run_of_mission")
        assert refusal(await api.post(f"{run}/tool-calls", json={"tool": "sh"})) == (409, "run_of_mission")
        assert (await api.post(f"{run}/adjustments", json={"usd": "1", "reason": "so"})).status_code == 201
