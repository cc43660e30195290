"""Alerts: raised once for each thing that is wrong, seen and resolved by people, or over by themselves."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from models.store import agents
from models.store.database import Database
from tests.fixtures.api import Caller, Team
from tests.fixtures.budgets import told
from tests.fixtures.missions import refusal

ALERTS, RUNS = "/api/v1/alerts", "/api/v1/runs"

SILENT = text(
    "UPDATE agent SET last_heartbeat_at = now() - make_interval(secs => :seconds),"
    " resumed_at = resumed_at - make_interval(secs => :seconds) WHERE workspace_id = :workspace"
)


async def found(api: httpx2.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    answer = await api.get(f"{ALERTS}{query}")
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["data"]["items"]
    return items


async def run_of(api: httpx2.AsyncClient, agent: str = "agent") -> str:
    return str((await api.post(RUNS, json={"agent_id": agent})).json()["data"]["run_id"])


async def crossed(api: httpx2.AsyncClient) -> str:
    """A run that met its limit; its id."""
    run = await run_of(api)
    assert refusal(await api.post(f"{RUNS}/{run}/costs", json={"usd": "0.26"})) == (409, "budget_exceeded")
    return run


class TestCostSpike:
    async def test_a_cap_that_is_hit_raises_one_with_its_time(self, api: httpx2.AsyncClient) -> None:
        before = datetime.now(UTC)
        run = await crossed(api)
        await api.post(f"{RUNS}/{run}/costs", json={"usd": "0.01"})
        [alert] = await found(api)
        assert (alert["kind"], alert["status"], alert["subject_id"]) == ("cost_spike", "open", f"run/{run}")
        assert (alert["details"]["run_id"], alert["details"]["cap_usd"]) == (run, "0.25")
        assert before - timedelta(seconds=1) < datetime.fromisoformat(alert["detected_at"]) < datetime.now(UTC)
        assert (await api.get(f"{ALERTS}/{alert['alert_id']}")).json()["data"] == alert

    async def test_a_limit_that_many_meet_raises_one(self, api: httpx2.AsyncClient) -> None:
        cap = {"scope": "agent_day", "owner": "agent", "name": "agent", "cap_usd": "0.1", "cap_tokens": None}
        await api.put("/api/v1/budgets", json=cap)
        for run in [await run_of(api) for _ in range(5)]:
            assert refusal(await api.post(f"{RUNS}/{run}/costs", json={"usd": "0.11"})) == (409, "budget_exceeded")
        assert [alert["subject_id"] for alert in await found(api)] == ["agent_day/agent"]

    async def test_it_is_over_once_the_cap_is_raised_and_comes_again(self, api: httpx2.AsyncClient) -> None:
        run = await crossed(api)
        cap = {"scope": "run", "owner": "run", "name": run, "cap_usd": "0.3", "cap_tokens": None}
        await api.put("/api/v1/budgets", json=cap)
        [alert] = await found(api)
        assert (alert["status"], alert["resolved_by"], alert["acknowledged_by"]) == ("resolved", "admin", None)
        assert refusal(await api.post(f"{RUNS}/{run}/costs", json={"usd": "0.31"})) == (409, "budget_exceeded")
        assert [alert["status"] for alert in await found(api, "?sort=-detected_at")] == ["open", "resolved"]


class TestOthers:
    async def test_a_run_that_repeats_itself(self, api: httpx2.AsyncClient) -> None:
        run = await run_of(api)
        for _ in range(5):
            await api.post(f"{RUNS}/{run}/tool-calls", json={"tool": "grep", "error": "E1"})
        [alert] = await found(api, "?kind=loop")
        assert (alert["subject_id"], alert["details"]["tool"]) == (run, "grep")
        await api.post(f"{RUNS}/{run}/end", json={"status": "failed"})
        assert [alert["status"] for alert in await found(api, "?kind=loop")] == ["resolved"]

    async def test_an_agent_that_is_silent_for_five_minutes(
        self, client: Caller, team: Team, api: httpx2.AsyncClient, db: Database
    ) -> None:
        alerts = []
        for seconds in (100, 290, 301, 600):
            async with db.system() as session:
                await session.execute(SILENT, {"seconds": seconds, "workspace": team.workspace_id})
                await agents.sweep(session)
            alerts.append(len(await found(api, "?kind=agent_stale&status=open")))
        assert alerts == [0, 0, 1, 1]
        [alert] = await found(api)
        assert (alert["subject_kind"], alert["details"]["name"]) == ("agent", "agent")
        refused = await client(team.operator).get("/api/v1/queue/next?agent_id=agent&agent_role=coding")
        assert refusal(refused) == (409, "agent_stale")
        await client(team.agent).post("/api/v1/agents/agent/heartbeat")
        [alert] = await found(api)
        assert (alert["status"], alert["resolved_by"]) == ("resolved", "agent")

    @pytest.mark.parametrize("way", ["stopped", "deactivated"])
    async def test_an_agent_that_was_lost_and_is_ended(
        self, team: Team, api: httpx2.AsyncClient, db: Database, way: str
    ) -> None:
        async def swept() -> list[str]:
            async with db.system() as session:
                await session.execute(SILENT, {"seconds": 600, "workspace": team.workspace_id})
                await agents.sweep(session)
            return [alert["status"] for alert in await found(api, "?kind=agent_stale&sort=detected_at")]

        assert await swept() == ["open"]
        place = "/api/v1/agents/agent"
        ended = await (api.post(f"{place}/stop") if way == "stopped" else api.delete(place))
        assert ended.is_success, ended.text
        assert await swept() == ["resolved"]
        [alert] = await found(api)
        assert alert["resolved_by"] == "admin"
        if way == "stopped":
            assert (await api.post(f"{place}/resume")).is_success
            assert await swept() == ["resolved", "open"], "it is to be heard of again"


class TestChange:
    async def test_seen_then_over_by_people(
        self, client: Caller, team: Team, api: httpx2.AsyncClient, db: Database
    ) -> None:
        await crossed(api)
        [alert] = await found(api)
        place = f"{ALERTS}/{alert['alert_id']}"
        for key in (team.agent, team.service, team.observer):
            assert refusal(await client(key).post(f"{place}/ack", json={})) == (403, "not_permitted")
        operator = client(team.operator)
        seen = (await operator.post(f"{place}/ack", json={"note": "looking"})).json()["data"]
        assert (seen["status"], seen["acknowledged_by"], seen["note"]) == ("acknowledged", "operator", "looking")
        again = await api.post(f"{place}/ack", json={})
        assert refusal(again) == (409, "illegal_transition")
        error, when = again.json()["error"], seen["acknowledged_at"][:19]
        assert f"was acknowledged by operator already, at {when}" in error["message"]
        details = {name: error["details"][name][:19] for name in error["details"]}
        assert details == {"current": "acknowledged", "acknowledged_by": "operator", "acknowledged_at": when}
        over = (await operator.post(f"{place}/resolve")).json()["data"]
        assert (over["status"], over["resolved_by"], over["note"]) == ("resolved", "operator", "looking")
        for verb in ("ack", "resolve"):
            late = await api.post(f"{place}/{verb}", json={})
            assert refusal(late) == (409, "illegal_transition")
            assert "was resolved by operator already, at " in late.json()["error"]["message"]
        events = await told(db, team.workspace_id, "alert.%")
        assert [(row["type"], row["actor"]) for row in events] == [
            ("alert.raised", "admin"),
            ("alert.acknowledged", "operator"),
            ("alert.resolved", "operator"),
        ]
        audited = (await api.get("/api/v1/audit?action=alert.acknowledged")).json()["data"]["items"]
        assert [row["subject"]["id"] for row in audited] == [alert["alert_id"]]

    async def test_who_resolves_what_nobody_saw_has_seen_it(self, api: httpx2.AsyncClient) -> None:
        await crossed(api)
        [alert] = await found(api)
        over = (await api.post(f"{ALERTS}/{alert['alert_id']}/resolve", json={})).json()["data"]
        assert (over["acknowledged_by"], over["resolved_by"]) == ("admin", "admin")

    @pytest.mark.parametrize("body", [{"note": ""}, {"note": "x" * 2001}, {"because": "x"}])
    async def test_a_bad_note_changes_nothing(self, api: httpx2.AsyncClient, body: dict[str, str]) -> None:
        await crossed(api)
        [alert] = await found(api)
        assert (await api.post(f"{ALERTS}/{alert['alert_id']}/ack", json=body)).status_code == 422
        assert refusal(await api.post(f"{ALERTS}/alert_x/ack", json={})) == (404, "alert_not_found")
        assert await found(api) == [alert]


async def test_they_are_filtered_and_paged(api: httpx2.AsyncClient, client: Caller, other_team: Team) -> None:
    runs = [await crossed(api) for _ in range(3)]
    page = (await api.get(f"{ALERTS}?limit=2")).json()["data"]
    rest = await found(api, f"?limit=2&cursor={page['next_cursor']}")
    assert [alert["subject_id"] for alert in page["items"] + rest] == [f"run/{run}" for run in reversed(runs)]
    assert len(await found(api, f"?subject_id=run/{runs[0]}&status=open&kind=cost_spike")) == 1
    assert (await api.get(f"{ALERTS}?status=lost")).status_code == 422
    assert await found(client(other_team.admin)) == []
