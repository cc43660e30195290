"""What an agent does next: one mission for one caller, the most severe and oldest first."""

import asyncio
import re
from typing import Any

import httpx2
import psycopg
import pytest
from sqlalchemy import text

from models.domain.principals import Kind
from models.settings import Settings
from models.store import claims
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.access import make_key
from tests.fixtures.api import Caller, Team, add_agents
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo

__all__ = ["repo"]


@pytest.fixture(autouse=True)
async def _agents(db: Database, team: Team) -> None:
    """Agents that live and may work."""
    async with db.system() as session:
        names = (f"a{number}" for number in range(8))
        await add_agents(session, team.workspace_id, *names, capabilities=["coding", "healing"])


async def claim(api: httpx2.AsyncClient, agent: str = "a1", role: str = "coding", **more: Any) -> Any:
    answer = await api.get("/api/v1/queue/next", params={"agent_id": agent, "agent_role": role} | more)
    assert answer.status_code == 200, answer.text
    mission = answer.json()["data"]
    return mission and mission["mission_id"]


class TestOrder:
    async def test_severity_then_age_then_nothing(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        made = [await filed(api, repo, severity=s) for s in ("low", "medium", "high", "critical", "high")]
        ids = [mission["mission_id"] for mission in made]
        claimed = [await claim(api) for _ in range(6)]
        assert claimed == [ids[3], ids[2], ids[4], ids[1], ids[0], None]
        shown = (await api.get(made[0]["links"]["self"])).json()["data"]
        assert shown["assigned_to"] == "a1"

    async def test_peeking_takes_nothing(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        mission = await filed(api, repo)
        assert await claim(api, peek=True) == await claim(api, peek=True) == mission["mission_id"]
        assert (await api.get(mission["links"]["self"])).json()["data"]["assigned_to"] is None
        assert await claim(api) == mission["mission_id"]

    async def test_nothing_for_whom_a_level_gives_nothing_until_it_gives_something(
        self, api: httpx2.AsyncClient, repo: Repo
    ) -> None:
        mission = await filed(api, repo)
        own = {"scope": "agent_day", "owner": "agent", "name": "a1", "cap_usd": "7", "cap_tokens": 1000}
        level = {"scope": "agent_day", "owner": "level", "name": "intern", "cap_tokens": None}
        for cap in (level | {"cap_usd": "0"}, own):
            assert (await api.put("/api/v1/budgets", json=cap)).status_code == 200
        assert await claim(api, peek=True) == mission["mission_id"]
        back = await api.patch("/api/v1/agents/a1", json={"daily_cap_usd": None})
        assert back.json()["data"]["daily_cap_usd"] == "0"
        nothing = await api.get("/api/v1/queue/next?agent_id=a1&agent_role=coding")
        assert refusal(nothing) == (409, "budget_exceeded")
        await api.put("/api/v1/budgets", json=level | {"cap_usd": "5"})
        assert await claim(api, peek=True) == mission["mission_id"]

    async def test_many_at_once_never_get_the_same(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        made = {(await filed(api, repo))["mission_id"] for _ in range(12)}
        found: list[str] = []
        while len(found) < 12:  # an empty answer while work exists is allowed: one asks again
            claims = await asyncio.gather(*(claim(api, agent=f"a{n}") for n in range(8)))
            found += [mission for mission in claims if mission]
        assert sorted(found) == sorted(made)
        assert await claim(api) is None


class TestOneStatement:
    """What a claim looks at and changes is one statement: two would let others in between."""

    async def test_of_all_that_postgres_was_asked(
        self, api: httpx2.AsyncClient, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mission = await filed(api, repo)
        asked, execute = [], psycopg.AsyncCursor.execute

        async def noting(cursor: Any, query: Any, *given: Any, **named: Any) -> Any:
            asked.append(str(query))
            return await execute(cursor, query, *given, **named)

        monkeypatch.setattr(psycopg.AsyncCursor, "execute", noting)
        assert await claim(api) == mission["mission_id"]
        known = [one for one in asked if "api_key" not in one]  # whose key it is, asked once a second
        [only] = [one for one in known if re.search(r"\b(mission|agent|budget|UPDATE|INSERT)\b", one)]
        for part in ("UPDATE mission", "FOR UPDATE OF m SKIP LOCKED", "INSERT INTO event", "FROM agent", "JOIN budget"):
            assert part in only
        assert len([one for one in known if "app.workspace" in one]) == 1, "one transaction"


class TestGivenBack:
    async def test_what_an_agent_did_not_begin_goes_to_others_when_it_ends(
        self, api: httpx2.AsyncClient, repo: Repo, db: Database, team: Team
    ) -> None:
        async with db.system() as session:
            await make_key(session, team.workspace_id, "a1", kind=Kind.AGENT)
        claimed, for_it = await filed(api, repo), await filed(api, repo, assigned_to="a1")
        assert {await claim(api), await claim(api)} == {claimed["mission_id"], for_it["mission_id"]}
        assert await claim(api, "a2") is None
        assert (await api.delete("/api/v1/agents/a1")).status_code == 200
        assert {await claim(api, "a2"), await claim(api, "a2")} == {claimed["mission_id"], for_it["mission_id"]}

    async def test_a_role_that_it_was_filed_for_stays(
        self, api: httpx2.AsyncClient, repo: Repo, db: Database, team: Team
    ) -> None:
        async with db.system() as session:
            await add_agents(session, team.workspace_id, "healer", capabilities=["healing"])
            await make_key(session, team.workspace_id, "a1", kind=Kind.AGENT)
        mission = await filed(api, repo, assigned_to="elite_coding_agent")
        assert await claim(api) == mission["mission_id"]
        assert (await api.delete("/api/v1/agents/a1")).status_code == 200
        assert await claim(api, "healer", "healing") is None
        assert await claim(api, "a2") == mission["mission_id"]
        place = f"/api/v1/missions/{mission['mission_id']}"
        assert (await api.post(f"{place}/cancel", json={})).status_code == 200
        again = (await api.post(f"{place}/retry", json={})).json()["data"]
        assert again["assigned_to"] == "elite_coding_agent"

    async def test_whom_it_was_filed_for_has_ended_too(
        self, api: httpx2.AsyncClient, repo: Repo, db: Database, team: Team
    ) -> None:
        async with db.system() as session:
            for name in ("a1", "a2"):
                await make_key(session, team.workspace_id, name, kind=Kind.AGENT)
        mission = (await filed(api, repo, assigned_to="a1"))["mission_id"]
        assert await claim(api, "a1") == mission
        assert (await api.delete("/api/v1/agents/a1")).status_code == 200
        assert await claim(api, "a2") == mission
        assert (await api.delete("/api/v1/agents/a2")).status_code == 200
        assert await claim(api, "a3") == mission

    async def test_what_it_never_claimed_waits_for_a_stopped_one_only(
        self, api: httpx2.AsyncClient, repo: Repo, db: Database, team: Team
    ) -> None:
        async with db.system() as session:
            await make_key(session, team.workspace_id, "a1", kind=Kind.AGENT)
        mission = (await filed(api, repo, assigned_to="a1"))["mission_id"]
        assert (await api.post("/api/v1/agents/a1/stop", json={})).status_code == 200
        assert await claim(api, "a2") is None
        assert (await api.delete("/api/v1/agents/a1")).status_code == 200
        assert await claim(api, "a2") == mission

    @pytest.mark.parametrize("how", ["quarantined", "lost", "paused"])
    async def test_one_that_is_set_apart_or_lost_lets_others_have_what_it_did_not_start(
        self, api: httpx2.AsyncClient, repo: Repo, db: Database, team: Team, how: str
    ) -> None:
        async with db.system() as session:
            await make_key(session, team.workspace_id, "a1", kind=Kind.AGENT)
        mission = (await filed(api, repo))["mission_id"]
        assert await claim(api, "a1") == mission
        if how != "lost":
            verb = {"quarantined": "quarantine", "paused": "pause"}[how]
            assert (await api.post(f"/api/v1/agents/a1/{verb}", json={})).status_code == 200
        else:
            async with db.system() as session:
                silent = "UPDATE agent SET silence = 'lost' WHERE workspace_id = :w AND name = 'a1'"
                await session.execute(text(silent), {"w": team.workspace_id})
                await claims.give_back(session, Actor("reconciler", "pass"))
        assert await claim(api, "a2") == (mission if how != "paused" else None)

    async def test_each_gives_back_its_own(self, api: httpx2.AsyncClient, repo: Repo, db: Database, team: Team) -> None:
        async with db.system() as session:
            for name in ("a1", "a2"):
                await make_key(session, team.workspace_id, name, kind=Kind.AGENT)
        held = [(await filed(api, repo))["mission_id"] for _ in range(2)]
        assert [await claim(api, "a1"), await claim(api, "a2")] == held
        async with db.system() as session:
            late = "UPDATE agent SET status = 'stopped' WHERE workspace_id = :w AND name = 'a1'"
            await session.execute(text(late), {"w": team.workspace_id})
        assert (await api.post("/api/v1/agents/a2/stop", json={})).status_code == 200
        holders = [(await api.get(f"/api/v1/missions/{name}")).json()["data"]["assigned_to"] for name in held]
        assert holders == ["a1", None], "a1 ended in another request, whose claims the reconciler looks after"

    async def test_a_retry_is_for_whom_the_mission_was_filed_for(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        mission = await filed(api, repo)
        assert await claim(api) == mission["mission_id"]
        place = f"/api/v1/missions/{mission['mission_id']}"
        assert (await api.post(f"{place}/cancel", json={})).status_code == 200
        again = (await api.post(f"{place}/retry", json={})).json()["data"]
        assert (again["assigned_to"], await claim(api, "a2")) == (None, again["mission_id"])


class TestEligible:
    async def test_an_agent_is_named_by_its_id_too(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        mission = await filed(api, repo)
        agent_id = (await api.get("/api/v1/agents/a1")).json()["data"]["agent_id"]
        assert await claim(api, agent=agent_id) == mission["mission_id"]
        assert (await api.get(mission["links"]["self"])).json()["data"]["assigned_to"] == "a1"

    async def test_roles(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        trust = {"allowed_roles": ["elite_coding_agent"]}
        mission = await filed(api, repo, trust_requirements=trust)
        assert await claim(api, role="healing") is None
        assert await claim(api, role="coding") == mission["mission_id"]

    async def test_what_was_filed_for_somebody(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        by_role = await filed(api, repo, assigned_to="elite_coding_agent")
        by_name = await filed(api, repo, assigned_to="a2")
        assert await claim(api, agent="a1", role="healing") is None
        assert await claim(api, agent="a1", role="coding") == by_role["mission_id"]
        assert await claim(api, agent="a1", role="coding") is None
        assert await claim(api, agent="a2", role="healing") == by_name["mission_id"]
        assert await claim(api, agent="a2", role="healing") is None, "given out once"

    async def test_dependencies_first(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        first = await filed(api, repo, severity="low")
        await filed(api, repo, severity="critical", dependencies=[first["mission_id"]])
        assert await claim(api) == first["mission_id"]
        assert await claim(api) is None

    async def test_ended_missions_wait_for_nobody(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        mission = await filed(api, repo)
        await api.post(f"{mission['links']['self']}/cancel", json={})
        assert await claim(api) is None


class TestMany:
    """One agent holds no more than it may, so that there is something for the others."""

    async def test_who_holds_as_many_as_it_may_is_told_so_until_it_begins_one(
        self, api: httpx2.AsyncClient, repo: Repo, db: Database, team: Team, settings: Settings
    ) -> None:
        most = settings.claims_per_agent
        made = [(await filed(api, repo))["mission_id"] for _ in range(most + 1)]
        for_it = (await filed(api, repo, assigned_to="a1"))["mission_id"]
        assert [await claim(api) for _ in range(most)] == made[:most]
        for peek in ("true", "false"):
            asked = await api.get(f"/api/v1/queue/next?agent_id=a1&agent_role=coding&peek={peek}")
            assert refusal(asked) == (409, "too_many_claims")
        assert await claim(api, "a2") == made[most]
        async with db.system() as session:
            begun = "UPDATE mission SET run_id = 'r' WHERE workspace_id = :w AND mission_id = :m"
            await session.execute(text(begun), {"w": team.workspace_id, "m": made[0]})
        assert await claim(api) == for_it


class TestWho:
    async def test_an_agent_asks_for_itself(self, client: Caller, team: Team, repo: Repo) -> None:
        mission = await filed(client(team.operator), repo)
        agent = client(team.agent)
        asked = await agent.get("/api/v1/queue/next?agent_id=other&agent_role=coding")
        assert refusal(asked) == (403, "not_your_queue")
        assert await claim(agent, agent="agent") == mission["mission_id"]

    @pytest.mark.parametrize("query", ["", "?agent_id=a", "?agent_role=coding", "?agent_id=&agent_role=coding"])
    async def test_names_are_needed(self, api: httpx2.AsyncClient, query: str) -> None:
        assert (await api.get(f"/api/v1/queue/next{query}")).status_code == 422
