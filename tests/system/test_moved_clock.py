"""The database's clock a day ahead and a day behind, under the whole product: nothing happens twice."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.fixtures.budgets import clock_moved
from tests.fixtures.product import Product
from tests.fixtures.waiting import until
from workflows.client import connect
from workflows.queues import control_queue
from workflows.reconcile import ReconcileWorkflow

pytestmark = pytest.mark.timeout(180)
DAYS = ("0 days", "1 day", "0 days", "-1 day", "1 day", "-1 day", "0 days")


async def test_no_decision_expires_twice(product: Product) -> None:
    asks: dict[str, Any] = {
        "approval_timeout_minutes": 60,
        "trust_requirements": {"requires_governance_approval": True},
    }
    missions = [await product.file(product.repo(), **asks) for _ in range(2)]
    decisions = [await product.pending_decision(mission) for mission in missions]
    await product.resolve(decisions[0], "approve")
    assert (await product.ended(missions[0]))["outcome"] == "merged"
    async with clock_moved(product.url, "-1 day"):
        assert status(product, decisions) == ["approved", "pending"]
    async with clock_moved(product.url, "1 day"):
        assert (await product.ended(missions[1]))["outcome"] == "expired"
    for moved in DAYS:
        async with clock_moved(product.url, moved):
            await passes(product, 2)
            late = {"decision": "approve", "explanation": "too late"}
            for decision in decisions:
                assert (await product.api.post(f"/decisions/{decision}/resolve", json=late)).status_code == 409
    assert status(product, decisions) == ["approved", "expired"]
    told = "SELECT type, count(*) AS n FROM {} WHERE type LIKE 'decision.%%' AND subject_id = ANY(%s) GROUP BY 1"
    expected = {"decision.requested": 2, "decision.approved": 1, "decision.expired": 1}
    found = {row["type"]: row["n"] for row in product.rows(told.format("event"), decisions)}
    assert {kind: n for kind, n in found.items() if kind != "decision.half_time"} == expected
    assert found.get("decision.half_time", 0) <= 1


@pytest.mark.parametrize(
    ("scope", "owner", "agent"), [("workspace_month", "workspace", None), ("agent_day", "agent", "bot")]
)
async def test_no_cap_is_reset_twice(product: Product, scope: str, owner: str, agent: str | None) -> None:
    """A window of the clock's past or future has its own counter; back in one, what was spent there still counts."""
    if agent:
        await product.post("/agents", {"name": agent, "endpoint": "https://bot.example/"})
        await product.post(f"/agents/{agent}/approve", {"explanation": "known"})
    run = (await product.post("/runs", {"agent_id": agent})).json()["data"]["run_id"]
    await cap(product, "run", "run", run, None)
    await cap(product, scope, owner, agent or "", "1900")  # a mission's compute takes cents
    paid, windows = [], set()
    for moved in moves(scope):
        async with clock_moved(product.url, moved):
            answer = await product.post(f"/runs/{run}/costs", {"usd": "1000"})
            window = str(product.rows(WINDOW[scope])[0]["name"])
            windows.add(window)
            if answer.status_code == 201:
                paid.append(window)
            else:
                assert answer.json()["error"]["code"] in ("budget_exceeded", "run_blocked"), answer.text
    assert sorted(paid) == sorted(windows), "once in each window"
    assert len(paid) == (3 if scope == "agent_day" else 2)
    await cap(product, scope, owner, agent or "", None)


async def cap(product: Product, scope: str, owner: str, name: str, usd: str | None) -> None:
    """Set a cap, or take it away."""
    limit = {"scope": scope, "owner": owner, "name": name, "cap_usd": usd, "cap_tokens": None}
    answer = await product.api.put("/budgets", json=limit)
    assert answer.status_code == 200, answer.text


async def test_a_reservation_that_seems_forgotten_is_given_back_once_and_may_still_be_paid(product: Product) -> None:
    run = (await product.post("/runs", {"level": "lead"})).json()["data"]["run_id"]
    held = (await product.post(f"/runs/{run}/reservations", {"usd": "0.5"})).json()["data"]["cost_id"]
    kinds = "SELECT kind FROM ledger WHERE run_id = %s ORDER BY at, kind"
    async with clock_moved(product.url, "1 day"):
        await until(lambda: len(product.rows(kinds, run)) == 2, 60)
    for moved in DAYS:
        async with clock_moved(product.url, moved):
            await passes(product, 1)
    assert sorted(row["kind"] for row in product.rows(kinds, run)) == ["release", "reserve"]
    assert (await product.post(f"/runs/{run}/reservations/{held}/settle", {"usd": "0.4"})).status_code == 200
    [counter] = product.rows("SELECT * FROM budget WHERE scope = 'run' AND subject = %s", run)
    assert (float(counter["settled_usd"]), float(counter["reserved_usd"])) == (0.4, 0)


WINDOW = {
    "agent_day": "SELECT to_char(mc_now() AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS name",
    "workspace_month": "SELECT to_char(mc_now() AT TIME ZONE 'UTC', 'YYYY-MM') AS name",
}


def moves(scope: str) -> tuple[str, ...]:
    """By how much the clock is moved: days around now, or around the next turn of the month."""
    if scope == "agent_day":
        return DAYS
    now = datetime.now(UTC)
    turn = (now.replace(day=1) + timedelta(days=32)).replace(day=1) - now
    return tuple(f"{turn.days + days} days" for days in (0, 1, 0, -1, 1, -1, 0))


def status(product: Product, decisions: list[str]) -> list[str]:
    """How decisions stand."""
    sql = "SELECT status FROM decision WHERE decision_id = %s"
    return [str(product.rows(sql, decision)[0]["status"]) for decision in decisions]


async def passes(product: Product, number: int) -> None:
    """Let a reconciler look so many times more."""
    client, queue = await connect(product.stack.settings), control_queue(product.stack.settings.task_queue_prefix)
    for _ in range(number):
        await client.execute_workflow(ReconcileWorkflow.run, id=f"by-hand-{uuid4().hex}", task_queue=queue)
