"""What agents did: one row for each act, found by agent, workspace, time and status, and there for good."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from sqlalchemy import text

from models.domain.principals import Kind, Role
from models.store.connections import plain
from models.store.database import Database
from tests.fixtures.access import make_key
from tests.fixtures.api import Caller, Team, add_agents
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import DIFF, filed, refusal, repo

__all__ = ["repo"]

ACTIVITY, RUNS = "/api/v1/activity", "/api/v1/runs"
THOUGHT = {"input": "test_vat fails", "reasoning": "the tax is cut off, not rounded", "output": "round half up"}
FIVE = ("timestamp", "agent_id", "workspace_id", "action", "metadata")


@pytest.fixture
def agent(client: Caller, team: Team) -> httpx2.AsyncClient:
    """The team's agent, who is called `agent`."""
    return client(team.agent)


async def found(api: httpx2.AsyncClient, **filters: Any) -> list[dict[str, Any]]:
    answer = await api.get(ACTIVITY, params=filters)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["data"]["items"]
    return items


async def done(api: httpx2.AsyncClient, path: str, body: Any, method: str = "POST") -> dict[str, Any]:
    """Do something, and find the rows that it left."""
    answer = await api.request(method, f"/api/v1{path}", json=body)
    assert answer.is_success, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data | {"rows": [row for row in await found(api) if row["correlation_id"] == answer.headers["x-request-id"]]}


class TestRecording:
    async def test_each_act_of_an_agent_is_one_row_with_five_fields(
        self, api: httpx2.AsyncClient, agent: httpx2.AsyncClient, client: Caller, team: Team, repo: Repo, db: Database
    ) -> None:
        """ACTIVITY-01."""
        mission = await filed(api, repo, patch_candidates=[{"diff": DIFF}])
        new = {"subsystem_id": "s", "severity": "low", "repository": mission["repository_id"]}
        acts = [
            await done(agent, "/queue/next?agent_id=agent&agent_role=coding", None, "GET"),
            await done(agent, f"/missions/{mission['mission_id']}/candidates", {"ref": "topic"}),
            await done(agent, "/missions", new),
            await done(agent, "/agents/agent", {"endpoint": "https://agent.example.org"}, "PATCH"),
            await done(agent, "/activity", THOUGHT),
            run := await done(agent, "/runs", {}),
            await done(agent, f"/runs/{run['run_id']}/tool-calls", {"tool": "read_db"}),
            await done(agent, f"/runs/{run['run_id']}/tool-calls/1/end", {}),
            await done(agent, f"/runs/{run['run_id']}/tool-calls", {"tool": "shell"}),
            await done(agent, f"/runs/{run['run_id']}/end", {"status": "success"}),
        ]
        rows = [row for act in acts for row in act["rows"]]
        assert [len(act["rows"]) for act in acts] == [1] * len(acts)
        assert [row["action"] for row in rows] == [
            "mission.assigned",
            "mission.candidate_added",
            "mission.created",
            "agent.changed",
            "agent.decided",
            "run.started",
            "tool_call.allowed",
            "tool_call.success",
            "tool_call.pending",
            "run.ended",
        ]
        for row in rows:
            assert all(row[name] for name in FIVE), row
            assert (row["agent_id"], row["workspace_id"]) == ("agent", team.workspace_id)

    async def test_a_refused_act_leaves_none(self, agent: httpx2.AsyncClient) -> None:
        assert refusal(await agent.patch("/api/v1/agents/agent", json={"level": "lead"})) == (403, "admins_only")
        assert await found(agent) == []

    async def test_an_act_that_cannot_be_recorded_is_not_done(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, database_url: str
    ) -> None:
        """C-38: the row is written with the act, or the call fails."""
        with psycopg.connect(plain(database_url), autocommit=True) as owner:
            owner.execute("ALTER TABLE audit ADD CONSTRAINT shut CHECK (action <> 'agent.changed') NOT VALID")
            answer = await agent.patch("/api/v1/agents/agent", json={"endpoint": "https://agent.example.org"})
            owner.execute("ALTER TABLE audit DROP CONSTRAINT shut")
        assert answer.status_code == 500
        assert (await api.get("/api/v1/agents/agent")).json()["data"]["endpoint"] is None

    async def test_what_people_do_is_no_agents_activity(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        await filed(api, repo)
        await api.post("/api/v1/agents/agent/pause", json={})
        assert await found(api) == []

    async def test_an_agents_run_that_a_service_reports_is_the_agents(
        self, client: Caller, team: Team, api: httpx2.AsyncClient
    ) -> None:
        run = (await client(team.service).post(RUNS, json={"agent_id": "agent"})).json()["data"]["run_id"]
        await api.post(f"{RUNS}/{run}/end", json={"status": "failed", "reason": "no answer"})
        rows = await found(api, agent_id="agent")
        assert [(row["action"], row["status"]) for row in rows] == [("run.ended", "failed"), ("run.started", "success")]
        assert rows[0]["metadata"]["reason"] == "no answer"


class TestDecisions:
    async def test_a_posted_one_is_returned_with_its_three_parts(self, agent: httpx2.AsyncClient) -> None:
        """ACTIVITY-04."""
        run = (await agent.post(RUNS, json={})).json()["data"]["run_id"]
        posted = (await agent.post(ACTIVITY, json=THOUGHT | {"run_id": run})).json()["data"]
        [row] = await found(agent, action="agent.decided")
        assert row == posted
        assert row["metadata"] == THOUGHT | {"agent_id": "agent", "name": "agent", "run_id": run}

    async def test_a_service_says_of_whom(self, client: Caller, team: Team) -> None:
        service = client(team.service)
        assert refusal(await service.post(ACTIVITY, json=THOUGHT)) == (422, "agent_required")
        unknown = await service.post(ACTIVITY, json=THOUGHT | {"agent_id": "nobody"})
        assert refusal(unknown) == (404, "agent_not_found")
        row = (await service.post(ACTIVITY, json=THOUGHT | {"agentId": "agent"})).json()["data"]
        assert (row["agent_id"], row["action"]) == ("agent", "agent.decided")

    async def test_an_agent_speaks_for_itself_only(
        self, agent: httpx2.AsyncClient, client: Caller, team: Team, db: Database
    ) -> None:
        async with db.system() as session:
            await add_agents(session, team.workspace_id, "other")
        run = (await client(team.service).post(RUNS, json={"agent_id": "other"})).json()["data"]["run_id"]
        forged = await agent.post(ACTIVITY, json=THOUGHT | {"agent_id": "other"})
        assert refusal(forged) == (403, "own_activity_only")
        assert refusal(await agent.post(ACTIVITY, json=THOUGHT | {"run_id": run})) == (404, "run_not_found")
        own = (await agent.get("/api/v1/agents/agent")).json()["data"]["agent_id"]
        assert (await agent.post(ACTIVITY, json=THOUGHT | {"agent_id": own})).status_code == 201

    @pytest.mark.parametrize("key", ["observer", "member", "operator", "admin"])
    async def test_people_record_none(self, client: Caller, team: Team, key: str) -> None:
        assert refusal(await client(getattr(team, key)).post(ACTIVITY, json=THOUGHT)) == (403, "not_permitted")

    @pytest.mark.parametrize(
        "change", [{"input": ""}, {"reasoning": None}, {"output": "x" * 10_001}, {"output": 1}, {"mood": "good"}]
    )
    async def test_bad_ones_are_told_and_leave_nothing(self, agent: httpx2.AsyncClient, change: dict[str, Any]) -> None:
        answer = await agent.post(ACTIVITY, json=THOUGHT | change)
        assert answer.status_code == 422
        assert next(iter(change)) in answer.text
        assert await found(agent) == []

    async def test_a_repetition_is_one_record(self, agent: httpx2.AsyncClient) -> None:
        for _ in range(3):
            await agent.post(ACTIVITY, json=THOUGHT, headers={"Idempotency-Key": "k"})
        assert len(await found(agent)) == 1


@pytest.fixture
async def two(db: Database, team: Team, client: Caller) -> dict[str, httpx2.AsyncClient]:
    """Two agents, of which each has had a run that failed and one that went well."""
    async with db.system() as session:
        await add_agents(session, team.workspace_id, "other")
        other = await make_key(session, team.workspace_id, "other", kind=Kind.AGENT)
    agents = {"agent": client(team.agent), "other": client(other)}
    for api in agents.values():
        for status in ("failed", "success"):
            run = (await api.post(RUNS, json={})).json()["data"]["run_id"]
            await api.post(f"{RUNS}/{run}/end", json={"status": status})
    return agents


class TestSearch:
    async def test_only_that_agent_and_no_more_than_asked(
        self, two: dict[str, httpx2.AsyncClient], api: httpx2.AsyncClient
    ) -> None:
        """ACTIVITY-05."""
        answer = await api.get(f"{ACTIVITY}?agentId=agent&limit=3")
        items = answer.json()["data"]["items"]
        assert [row["agent_id"] for row in items] == ["agent"] * 3
        rest = await found(api, agent_id="agent", limit=3, cursor=answer.json()["data"]["next_cursor"])
        assert [row["action"] for row in items + rest] == ["run.ended", "run.started"] * 2
        assert refusal(await api.get(f"{ACTIVITY}?limit=201"))[0] == 422

    async def test_each_filter_narrows(
        self, two: dict[str, httpx2.AsyncClient], api: httpx2.AsyncClient, team: Team, other_team: Team
    ) -> None:
        """ACTIVITY-06."""
        everything = await found(api)
        assert len(everything) == 8
        third = everything[2]["timestamp"]
        known = (await api.get("/api/v1/agents/other")).json()["data"]["agent_id"]
        counts = {
            "agent": len(await found(api, agent_id="other")),
            "agent by id": len(await found(api, agent_id=known)),
            "status": len(await found(api, status="failed")),
            "from": len(await found(api, **{"from": third})),
            "to": len(await found(api, to=third)),
            "workspace": len(await found(api, workspace_id=team.workspace_id)),
            "another workspace": len(await found(api, workspaceId=other_team.workspace_id)),
            "all": len(await found(api, agent_id="other", status="failed", **{"from": everything[-1]["timestamp"]})),
        }
        assert counts == {
            "agent": 4,
            "agent by id": 4,
            "status": 2,
            "from": 3,
            "to": 5,
            "workspace": 8,
            "another workspace": 0,
            "all": 1,
        }

    async def test_a_platform_admin_searches_each_workspace(
        self, two: dict[str, httpx2.AsyncClient], client: Caller, team: Team, other_team: Team, db: Database
    ) -> None:
        async with db.system() as session:
            secret = await make_key(session, other_team.workspace_id, "pia", role=Role.PLATFORM_ADMIN)
        pia = client(secret)
        assert await found(pia) == []
        there = await pia.get(ACTIVITY, headers={"X-Workspace": team.workspace_id})
        assert {row["workspace_id"] for row in there.json()["data"]["items"]} == {team.workspace_id}

    @pytest.mark.parametrize(
        "query",
        [
            *("status=done", "from=yesterday", "to=2025-01-01T00:00:00", "sort=metadata", "agnet_id=x"),
            "from=2025-01-02T00:00:00Z&to=2025-01-01T00:00:00Z",
        ],
    )
    async def test_bad_questions_are_told(self, api: httpx2.AsyncClient, query: str) -> None:
        assert refusal(await api.get(f"{ACTIVITY}?{query}"))[0] == 422

    @pytest.mark.parametrize(
        ("condition", "index"),
        [
            ("agent_id = 'agent'", "audit_activity_agent"),
            ("status = 'failed'", "audit_activity_status"),
            ("created_at >= now() - interval '1 day'", "audit_activity"),
        ],
    )
    async def test_filters_are_read_from_an_index(self, db: Database, team: Team, condition: str, index: str) -> None:
        """As the app's role, whose row security lets no index answer a condition that might leak."""
        question = (
            f"EXPLAIN SELECT * FROM audit WHERE workspace_id = 'w' AND agent_id IS NOT NULL AND {condition}"  # noqa: S608
            " ORDER BY created_at DESC, id DESC LIMIT 51"
        )
        async with db.workspace(team.workspace_id) as session:
            await session.execute(text("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"))
            await session.execute(text("SET LOCAL enable_sort = off"))
            plan = "\n".join((await session.execute(text(question))).scalars())
        assert f"using {index} on audit" in plan
        assert "Filter" not in plan.replace("One-Time Filter", "")


@pytest.fixture
async def without_events(database_url: str) -> AsyncIterator[psycopg.Connection]:
    """Drop all partitions of events, as the retention does in time."""
    with psycopg.connect(plain(database_url), autocommit=True) as owner:
        yield owner
        owner.execute("SELECT mc_event_partitions(3)")


async def test_history_survives_the_events_and_temporal(
    two: dict[str, httpx2.AsyncClient],
    api: httpx2.AsyncClient,
    db: Database,
    team: Team,
    without_events: psycopg.Connection,
) -> None:
    """ACTIVITY-07. Nothing listens where these settings say that Temporal is."""
    before = await found(api), (await api.get(f"{RUNS}?agent_id=agent")).json()["data"]["items"]
    without_events.execute("SELECT mc_drop_event_partitions((now() + interval '9 years')::date)")
    async with db.workspace(team.workspace_id) as session:
        assert (await session.execute(text("SELECT count(*) FROM event"))).scalar_one() == 0
        seen = (await session.execute(text("SELECT count(*) FROM activity"))).scalar_one()
    assert (await found(api), (await api.get(f"{RUNS}?agent_id=agent")).json()["data"]["items"]) == before
    assert len(before[0]) == 8 == seen


async def test_nobody_else_reads_them_by_sql(
    two: dict[str, httpx2.AsyncClient], db: Database, team: Team, other_team: Team
) -> None:
    seen = "SELECT count(*) AS number FROM activity"
    [ours], [theirs] = [await db.alone(one.workspace_id, seen, {}) for one in (team, other_team)]
    assert (ours["number"] > 0, theirs["number"]) == (True, 0)


async def test_redacted_words_are_gone_here_too(agent: httpx2.AsyncClient, api: httpx2.AsyncClient) -> None:
    row = (await agent.post(ACTIVITY, json=THOUGHT)).json()["data"]
    await api.post(f"/api/v1/audit/{row['id']}/redact", json={"reason": "a password"})
    assert await found(api) == [row | {"metadata": None}]


async def test_what_a_run_took_and_how_long(agent: httpx2.AsyncClient, api: httpx2.AsyncClient) -> None:
    """ACTIVITY-02, ACTIVITY-03."""
    run = (await agent.post(RUNS, json={})).json()["data"]["run_id"]
    await agent.post(f"{RUNS}/{run}/costs", json={"tokens_in": 3, "tokens_out": 4, "calls": 2, "usd": "0.01"})
    await agent.post(f"{RUNS}/{run}/end", json={"status": "success"})
    shown = (await api.get(f"{RUNS}/{run}")).json()["data"]
    begun, ended = (datetime.fromisoformat(shown[name]) for name in ("started_at", "ended_at"))
    assert shown["duration_seconds"] == pytest.approx((ended - begun) / timedelta(seconds=1))
    assert (shown["tokens"], shown["calls"], shown["usd"]) == (7, 2, "0.01")
    assert abs(datetime.now(UTC) - ended) < timedelta(minutes=1)


async def printed(team: Team, address: str, *words: str) -> str:
    """What the command prints."""
    program = str(Path(sys.executable).with_name("mission-control"))
    where = ("--url", address, "--api-key", team.observer)
    command = await asyncio.create_subprocess_exec(program, "activity", "list", *words, *where, stdout=PIPE)
    out, _ = await command.communicate()
    assert command.returncode == 0
    return out.decode()


async def test_the_command_lists_it(agent: httpx2.AsyncClient, team: Team, address: str) -> None:
    await agent.post(ACTIVITY, json=THOUGHT)
    only = ("--agent", "agent", "--status", "success", "--from", "2025-01-01T00:00:00Z")
    assert "round half up" in await printed(team, address, *only)
    [row] = json.loads(await printed(team, address, *only, "--json"))
    assert row["metadata"]["reasoning"] == THOUGHT["reasoning"]
    assert json.loads(await printed(team, address, "--action", "run.started", "--json")) == []


@pytest.mark.parametrize(
    "words", ["no JSON", "[1]", '{"a": "\\ud800"}', '{"a":' * 300 + "1" + "}" * 300], ids=["no", "list", "half", "deep"]
)
async def test_an_act_that_somebody_made_unreadable_is_shown_as_it_is(
    api: httpx2.AsyncClient, agent: httpx2.AsyncClient, database_url: str, team: Team, words: str
) -> None:
    await done(agent, "/activity", THOUGHT)
    with psycopg.connect(plain(database_url), autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE audit SET content = %s WHERE workspace_id = %s", [words, team.workspace_id])
    for caller in (api, agent):
        assert [row["metadata"] for row in await found(caller)] == [{"unreadable": words}]
