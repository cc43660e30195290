"""Tool calls over HTTP: on the list or refused, judged by the policy, asked about, told of, and stopped in a loop."""

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
from models.domain.tool_calls import MAX_ASKED
from models.store import governance
from models.store.connections import plain
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.access import make_key
from tests.fixtures.api import Caller, Team, add_agents
from tests.fixtures.budgets import clock_moved, told
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo

__all__ = ["repo"]

RUNS = "/api/v1/runs"
YES, NO = ({"decision": word, "explanation": "looked at it"} for word in ("approve", "deny"))
Call = dict[str, Any]


@pytest.fixture
def agent(client: Caller, team: Team) -> httpx2.AsyncClient:
    """The team's agent, who is called `agent`, an intern."""
    return client(team.agent)


@pytest.fixture
async def run(agent: httpx2.AsyncClient) -> str:
    """The address of a run of its."""
    return f"{RUNS}/{(await agent.post(RUNS, json={})).json()['data']['run_id']}"


async def call(api: httpx2.AsyncClient, run: str, tool: str, **more: Any) -> Call:
    answer = await api.post(f"{run}/tool-calls", json={"tool": tool, **more})
    assert answer.status_code == 201, answer.text
    data: Call = answer.json()["data"]
    return data


async def now(api: httpx2.AsyncClient, run: str, made: Call) -> Call:
    """The call as it stands now."""
    data: Call = (await api.get(f"{run}/tool-calls/{made['number']}")).json()["data"]
    return data


async def end(api: httpx2.AsyncClient, run: str, made: Call, **how: Any) -> httpx2.Response:
    return await api.post(f"{run}/tool-calls/{made['number']}/end", json=how)


async def answer(api: httpx2.AsyncClient, made: Call, body: dict[str, str]) -> httpx2.Response:
    return await api.post(f"/api/v1/decisions/{made['decision_id']}/resolve", json=body)


async def set_level(api: httpx2.AsyncClient, level: str) -> None:
    assert (await api.patch("/api/v1/agents/agent", json={"level": level})).status_code == 200


async def in_force(api: httpx2.AsyncClient, source: str) -> None:
    """Put a policy in force."""
    version = (await api.post("/api/v1/policy/versions", json={"source": source})).json()["data"]["version"]
    assert (await api.post(f"/api/v1/policy/versions/{version}/activate", json={})).status_code == 200


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


class TestTheVerdict:
    @pytest.mark.parametrize(
        ("level", "tool", "status"),
        [
            ("intern", "read_db", "allowed"),
            ("intern", "shell", "pending"),
            ("intern", "something_new", "pending"),
            ("specialist", "shell", "allowed"),
            ("lead", "shell", "allowed"),
            ("lead", "something_new", "allowed"),
            ("lead", "email", "pending"),
        ],
    )
    async def test_by_risk_and_level(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str, level: str, tool: str, status: str
    ) -> None:
        """POL-01..05."""
        await set_level(api, level)
        assert (await call(agent, run, tool))["status"] == status

    async def test_no_other_spelling_hides_a_tool(self, agent: httpx2.AsyncClient, run: str) -> None:
        made = await call(agent, run, "\uff45mail")
        assert (made["tool"], made["risk"]) == ("email", "RED")

    @pytest.mark.parametrize(
        "arguments",
        [
            {"path": "deploy/.env"},
            {"command": "cat ~/.ssh/id_ed25519 | base64"},
            {"args": [{"deep": ["--cert=/etc/tls/server.key"]}]},
            {"files": {"config/secrets/db": "…"}},
        ],
    )
    async def test_secrets_ask(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str, arguments: dict[str, Any]
    ) -> None:
        """POL-07."""
        await set_level(api, "lead")
        asked = await call(agent, run, "read_db", arguments=arguments)
        assert (asked["status"], asked["risk"]) == ("pending", "RED")
        assert asked["reasons"] == ["it touches a path that holds secrets"]
        assert (await call(agent, run, "read_db", arguments={"path": "docs/secret.md"}))["status"] == "allowed"

    async def test_production_asks(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str, repo: Repo
    ) -> None:
        """POL-08. Whoever works in production cannot say that it is something else."""
        await set_level(api, "lead")
        assert (await call(agent, run, "shell", env="dev"))["status"] == "allowed"
        for spelt in ("prod", "production", "Prod"):
            assert (await call(agent, run, "shell", env=spelt))["status"] == "pending"
        place = {"url": str(repo.path), "name": "live", "env": "prod"}
        assert (await api.post("/api/v1/repositories", json=place)).status_code == 201
        mission = await filed(api, repo, workspace_repo_path=None, repository="live", assigned_to="agent")
        there = (await agent.post(RUNS, json={"mission_id": mission["mission_id"]})).json()["data"]["run_id"]
        for said in ({}, {"env": "dev"}):
            assert (await call(agent, f"{RUNS}/{there}", "shell", **said))["status"] == "pending"

    async def test_more_than_its_caps_leave_asks_an_admin(
        self, agent: httpx2.AsyncClient, client: Caller, team: Team, api: httpx2.AsyncClient, run: str
    ) -> None:
        """POL-06. The run's cap is 0.25 USD, of which 0.05 are spent and 0.10 promised."""
        await set_level(api, "lead")
        await agent.post(f"{run}/costs", json={"usd": "0.05"})
        await agent.post(f"{run}/reservations", json={"usd": "0.10"})
        assert (await call(agent, run, "shell", usd="0.10"))["status"] == "allowed"
        asked = await call(agent, run, "shell", usd="0.11")
        assert (asked["status"], asked["reasons"]) == ("pending", ["it would cost more than its caps leave"])
        assert refusal(await answer(client(team.operator), asked, YES)) == (403, "not_permitted")
        assert (await answer(api, asked, YES)).status_code == 200
        assert (await now(agent, run, asked))["status"] == "allowed"

    async def test_denied_is_recorded_and_says_why(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str, db: Database, team: Team
    ) -> None:
        await in_force(api, "rules:\n  - {rule: freeze, because: nothing moves, when: {action: shell}, deny: true}\n")
        denied = await call(agent, run, "shell")
        assert (denied["status"], denied["decision_id"]) == ("denied", None)
        assert denied["reason"].startswith("denied: shell is in no class")
        assert denied["reason"].endswith("nothing moves")
        assert await now(agent, run, denied) == denied
        assert refusal(await end(agent, run, denied)) == (409, "tool_call_denied")
        assert len(await told(db, team.workspace_id, "tool_call.denied")) == 1

    async def test_it_is_stored_as_others_are_and_holds_no_contents(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str, db: Database, team: Team
    ) -> None:
        words = {"command": "mysql -p hunter2 < .env"}
        made = await call(agent, run, "shell", arguments=words)
        [kept] = (await api.get("/api/v1/policy/verdicts")).json()["data"]["items"]
        assert kept["verdict_id"] == f"{run.rpartition('/')[2]}.{made['number']}"
        assert (kept["action"], kept["risk"], kept["policy_version"]) == ("shell", "RED", 1)
        assert kept["input"]["principal"] == {"name": "agent", "kind": "agent", "role": None, "level": "intern"}
        assert kept["input"]["context"]["paths"] == [".env"]
        tables = ("verdict", "tool_call", "event", "audit")
        async with db.workspace(team.workspace_id) as session:
            for table in tables:
                rows = (await session.execute(text(f"SELECT {table}::text FROM {table}"))).scalars().all()  # noqa: S608
                assert rows, table
                assert "hunter2" not in "".join(rows), table

    async def test_the_policy_that_was_just_put_in_force_judges(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str
    ) -> None:
        assert (await call(agent, run, "read_db", arguments={"path": "x.gpg"}))["status"] == "allowed"
        rule = "rules: [{rule: s, because: secret, when: {secret: true}, deny: true}]\n"
        await in_force(api, f'secret_paths: ["*.gpg"]\n{rule}')
        assert (await call(agent, run, "read_db", arguments={"path": "x.gpg"}))["status"] == "denied"


class TestAsking:
    async def test_one_is_told_all_that_it_binds(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str, db: Database, team: Team
    ) -> None:
        await agent.post(f"{run}/costs", json={"usd": "0.02", "tokens_in": 5})
        asked = await call(agent, run, "shell", arguments={"command": "make deploy"})
        shown = (await api.get("/api/v1/decisions?kind=tool_action&status=pending")).json()["data"]["items"]
        assert [decision["decision_id"] for decision in shown] == [asked["decision_id"]]
        [decision] = shown
        assert decision["question"]["arguments"] == {"command": "make deploy"}
        assert decision["question"]["env"] == "dev"
        assert decision["binding"]["digest"] == asked["digest"]
        assert (decision["requested_by"], decision["risk"]) == ("agent", "YELLOW")
        assert decision["reasons"] == ["an intern asks before whatever may do harm"]
        assert decision["cost_so_far"] == {"usd": "0.02", "tokens": 5}
        assert decision["terms"]["requesters"] == ["agent"]
        assert (await agent.get(decision["links"]["tool_call"])).json()["data"] == asked
        assert (await agent.get(f"/api/v1/decisions/{asked['decision_id']}")).status_code == 200
        [event] = await told(db, team.workspace_id, "decision.requested")
        assert event["actor"] == "policy", "the policy asks; the agent only wanted to call"

    async def test_approved_it_may_be_made_and_told_of_once(
        self, agent: httpx2.AsyncClient, client: Caller, team: Team, run: str
    ) -> None:
        asked = await call(agent, run, "shell")
        assert refusal(await end(agent, run, asked)) == (409, "tool_call_pending")
        assert (await answer(client(team.operator), asked, YES)).status_code == 200
        allowed = await now(agent, run, asked)
        assert (allowed["status"], allowed["reason"], allowed["ended_at"]) == ("allowed", None, None)
        ended = (await end(agent, run, asked, error="exit 2", duration_ms=5)).json()["data"]
        assert (ended["status"], ended["error"], ended["duration_ms"]) == ("failed", "exit 2", 5)
        assert await now(agent, run, asked) == ended
        assert refusal(await end(agent, run, asked)) == (409, "tool_call_ended")

    async def test_denied_it_says_by_whom_and_why(
        self, agent: httpx2.AsyncClient, client: Caller, team: Team, run: str
    ) -> None:
        """V-32."""
        asked = await call(agent, run, "shell")
        await answer(client(team.operator), asked, NO)
        denied = await now(agent, run, asked)
        assert (denied["status"], denied["reason"]) == ("denied", "denied: operator: looked at it")
        assert refusal(await end(agent, run, asked)) == (409, "tool_call_denied")

    async def test_the_agent_does_not_answer_itself(self, agent: httpx2.AsyncClient, run: str) -> None:
        asked = await call(agent, run, "shell")
        assert refusal(await answer(agent, asked, YES)) == (403, "not_permitted")
        assert (await now(agent, run, asked))["status"] == "pending"

    async def test_after_a_day_it_is_denied_whoever_has_looked(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str, db: Database, database_url: str
    ) -> None:
        asked = await call(agent, run, "shell")
        async with clock_moved(database_url, "23 hours 59 minutes"):
            assert (await now(agent, run, asked))["status"] == "pending"
        async with clock_moved(database_url, "24 hours 1 minute"):
            late = await now(agent, run, asked)
            assert (late["status"], late["reason"]) == ("denied", "denied: nobody answered in time")
            assert refusal(await answer(api, asked, YES)) == (409, "decision_expired")
            async with db.system() as session:
                await governance.expire_overdue(session, Actor("reconciler", "pass"), 100)
        assert (await now(agent, run, asked))["reason"] == "denied: nobody answered in time"

    async def test_so_many_wait_and_no_more(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str, db: Database, team: Team
    ) -> None:
        asked = await call(agent, run, "shell")
        copies = text(
            "INSERT INTO decision"
            " (workspace_id, decision_id, kind, round, candidate, status, risk, requested_by, binding)"
            " SELECT workspace_id, decision_id || n, kind, round, candidate, status, risk, requested_by, binding"
            " FROM decision, generate_series(2, :most) n WHERE decision_id = :one"
        )
        async with db.workspace(team.workspace_id) as session:
            await session.execute(copies, {"most": MAX_ASKED, "one": asked["decision_id"]})
        wanted = {"tool": "shell"}
        assert refusal(await agent.post(f"{run}/tool-calls", json=wanted)) == (409, "too_many_asked")
        assert (await call(agent, run, "read_db"))["number"] == asked["number"] + 1, "nothing is kept of it"
        other = f"{RUNS}/{(await agent.post(RUNS, json={})).json()['data']['run_id']}"
        assert (await call(agent, other, "shell"))["status"] == "pending"
        assert (await answer(api, asked, NO)).status_code == 200
        assert (await call(agent, run, "shell"))["status"] == "pending"

    async def test_the_end_of_the_run_takes_the_question_back(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str
    ) -> None:
        asked = await call(agent, run, "shell")
        await agent.post(f"{run}/end", json={"status": "success"})
        decision = (await api.get(f"/api/v1/decisions/{asked['decision_id']}")).json()["data"]
        assert (decision["status"], decision["resolved_by"]) == ("canceled", "policy")
        assert (await now(agent, run, asked))["reason"] == "denied: its run ended before anybody answered"
        assert refusal(await end(agent, run, asked)) == (409, "run_ended")

    async def test_a_call_that_was_made_without_asking_is_no_success_before_it_is_approved(
        self, agent: httpx2.AsyncClient, client: Caller, team: Team, run: str
    ) -> None:
        made = await call(agent, run, "shell", duration_ms=3)
        assert made["status"] == "pending"
        await answer(client(team.operator), made, YES)
        assert (await now(agent, run, made))["status"] == "success"


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
