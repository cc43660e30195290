"""The three gates before an agent's work (C-22): its key; its level and budget; its score and roles."""

from decimal import Decimal
from typing import Any

import httpx2
import pytest
from sqlalchemy import text, update
from sqlmodel import col

from models.domain.budgets import Key, Owner, Scope
from models.domain.principals import Kind
from models.store import keys
from models.store.database import Database
from models.store.ledger import spend
from models.tables.agents import AgentRow
from tests.fixtures.access import make_key
from tests.fixtures.api import Caller, Team
from tests.fixtures.budgets import BOT, MONTH, cap, place, usd
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo
from tests.fixtures.policies import put_in_force

__all__ = ["repo"]

API = "/api/v1"
DAY = Key(Scope.AGENT_DAY, Owner.AGENT, "agent")
LEVEL_DAY = Key(Scope.AGENT_DAY, Owner.LEVEL, "intern")
NEEDS = {"required_trust_score": 0.8, "allowed_roles": ["elite_coding_agent"]}
PASSED = (409, "no_candidate")
"""What stops a mission without candidates behind all gates."""
INTERNS = """  - rule: no-interns
    because: interns start nothing here
    when: {action: mission.start, level: intern}
    """


@pytest.fixture(autouse=True)
async def _agent(db: Database, team: Team) -> None:
    await is_now(db, team, trust=Decimal("0.80"), capabilities=["coding"])


@pytest.fixture
def agent(client: Caller, team: Team) -> httpx2.AsyncClient:
    """The API as the agent calls it."""
    return client(team.agent)


async def is_now(db: Database, team: Team, **values: Any) -> None:
    """Change what is known of the agent."""
    async with db.workspace(team.workspace_id) as session:
        await session.execute(update(AgentRow).where(col(AgentRow.name) == "agent").values(**values))


async def ask(agent: httpx2.AsyncClient, role: str = "coding", **more: Any) -> httpx2.Response:
    return await agent.get(f"{API}/queue/next", params={"agent_id": "agent", "agent_role": role} | more)


async def given(agent: httpx2.AsyncClient, role: str = "coding", **more: Any) -> str | None:
    answer = await ask(agent, role, **more)
    assert answer.status_code == 200, answer.text
    mission = answer.json()["data"]
    return mission and str(mission["mission_id"])


async def start(agent: httpx2.AsyncClient, mission: dict[str, Any]) -> tuple[int, str]:
    return refusal(await agent.post(f"{mission['links']['self']}/execute", json={"mission_type": "coding"}))


async def govern(api: httpx2.AsyncClient, does: str) -> None:
    """Put a policy in force that does something about interns who start missions."""
    await put_in_force(api, f"{INTERNS}{does}")


class TestKey:
    async def test_a_key_that_only_reads_may_look_and_not_take(
        self, client: Caller, team: Team, db: Database, api: httpx2.AsyncClient, repo: Repo
    ) -> None:
        mission = await filed(api, repo)
        async with db.system() as session:
            secret = await make_key(session, team.workspace_id, "agent", kind=Kind.AGENT)
            narrowed = text("UPDATE api_key SET scopes = '[\"read\"]' WHERE digest = :digest")
            await session.execute(narrowed, {"digest": keys.digest(secret)})
        assert refusal(await ask(client(secret))) == (403, "out_of_scope")
        assert await given(client(secret), peek=True) == mission["mission_id"]

    async def test_an_agent_starts_only_what_is_its_own(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, repo: Repo
    ) -> None:
        assert await start(agent, await filed(api, repo, assigned_to="operator")) == (403, "not_assigned")


class TestBudget:
    @pytest.mark.parametrize("limit", [DAY, LEVEL_DAY, MONTH])
    async def test_a_cap_of_nothing_leaves_nothing(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, team: Team, db: Database, repo: Repo, limit: Key
    ) -> None:
        waiting, own = await filed(api, repo), await filed(api, repo, assigned_to="agent", severity="low")
        await cap(db, team.workspace_id, limit, "0")
        refused = await ask(agent)
        assert refusal(refused) == (409, "budget_exceeded")
        assert refused.json()["error"]["details"]["limit"] == limit.scope
        assert await start(agent, own) == (409, "budget_exceeded")
        await cap(db, team.workspace_id, limit, "1")
        assert await given(agent) == waiting["mission_id"]
        assert await start(agent, own) == PASSED

    async def test_a_day_that_is_spent_leaves_nothing_to_its_agent_alone(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, team: Team, db: Database, repo: Repo
    ) -> None:
        mission = await filed(api, repo)
        await cap(db, team.workspace_id, DAY, "0.10")
        await spend(db, await place(db, team.workspace_id, agent_id="other"), usd("0.10"), BOT)
        assert await given(agent, peek=True) == mission["mission_id"]
        await spend(db, await place(db, team.workspace_id, agent_id="agent"), usd("0.10"), BOT)
        assert refusal(await ask(agent)) == (409, "budget_exceeded")


class TestLevel:
    @pytest.mark.parametrize(("does", "code"), [("deny: true", "policy_denies"), ("ask: {}", "policy_asks")])
    async def test_the_policy_may_hold_a_level_back(
        self,
        agent: httpx2.AsyncClient,
        api: httpx2.AsyncClient,
        team: Team,
        db: Database,
        repo: Repo,
        does: str,
        code: str,
    ) -> None:
        mission = await filed(api, repo, assigned_to="agent")
        await govern(api, does)
        answer = await agent.post(f"{mission['links']['self']}/execute", json={"mission_type": "coding"})
        assert refusal(answer) == (403, code)
        assert "interns start nothing here" in answer.json()["error"]["message"]
        [kept] = await db.alone(team.workspace_id, "SELECT action, input, policy_version FROM verdict", {})
        assert (kept["action"], kept["policy_version"], kept["input"]["principal"]["level"]) == (
            "mission.start",
            2,
            "intern",
        )
        assert await start(api, mission) == PASSED, "an operator starts it"
        await is_now(db, team, level="specialist")
        assert await start(agent, mission) == PASSED

    async def test_the_first_policy_lets_interns_start(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, repo: Repo
    ) -> None:
        assert await start(agent, await filed(api, repo, assigned_to="agent")) == PASSED


class TestTrust:
    @pytest.mark.parametrize(("score", "is_enough"), [("0.79", False), ("0.80", True)])
    async def test_a_score_must_reach_what_the_mission_takes(
        self,
        agent: httpx2.AsyncClient,
        api: httpx2.AsyncClient,
        team: Team,
        db: Database,
        repo: Repo,
        score: str,
        is_enough: bool,
    ) -> None:
        waiting = await filed(api, repo, trust_requirements=NEEDS)
        own = await filed(api, repo, severity="low", assigned_to="agent", trust_requirements=NEEDS)
        await is_now(db, team, trust=Decimal(score))
        if is_enough:
            assert await given(agent) == waiting["mission_id"]
            assert await start(agent, own) == PASSED
        else:
            assert refusal(await ask(agent)) == (403, "trust_too_low")
            assert await start(agent, own) == (403, "trust_too_low")

    async def test_what_takes_too_much_does_not_hide_the_rest(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, repo: Repo
    ) -> None:
        await filed(api, repo, severity="critical", trust_requirements={"required_trust_score": 0.81})
        mission = await filed(api, repo, severity="low")
        assert await given(agent) == mission["mission_id"]


class TestRoles:
    async def test_a_role_is_had_by_registration_and_not_by_asking(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, team: Team, db: Database, repo: Repo
    ) -> None:
        waiting = await filed(api, repo, trust_requirements=NEEDS)
        own = await filed(api, repo, severity="low", assigned_to="agent", trust_requirements=NEEDS)
        await is_now(db, team, capabilities=["healing"])
        assert refusal(await ask(agent)) == (403, "role_not_allowed")
        assert await start(agent, own) == (403, "role_not_allowed")
        assert await given(agent, role="healing") is None, "not offered to who does not ask for it"
        asked = await agent.patch("/api/v1/agents/agent", json={"capabilities": ["elite_coding_agent"]})
        assert refusal(asked) == (403, "admins_only")
        await api.patch("/api/v1/agents/agent", json={"capabilities": ["healing", "elite_coding_agent"]})
        assert await given(agent) == waiting["mission_id"]
        assert await start(agent, own) == PASSED


async def test_what_an_operator_has_started_is_not_given_out(
    agent: httpx2.AsyncClient, api: httpx2.AsyncClient, team: Team, db: Database, repo: Repo
) -> None:
    mission = await filed(api, repo)
    async with db.workspace(team.workspace_id) as session:
        await session.execute(text("UPDATE mission SET run_id = 'run-1'"))
    assert await given(agent) is None
    assert (await api.get(mission["links"]["self"])).json()["data"]["assigned_to"] is None
