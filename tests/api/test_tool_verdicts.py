"""Tool calls over HTTP: judged by the policy, and asked about."""

from datetime import datetime
from typing import Any

import httpx2
import pytest
import yaml
from sqlalchemy import text

from models.domain.tool_calls import MAX_ASKED
from models.store import governance
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.api import Caller, Team
from tests.fixtures.budgets import clock_moved, told
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo
from tests.fixtures.policies import whole
from tests.fixtures.tool_calls import NO, RUNS, YES, agent, answer, call, end, now, run

__all__ = ["agent", "repo", "run"]


async def set_level(api: httpx2.AsyncClient, level: str) -> None:
    assert (await api.patch("/api/v1/agents/agent", json={"level": level})).status_code == 200


async def in_force(api: httpx2.AsyncClient, source: str) -> None:
    """Put a policy in force."""
    version = (await api.post("/api/v1/policy/versions", json={"source": whole(source)})).json()["data"]["version"]
    assert (await api.post(f"/api/v1/policy/versions/{version}/activate", json={})).status_code == 200


NO_SHELL_FOR_INTERNS = """rules:
  - {rule: interns, because: not yet, when: {action: shell, kind: agent, level: intern}, deny: true}
  - {rule: others, because: it may do much, when: {action: shell}, ask: {role: operator}}
"""
NO_SHELL = """rules:
  - {rule: freeze, because: not today, when: {action: shell}, deny: true}
"""


class TestAfterTheApproval:
    """What somebody approved stands under the law by which it was asked, and no other."""

    async def approved(self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str) -> dict[str, Any]:
        asked = await call(agent, run, "shell")
        assert (await answer(api, asked, YES)).status_code == 200
        assert (await now(agent, run, asked))["status"] == "allowed"
        return asked

    async def test_another_law_holds_until_it_is_switched_back(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str
    ) -> None:
        asked = await self.approved(agent, api, run)
        first = (await api.get("/api/v1/policy")).json()["data"]
        await in_force(api, first["source"] + "# the same\n")
        assert (await now(agent, run, asked))["status"] == "allowed"
        await in_force(api, NO_SHELL)
        frozen = await now(agent, run, asked)
        assert (frozen["status"], "ask for it anew" in frozen["reason"]) == ("denied", True)
        calls = (await agent.get(f"{run}/tool-calls")).json()["data"]["items"]
        assert [one["status"] for one in calls] == ["denied"]
        back = f"/api/v1/policy/versions/{first['version']}/activate"
        assert (await api.post(back, json={})).status_code == 200
        assert (await now(agent, run, asked))["status"] == "allowed"

    async def test_what_is_a_secret_by_another_law_is_asked_about_anew(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str
    ) -> None:
        asked = await call(agent, run, "shell", arguments={"cmd": "cat /srv/payroll.xlsx"})
        assert (await answer(api, asked, YES)).status_code == 200
        source = (await api.get("/api/v1/policy")).json()["data"]["source"]
        await in_force(api, source.replace("secret_paths:\n", 'secret_paths:\n  - "*payroll*"\n', 1))
        assert (await now(agent, run, asked))["status"] == "denied"

    async def test_a_demoted_agent_asks_anew(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str, db: Database
    ) -> None:
        assert (await api.patch("/api/v1/agents/agent", json={"level": "specialist"})).status_code == 200
        await in_force(api, NO_SHELL_FOR_INTERNS)
        asked, later = await self.approved(agent, api, run), await call(agent, run, "shell")
        assert (await api.patch("/api/v1/agents/agent", json={"level": "intern"})).status_code == 200
        assert (await answer(api, later, YES)).status_code == 200
        for made in (asked, later):
            found = await now(agent, run, made)
            assert (found["status"], "ask for it anew" in found["reason"]) == ("denied", True)
        assert (await api.patch("/api/v1/agents/agent", json={"level": "specialist"})).status_code == 200
        assert (await now(agent, run, asked))["status"] == "allowed"

    async def test_the_same_secrets_in_another_order_are_the_same(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str
    ) -> None:
        await self.secrets(api, "*.gone", "*.done")
        asked = await self.approved(agent, api, run)
        await self.secrets(api, "*.done", "*.gone")
        assert (await now(agent, run, asked))["status"] == "allowed"

    async def secrets(self, api: httpx2.AsyncClient, *patterns: str) -> None:
        source = (await api.get("/api/v1/policy")).json()["data"]["source"]
        law = yaml.safe_load(source) | {"secret_paths": [*patterns]}
        await in_force(api, yaml.safe_dump(law))

    async def test_a_tool_that_is_taken_away_is_not_called(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, run: str
    ) -> None:
        asked = await self.approved(agent, api, run)
        assert (await api.patch("/api/v1/agents/agent", json={"tools": ["read_db"]})).status_code == 200
        barred = await now(agent, run, asked)
        assert (barred["status"], "not on the list" in barred["reason"]) == ("denied", True)
        assert (await end(agent, run, asked)).status_code == 200, "it may have been made before"


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

    async def test_its_times_are_of_the_databases_clock(
        self, agent: httpx2.AsyncClient, database_url: str, run: str
    ) -> None:
        before = await call(agent, run, "read_db", duration_ms=5)
        async with clock_moved(database_url, "3 days"):
            made, told_later = await call(agent, run, "read_db", duration_ms=5), await call(agent, run, "read_db")
            ended = (await end(agent, run, told_later)).json()["data"]
        times = [datetime.fromisoformat(each[name]) for each in (made, ended) for name in ("at", "ended_at")]
        assert {(time - datetime.fromisoformat(before["ended_at"])).days for time in times} == {3}

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
            refused = await answer(api, asked, YES)
            assert refusal(refused) == (409, "decision_expired")
            assert "the agent asks again" in refused.json()["error"]["message"]
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
