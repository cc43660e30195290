"""What executions cost, over HTTP: promised, paid, corrected, and stopped by their limits."""

from decimal import Decimal
from typing import Any

import httpx2
import pytest

from models.store import idempotency
from models.store.database import Database
from tests.fixtures.api import Caller, Team
from tests.fixtures.budgets import clock_moved, entries
from tests.fixtures.missions import refusal
from tests.fixtures.policies import put_in_force
from tests.fixtures.spending import SONNET, agent, paid, started

__all__ = ["agent"]

UNPRICED = """  - rule: unpriced
    because: nobody knows what it costs
    when: {action: model.call_unpriced}
    deny: true"""


class TestCosts:
    async def test_a_repeated_report_is_paid_once(self, agent: httpx2.AsyncClient, team: Team, db: Database) -> None:
        run, headers = await started(agent), {"Idempotency-Key": "call-1"}
        answers = [await agent.post(f"{run}/costs", json=SONNET, headers=headers) for _ in range(3)]
        assert [answer.json()["data"]["cost_id"] for answer in answers] == ["call-1"] * 3
        assert len(await entries(db, team.workspace_id)) == 2

    async def test_a_key_that_is_forgotten_by_now_pays_nothing_else_and_says_so(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, db: Database, team: Team, database_url: str
    ) -> None:
        run, headers = await started(agent), {"Idempotency-Key": "call-1"}
        held, changed = {"Idempotency-Key": "call-2"}, {"Idempotency-Key": "change-1"}
        await agent.post(f"{run}/costs", json={"usd": "0.01"}, headers=headers)
        await agent.post(f"{run}/reservations", json={"usd": "0.02"}, headers=held)
        await api.post(f"{run}/adjustments", json={"usd": "0.03", "reason": "so"}, headers=changed)
        async with clock_moved(database_url, "3 days"):
            async with db.system() as session:
                await idempotency.forget_old(session)
            again = await agent.post(f"{run}/costs", json={"usd": "0.01"}, headers=headers)
            assert (again.status_code, again.json()["data"]["usd"]) == (201, "0.01")
        for path, caller, key, code in (
            ("costs", agent, headers, "cost_settled"),
            ("reservations", agent, held, "cost_reserved"),
            ("adjustments", api, changed, "cost_adjusted"),
        ):
            async with clock_moved(database_url, "6 days"):
                async with db.system() as session:
                    await idempotency.forget_old(session)
                body = {"usd": "0.05"} | ({"reason": "so"} if path == "adjustments" else {})
                refused = await caller.post(f"{run}/{path}", json=body, headers=key)
            assert refusal(refused) == (409, code)
        assert (await agent.get(run)).json()["data"]["usd"] == "0.04"

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

    async def test_a_settlement_says_what_the_call_took(self, agent: httpx2.AsyncClient) -> None:
        """Nothing said would free what a call has cost."""
        run = await started(agent)
        held = (await agent.post(f"{run}/reservations", json={"usd": "0.05"})).json()["data"]["cost_id"]
        for nothing in ({}, {"model": "claude-sonnet-4-5"}, {"calls": 3}, {"tokens_in": 0, "tokens_out": 0}):
            refused = await agent.post(f"{run}/reservations/{held}/settle", json=nothing)
            assert refusal(refused) == (422, "invalid_input")
            assert "or usd, 0 where it was free; one that was not made" in refused.json()["error"]["message"]
        assert (await agent.get(run)).json()["data"]["reserved_usd"] == "0.05"
        settled = await agent.post(f"{run}/reservations/{held}/settle", json={"usd": "0"})
        assert (settled.status_code, settled.json()["data"]["run"]["reserved_usd"]) == (200, "0")

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
        assert refusal(await agent.post(f"{run}/reservations/x/settle", json={"usd": "0"})) == (
            404,
            "reservation_not_found",
        )

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
