"""Executions over HTTP: who may run what, what it costs, and when it is stopped."""

from decimal import Decimal
from typing import Any

import httpx2
import pytest

from models.store.database import Database
from tests.fixtures.api import Caller, Team, add_agents
from tests.fixtures.budgets import entries, told
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo
from tests.fixtures.policies import put_in_force

__all__ = ["repo"]

RUNS = "/api/v1/runs"
SONNET = {"model": "claude-sonnet-4-5", "tokens_in": 1000, "tokens_out": 1000}
"""0.018 USD by the shipped list."""
UNPRICED = """  - rule: unpriced
    because: nobody knows what it costs
    when: {action: model.call_unpriced}
    deny: true"""


async def started(api: httpx2.AsyncClient, **values: Any) -> str:
    answer = await api.post(RUNS, json=values)
    assert answer.status_code == 201, answer.text
    return f"{RUNS}/{answer.json()['data']['run_id']}"


async def paid(api: httpx2.AsyncClient, run: str, **values: Any) -> httpx2.Response:
    return await api.post(f"{run}/costs", json=values)


@pytest.fixture
def agent(client: Caller, team: Team) -> httpx2.AsyncClient:
    """The team's agent, who is called `agent`."""
    return client(team.agent)


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

    async def test_nobody_writes_the_run_that_is_a_missions_own(
        self, api: httpx2.AsyncClient, db: Database, team: Team
    ) -> None:
        own = "INSERT INTO run (workspace_id, run_id, mission_id, created_by) VALUES (%(w)s, 'm', 'm', 'worker')"
        await db.alone(team.workspace_id, f"{own} RETURNING 1", {"w": team.workspace_id})
        run = f"{RUNS}/m"
        for verb in ("end", "costs", "reservations", "reservations/compute/settle", "reservations/compute/release"):
            body = {"status": "success"} if verb == "end" else {"usd": "0"} if verb == "reservations" else {}
            assert refusal(await api.post(f"{run}/{verb}", json=body)) == (409, "run_of_mission")
        assert refusal(await api.post(f"{run}/tool-calls", json={"tool": "sh"})) == (409, "run_of_mission")
        assert (await api.post(f"{run}/adjustments", json={"usd": "1", "reason": "so"})).status_code == 201


class TestCosts:
    async def test_a_repeated_report_is_paid_once(self, agent: httpx2.AsyncClient, team: Team, db: Database) -> None:
        run, headers = await started(agent), {"Idempotency-Key": "call-1"}
        answers = [await agent.post(f"{run}/costs", json=SONNET, headers=headers) for _ in range(3)]
        assert [answer.json()["data"]["cost_id"] for answer in answers] == ["call-1"] * 3
        assert len(await entries(db, team.workspace_id)) == 2

    async def test_what_is_reported_wins_and_a_strange_model_pays_the_dearest(self, agent: httpx2.AsyncClient) -> None:
        run = await started(agent)
        told = (await paid(agent, run, **SONNET, usd="0.001")).json()["data"]
        strange = (await paid(agent, run, model="x-1", tokens_out=1000)).json()["data"]
        assert (told["usd"], told["unpriced"]) == ("0.001", False)
        assert (strange["usd"], strange["unpriced"]) == ("0.075", True)

    async def test_a_policy_may_deny_a_model_without_a_price_before_it_is_called(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, team: Team, db: Database
    ) -> None:
        run = await started(agent)
        assert (await agent.post(f"{run}/reservations", json={"model": "x-1", "tokens_out": 10})).status_code == 201
        await put_in_force(api, UNPRICED)
        refused = await agent.post(f"{run}/reservations", json={"model": "x-1", "tokens_out": 10})
        assert refusal(refused) == (403, "policy_denies")
        assert "'x-1' has no price, put it into config/prices.yaml: nobody knows what it costs" in refused.text
        assert (await agent.post(f"{run}/reservations", json=SONNET)).status_code == 201
        assert (await paid(agent, run, model="x-1", tokens_out=10)).status_code == 201, "what was done is paid"
        held = [row for row in await entries(db, team.workspace_id) if row["kind"] == "reserve"]
        assert len(held) == 3
        told = (await api.get("/api/v1/policy/verdicts?outcome=deny")).json()["data"]["items"]
        assert len(told) == 2, "also of what was called already"

    async def test_what_is_settled_under_a_model_without_a_price_is_judged_once(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient
    ) -> None:
        run, known = await started(agent), "/api/v1/policy/verdicts?outcome=deny"
        await put_in_force(api, UNPRICED)
        held = (await agent.post(f"{run}/reservations", json=SONNET)).json()["data"]["cost_id"]
        settle = f"{run}/reservations/{held}/settle"
        for report, status in (({"model": "x-1", "tokens_out": 10}, 200), ({"model": "x-2", "tokens_out": 99}, 409)):
            for key in ("first", "again"):
                keyed = {"Idempotency-Key": f"{key}-{status}"}
                assert (await agent.post(settle, json=report, headers=keyed)).status_code == status
        [verdict] = (await api.get(known)).json()["data"]["items"]
        assert (verdict["action"], verdict["input"]["context"]["facts"]["model"]) == ("model.call_unpriced", "x-1")

    async def test_an_agent_is_judged_by_the_level_that_it_has_now_not_by_that_of_its_run(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient
    ) -> None:
        await put_in_force(api, UNPRICED.replace("call_unpriced}", "call_unpriced, kind: agent, level: intern}"))
        unpriced = {"model": "x-1", "tokens_out": 10}
        assert (await api.patch("/api/v1/agents/agent", json={"level": "lead"})).status_code == 200
        run = await started(agent)
        assert (await agent.post(f"{run}/reservations", json=unpriced)).status_code == 201
        assert (await api.patch("/api/v1/agents/agent", json={"level": "intern"})).status_code == 200
        for caller in (agent, api):
            assert refusal(await caller.post(f"{run}/reservations", json=unpriced)) == (403, "policy_denies")
        assert (await agent.get(run)).json()["data"]["level"] == "lead"

    async def test_a_reservation_says_what_it_is_for(self, agent: httpx2.AsyncClient) -> None:
        run = await started(agent)
        for nothing in ({"model": "claude-sonnet-4-5"}, {"calls": 3}, {}):
            assert refusal(await agent.post(f"{run}/reservations", json=nothing)) == (422, "invalid_input")
        assert (await agent.post(f"{run}/reservations", json={"usd": "0"})).status_code == 201

    async def test_a_call_that_cost_more_than_it_reserved_is_seen_in_the_costs(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient
    ) -> None:
        run = await started(agent)
        held = (await agent.post(f"{run}/reservations", json={"usd": "0.05"})).json()["data"]["cost_id"]
        await paid(agent, run, usd="0.01")
        await agent.post(f"{run}/reservations/{held}/settle", json={"usd": "0.07"})
        total = (await api.get("/api/v1/costs?group_by=run")).json()["data"]["total"]
        assert (total["usd"], total["overrun_usd"]) == ("0.08", "0.07")

    @pytest.mark.parametrize("reason", ["", "  ", "\u3000\n"])
    async def test_nothing_is_corrected_without_a_word(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, reason: str
    ) -> None:
        run = await started(agent)
        refused = await api.post(f"{run}/adjustments", json={"usd": "1", "reason": reason})
        assert refusal(refused) == (422, "invalid_input")

    async def test_no_run_is_paid_for_running(self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient) -> None:
        run = await started(agent)
        await paid(agent, run, usd="0.10")
        too_much = await api.post(f"{run}/adjustments", json={"usd": "-0.11", "reason": "so"})
        assert refusal(too_much) == (409, "below_zero")
        taken = await api.post(f"{run}/adjustments", json={"usd": "-0.10", "reason": "so"})
        assert (taken.json()["data"]["usd"], (await api.get("/api/v1/costs")).json()["data"]["total"]["usd"]) == (
            "0",
            "0",
        )

    async def test_crossing_blocks_and_an_admin_lets_it_go_on(
        self, agent: httpx2.AsyncClient, client: Caller, team: Team, api: httpx2.AsyncClient
    ) -> None:
        run = await started(agent)
        assert (await paid(agent, run, usd="0.25")).status_code == 201
        answer = await paid(agent, run, usd="0.01")
        assert refusal(answer) == (409, "budget_exceeded")
        assert answer.json()["error"]["details"]["limit"] == "run"
        assert refusal(await paid(agent, run, usd="0")) == (409, "run_blocked")
        [asked] = (await api.get("/api/v1/decisions?kind=budget&status=pending")).json()["data"]["items"]
        assert asked["cost_so_far"] == {"usd": "0.25", "tokens": 0}
        place, yes = f"/api/v1/decisions/{asked['decision_id']}/resolve", {"decision": "approve", "explanation": "go"}
        assert refusal(await client(team.operator).post(place, json=yes)) == (403, "not_permitted")
        assert (await api.post(place, json=yes)).status_code == 200
        found = (await api.get(run)).json()["data"]
        assert (found["status"], found["cap_usd"]) == (None, "0.50")
        assert (await paid(agent, run, usd="0.25")).status_code == 201
        assert refusal(await paid(agent, run, usd="0.01")) == (409, "budget_exceeded")
        assert len((await api.get("/api/v1/decisions?kind=budget")).json()["data"]["items"]) == 2

    async def test_what_begun_calls_cost_later_is_in_the_question_that_is_approved(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient
    ) -> None:
        await api.patch("/api/v1/agents/agent", json={"daily_cap_usd": "50"})
        run = await started(agent)
        held = [(await agent.post(f"{run}/reservations", json={"usd": "0.01"})).json()["data"] for _ in range(3)]
        asked = []
        for cost in held:
            await agent.post(f"{run}/reservations/{cost['cost_id']}/settle", json={"usd": "1"})
            [one] = (await api.get("/api/v1/decisions?kind=budget&status=pending")).json()["data"]["items"]
            asked.append(one)
        yes = {"decision": "approve", "explanation": "go"}
        old = await api.post(f"/api/v1/decisions/{asked[0]['decision_id']}/resolve", json=yes)
        assert refusal(old) == (409, "decision_canceled")
        assert Decimal(asked[-1]["cost_so_far"]["usd"]) == 3
        shown = asked[-1]["question"]["proposed"]["cap_usd"]
        assert Decimal(shown) > 3
        assert (await api.post(f"/api/v1/decisions/{asked[-1]['decision_id']}/resolve", json=yes)).status_code == 200
        found = (await api.get(run)).json()["data"]
        assert (found["status"], found["cap_usd"], found["usd"]) == (None, shown, "3")
        assert (await paid(agent, run, usd="0.01")).status_code == 201

    async def test_a_denied_raise_leaves_it_blocked(self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient) -> None:
        run = await started(agent)
        await paid(agent, run, usd="1")
        [asked] = (await api.get("/api/v1/decisions?kind=budget")).json()["data"]["items"]
        no = {"decision": "deny", "explanation": "too dear"}
        assert (await api.post(f"/api/v1/decisions/{asked['decision_id']}/resolve", json=no)).status_code == 200
        assert refusal(await paid(agent, run, usd="0.01")) == (409, "run_blocked")

    async def test_it_is_settled_as_the_model_it_was_reserved_for(self, agent: httpx2.AsyncClient) -> None:
        run = await started(agent)
        held = (await agent.post(f"{run}/reservations", json={**SONNET, "tokens_out": 10})).json()["data"]
        report = {"tokens_in": SONNET["tokens_in"], "tokens_out": 10}
        settled = (await agent.post(f"{run}/reservations/{held['cost_id']}/settle", json=report)).json()["data"]
        assert (settled["usd"], settled["unpriced"]) == (held["usd"], held["unpriced"]) == ("0.00315", False)

    async def test_reserve_settle_release(self, agent: httpx2.AsyncClient) -> None:
        run = await started(agent)
        held = (await agent.post(f"{run}/reservations", json={**SONNET, "hold_seconds": 60})).json()["data"]
        assert held["run"]["reserved_usd"] == "0.018"
        place = f"{run}/reservations/{held['cost_id']}"
        settled = await agent.post(f"{place}/settle", json={**SONNET, "tokens_out": 10})
        assert (settled.json()["data"]["run"]["usd"], settled.json()["data"]["run"]["tokens"]) == ("0.00315", 1010)
        again = await agent.post(f"{place}/settle", json={**SONNET, "tokens_out": 10})
        assert (again.status_code, again.json()["data"]) == (200, settled.json()["data"])
        for late in (agent.post(f"{place}/settle", json={"usd": "0.2"}), agent.post(f"{place}/release", json={})):
            assert refusal(await late) == (409, "cost_settled")
        assert refusal(await agent.post(f"{run}/reservations/x/settle", json={})) == (404, "reservation_not_found")

    async def test_dollars_are_written_without_an_exponent(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient
    ) -> None:
        run = await started(agent)
        assert (await paid(agent, run, usd="0.00000")).json()["data"]["usd"] == "0"
        tiny = (await paid(agent, run, usd="0.000000001")).json()["data"]
        assert (tiny["usd"], tiny["run"]["usd"]) == ("0.000000001",) * 2
        await agent.post(f"{run}/reservations", json={"usd": "0.000000002"})
        assert (await api.get(run)).json()["data"]["reserved_usd"] == "0.000000002"
        assert (await api.get("/api/v1/costs")).json()["data"]["total"]["usd"] == "0.000000001"
        assert refusal(await paid(agent, run, usd="0.3")) == (409, "budget_exceeded")
        [asked] = (await api.get("/api/v1/decisions?kind=budget")).json()["data"]["items"]
        assert asked["cost_so_far"]["usd"] == asked["question"]["settled_usd"] == "0.000000001"

    async def test_an_admin_corrects(self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient) -> None:
        run = await started(agent)
        await paid(agent, run, usd="0.25")
        change = {"usd": "-0.05", "reason": "billed twice"}
        assert refusal(await agent.post(f"{run}/adjustments", json=change)) == (403, "not_permitted")
        assert (await api.post(f"{run}/adjustments", json=change)).json()["data"]["usd"] == "0.20"

    @pytest.mark.parametrize(
        "cost",
        [
            {"usd": "-0.01"},
            {"usd": "NaN"},
            {"usd": "Infinity"},
            {"usd": "0.123456789012345678901234567890"},
            {"usd": "123456789012345678901234567890"},
            {"usd": "0.0000000001"},
            {"usd": "a"},
            {"tokens_in": -1},
            {"tokens_in": 10**16},
            {"tokens_in": 1.5},
            {"calls": -1},
            {"model": ""},
            {"price": 1},
        ],
    )
    async def test_bad_amounts_are_told_and_leave_nothing(
        self, agent: httpx2.AsyncClient, db: Database, team: Team, cost: dict[str, Any]
    ) -> None:
        run = await started(agent)
        answer = await paid(agent, run, **cost)
        assert answer.status_code == 422
        assert next(iter(cost)) in answer.text
        assert await entries(db, team.workspace_id) == []
