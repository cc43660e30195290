"""Tool calls over HTTP: on the list or refused, told of, and stopped in a loop."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from sqlalchemy import text

from models.domain.principals import Kind
from models.store.connections import plain
from models.store.database import Database
from tests.fixtures.access import make_key
from tests.fixtures.api import Caller, Team, add_agents
from tests.fixtures.budgets import told
from tests.fixtures.missions import refusal
from tests.fixtures.tool_calls import NO, RUNS, YES, agent, answer, call, end, now, run

__all__ = ["agent", "run"]


class TestHeld:
    async def test_what_waited_waits_on_while_its_run_is_blocked(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str
    ) -> None:
        asked = await call(agent, run, "shell")
        assert (await agent.post(f"{run}/costs", json={"usd": "0.30"})).status_code == 409
        assert (await answer(api, asked, YES)).status_code == 200
        held = await now(agent, run, asked)
        assert (held["status"], held["reason"].startswith("pending: its run is blocked: ")) == ("pending", True)
        cap = {"scope": "run", "owner": "level", "name": "intern", "cap_usd": "9", "cap_tokens": None}
        assert (await api.put("/api/v1/budgets", json=cap)).status_code == 200
        assert (await now(agent, run, asked))["status"] == "allowed"

    async def test_nor_does_one_of_a_paused_agent(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str
    ) -> None:
        asked = await call(agent, run, "shell")
        assert (await api.post("/api/v1/agents/agent/pause", json={})).status_code == 200
        assert (await answer(api, asked, YES)).status_code == 200
        assert (await now(agent, run, asked))["reason"] == "pending: its agent is paused"
        assert (await end(agent, run, asked)).status_code == 200, "it may have been made just before"


class TestTheList:
    """POL-11."""

    async def test_off_the_list_is_403_and_logged(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str, db: Database, team: Team
    ) -> None:
        await api.patch("/api/v1/agents/agent", json={"tools": ["read_*", "post_comment"]})
        assert (await call(agent, run, "read_db"))["status"] == "allowed"
        off = await agent.post(f"{run}/tool-calls", json={"tool": "shell", "arguments": {"command": "ls"}})
        assert refusal(off) == (403, "tool_not_permitted")
        assert off.json()["error"]["details"] == {"number": 2}
        [_, logged] = (await api.get(f"{run}/tool-calls")).json()["data"]["items"]
        assert (logged["tool"], logged["status"], logged["decision_id"]) == ("shell", "denied", None)
        assert logged["reason"].startswith("denied: the tool is not on the list")
        [event] = await told(db, team.workspace_id, "tool_call.denied")
        assert (event["actor"], event["data"]["tool"]) == ("agent", "shell")
        [row] = (await api.get("/api/v1/activity?status=blocked")).json()["data"]["items"]
        assert (row["agent_id"], row["action"]) == ("agent", "tool_call.denied")

    async def test_a_repeated_request_is_refused_again_and_logged_once(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str
    ) -> None:
        await api.patch("/api/v1/agents/agent", json={"tools": []})
        headers = {"Idempotency-Key": "k"}
        first, second = [await agent.post(f"{run}/tool-calls", json={"tool": "ls"}, headers=headers) for _ in range(2)]
        assert refusal(first) == refusal(second) == (403, "tool_not_permitted")
        assert (first.content, second.headers["idempotency-replayed"]) == (second.content, "true")
        assert len((await api.get(f"{run}/tool-calls")).json()["data"]["items"]) == 1

    async def test_all_until_an_admin_narrows_it(self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient) -> None:
        assert (await api.get("/api/v1/agents/agent")).json()["data"]["tools"] == ["*"]
        own = await agent.patch("/api/v1/agents/agent", json={"tools": ["*"]})
        assert refusal(own) == (403, "admins_only")
        changed = await api.patch("/api/v1/agents/agent", json={"tools": ["git_*"]})
        assert changed.json()["data"]["tools"] == ["git_*"]

    async def test_it_holds_for_what_a_service_reports_of_the_agent(
        self, client: Caller, team: Team, api: httpx2.AsyncClient
    ) -> None:
        await api.patch("/api/v1/agents/agent", json={"tools": []})
        service = client(team.service)
        its, own = [
            f"{RUNS}/{(await service.post(RUNS, json=body)).json()['data']['run_id']}"
            for body in ({"agent_id": "agent"}, {})
        ]
        off = await service.post(f"{its}/tool-calls", json={"tool": "ls"})
        assert refusal(off) == (403, "tool_not_permitted")
        assert (await call(service, own, "ls"))["status"] == "allowed"

    async def test_the_command_line_sets_it(self, api: httpx2.AsyncClient, team: Team, address: str) -> None:
        where = ("--url", address, "--api-key", team.admin)
        program = str(Path(sys.executable).with_name("mission-control"))
        words = ("agent", "tools", "agent", "git_*", "shell")
        command = await asyncio.create_subprocess_exec(program, *words, *where, stdout=PIPE)
        shown, _ = await command.communicate()
        assert (command.returncode, b"git_*, shell" in shown) == (0, True)
        assert (await api.get("/api/v1/agents/agent")).json()["data"]["tools"] == ["git_*", "shell"]

    @pytest.mark.parametrize("tools", [["x" * 201], ["x"] * 501, [""], "shell", [1], None])
    async def test_bad_lists_are_told(self, api: httpx2.AsyncClient, tools: Any) -> None:
        assert (await api.patch("/api/v1/agents/agent", json={"tools": tools})).status_code == 422
        assert (await api.get("/api/v1/agents/agent")).json()["data"]["tools"] == ["*"]


class TestTheLog:
    async def test_the_fourth_retry_with_the_same_error_blocks(
        self, agent: httpx2.AsyncClient, db: Database, team: Team, run: str
    ) -> None:
        """LOOP-04."""
        for number in range(5):
            assert (await agent.get(run)).json()["data"]["status"] is None, number
            assert (await call(agent, run, "read_db", error="E1"))["number"] == number + 1
        found = (await agent.get(run)).json()["data"]
        assert (found["status"], found["blocked_by"]) == ("blocked", "loop")
        assert refusal(await agent.post(f"{run}/tool-calls", json={"tool": "ls"})) == (409, "run_blocked")
        assert refusal(await agent.post(f"{run}/costs", json={"usd": "0.01"})) == (409, "run_blocked")
        well = await agent.post(f"{run}/end", json={"status": "success"})
        assert (refusal(well), "a loop never goes on" in well.text) == ((409, "run_blocked"), True)
        assert [row["data"]["by"] for row in await told(db, team.workspace_id, "run.blocked")] == ["loop"]

    async def test_also_where_each_was_asked_for_first(self, agent: httpx2.AsyncClient, run: str) -> None:
        begun = [await call(agent, run, "read_db") for _ in range(6)]
        for made in begun[:5]:
            assert (await agent.get(run)).json()["data"]["status"] is None
            await end(agent, run, made, error="E1")
        assert (await agent.get(run)).json()["data"]["blocked_by"] == "loop"
        assert (await end(agent, run, begun[5])).status_code == 200, "what has begun may be told of"

    async def test_what_is_no_loop(self, agent: httpx2.AsyncClient, run: str) -> None:
        for error in ("E1", "E1", "E1", "E1", None, "E1", "E2", "E1", "E1", "E1"):
            await call(agent, run, "read_db", error=error, duration_ms=1)
        assert (await agent.get(run)).json()["data"]["status"] is None

    async def test_they_are_listed_with_their_costs(self, agent: httpx2.AsyncClient, run: str) -> None:
        cost = (await agent.post(f"{run}/costs", json={"usd": "0.02"})).json()["data"]["cost_id"]
        await call(agent, run, "read_db", duration_ms=5, cost_id=cost)
        await call(agent, run, "read_db", error="exit 1")
        await end(agent, run, await call(agent, run, "read_db"), cost_id=cost)
        items = (await agent.get(f"{run}/tool-calls")).json()["data"]["items"]
        assert [(row["tool"], row["status"], row["usd"]) for row in items] == [
            ("read_db", "success", "0.02"),
            ("read_db", "failed", None),
            ("read_db", "success", "0.02"),
        ]

    async def test_a_cost_that_the_run_has_not_is_refused(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, db: Database, team: Team, run: str
    ) -> None:
        other = f"{RUNS}/{(await agent.post(RUNS, json={})).json()['data']['run_id']}"
        elsewhere = (await agent.post(f"{other}/costs", json={"usd": "0.02"})).json()["data"]["cost_id"]
        corrected = await api.post(
            f"{run}/adjustments", json={"usd": "1", "reason": "so"}, headers={"Idempotency-Key": "correction"}
        )
        assert corrected.status_code == 201
        begun = await call(agent, run, "read_db")
        before = await told(db, team.workspace_id, "%")
        for cost in ("nope", elsewhere, "correction"):
            body = {"tool": "read_db", "duration_ms": 5, "cost_id": cost}
            assert refusal(await agent.post(f"{run}/tool-calls", json=body)) == (404, "cost_not_found")
            assert refusal(await end(agent, run, begun, cost_id=cost)) == (404, "cost_not_found")
        assert await told(db, team.workspace_id, "%") == before
        assert [row["status"] for row in (await agent.get(f"{run}/tool-calls")).json()["data"]["items"]] == ["allowed"]

    async def test_a_cost_that_is_only_reserved_may_be_named(self, agent: httpx2.AsyncClient, run: str) -> None:
        held = (await agent.post(f"{run}/reservations", json={"usd": "0.02"})).json()["data"]["cost_id"]
        await call(agent, run, "read_db", duration_ms=5, cost_id=held)
        assert (await agent.get(f"{run}/tool-calls/1")).json()["data"]["usd"] is None
        await agent.post(f"{run}/reservations/{held}/settle", json={"usd": "0.01"})
        assert (await agent.get(f"{run}/tool-calls/1")).json()["data"]["usd"] == "0.01"

    async def test_transitions_and_tool_calls_are_audit_rows_of_those_kinds(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database, run: str
    ) -> None:
        """ACTIVITY-08."""
        asked = [await call(agent, run, "shell") for _ in range(3)]
        for made, body in zip(asked, (YES, NO), strict=False):
            await answer(client(team.operator), made, body)
        await end(agent, run, asked[0])
        await end(agent, run, await call(agent, run, "read_db"), error="E1")
        await call(agent, run, "read_db", duration_ms=1)
        await agent.post(f"{run}/end", json={"status": "success"})
        for verb in ("pause", "resume", "drain"):
            assert (await api.post(f"/api/v1/agents/agent/{verb}", json={})).status_code == 200
        async with db.workspace(team.workspace_id) as session:
            counts = (await session.execute(text(COUNTS))).mappings().one()
        assert counts == {
            "tool_calls": 5,
            "calls_ended_later": 2,
            "call_rows": 7,
            "decisions_closed": 3,
            "decision_rows": 3,
            "runs": 1,
            "run_rows": 2,
            "agent_rows": 3,
        }

    async def test_an_end_is_never_changed(
        self, agent: httpx2.AsyncClient, run: str, db: Database, team: Team, database_url: str
    ) -> None:
        await call(agent, run, "read_db", error="E1")
        with psycopg.connect(plain(database_url)) as owner, pytest.raises(psycopg.errors.RaiseException, match="over"):
            owner.execute("UPDATE tool_call SET error = NULL WHERE workspace_id = %s", (team.workspace_id,))

    async def test_many_at_once_are_numbered_without_gaps(self, agent: httpx2.AsyncClient, run: str) -> None:
        made = await asyncio.gather(*(call(agent, run, "shell") for _ in range(8)))
        assert sorted(each["number"] for each in made) == list(range(1, 9))
        assert len({each["decision_id"] for each in made}) == 8

    async def test_others_end_nothing(
        self, agent: httpx2.AsyncClient, client: Caller, team: Team, run: str, db: Database
    ) -> None:
        made = await call(agent, run, "read_db")
        async with db.system() as session:
            await add_agents(session, team.workspace_id, "other")
            other = client(await make_key(session, team.workspace_id, "other", kind=Kind.AGENT))
        assert refusal(await end(other, run, made)) == (404, "run_not_found")
        assert refusal(await end(agent, run, {"number": 9})) == (404, "tool_call_not_found")
        assert refusal(await agent.get(f"{run}/tool-calls/0"))[0] == 422

    @pytest.mark.parametrize(
        "body",
        [
            {"tool": ""},
            {"tool": "x" * 257},
            {"tool": "e\u200bmail"},
            {"tool": "she\nll"},
            {"tool": "x", "arguments": []},
            {"tool": "x", "arguments": {"a": "y" * 16_400}},
            {"tool": "x", "duration_ms": -1},
            {"tool": "x", "error": ""},
            {"tool": "x", "env": 1},
            {"tool": "x", "usd": "-1"},
            {"tool": "x", "usd": "NaN"},
            {"tool": "x", "usd": "0.123456789012345678901234567890"},
            {"tool": "x", "action": "read_db"},
        ],
    )
    async def test_bad_ones_are_told_and_leave_nothing(
        self, agent: httpx2.AsyncClient, run: str, body: dict[str, Any]
    ) -> None:
        assert (await agent.post(f"{run}/tool-calls", json=body)).status_code == 422
        assert (await agent.get(f"{run}/tool-calls")).json()["data"]["items"] == []


COUNTS = """
    SELECT (SELECT count(*) FROM tool_call) AS tool_calls,
    (SELECT count(*) FROM tool_call WHERE ended_at > at) AS calls_ended_later,
    (SELECT count(*) FROM audit WHERE action LIKE 'tool\\_call.%') AS call_rows,
    (SELECT count(*) FROM decision WHERE status <> 'pending') AS decisions_closed,
    (SELECT count(*) FROM audit WHERE action IN ('decision.approved', 'decision.denied', 'decision.canceled'))
        AS decision_rows,
    (SELECT count(*) FROM run WHERE ended_at IS NOT NULL) AS runs,
    (SELECT count(*) FROM audit WHERE action IN ('run.started', 'run.ended')) AS run_rows,
    (SELECT count(*) FROM audit WHERE action = 'agent.status_changed') AS agent_rows
"""
"""Each transition of a decision, run, agent or call, and its rows; an agent went through three."""
