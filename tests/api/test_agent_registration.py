"""Agents: how they are let in, and who is not (AGENT-01..11)."""

import asyncio
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from models.domain.principals import Role
from models.store import governance
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.access import make_key, make_workspace
from tests.fixtures.agents import PROBE, WHY, add_many, admitted, events_of, let_in, registered
from tests.fixtures.api import Caller, Team, add_agents
from tests.fixtures.budgets import clock_moved
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo
from tests.fixtures.policies import let_answer

__all__ = ["repo"]
PASS = Actor("reconciler", "pass-1")


@pytest.fixture
def stranger(client: Caller) -> httpx2.AsyncClient:
    """Whoever has no key."""
    return client(None)


class TestRegister:
    async def test_from_nothing_to_work(
        self, api: httpx2.AsyncClient, stranger: httpx2.AsyncClient, client: Caller, team: Team, repo: Repo
    ) -> None:
        """Register, approve, call with the key, heartbeat, work: every answer is a success."""
        made = await registered(stranger, team)
        assert (made["registration"], made["status"]) == ("pending", None)
        agent_id, agent = await admitted(api, client, team, name="worker-1")
        assert (await agent.get("/api/v1/agents")).status_code == 200
        heard = await agent.post(f"/api/v1/agents/{agent_id}/heartbeat")
        assert heard.json()["data"] == {"status": "active", "stale_after_seconds": 90}
        mission = await filed(api, repo)
        got = await agent.get("/api/v1/queue/next?agent_id=worker-1&agent_role=coding")
        assert got.json()["data"]["mission_id"] == mission["mission_id"]

    @pytest.mark.parametrize("name", ["Admin", "AGENT"])
    async def test_nor_like_somebody_but_for_the_case(
        self, stranger: httpx2.AsyncClient, team: Team, name: str
    ) -> None:
        body = PROBE | {"workspace": team.workspace_id, "name": name}
        assert refusal(await stranger.post("/api/v1/agents", json=body)) == (409, "principal_exists")

    async def test_nor_is_one_let_in_who_is_by_now(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database
    ) -> None:
        first, twin, other = [await registered(client(None), team, name=name) for name in ("olga", "OLGA", "Paul")]
        await let_in(api, client, first)
        async with db.system() as session:
            await make_key(session, team.workspace_id, "paul", role=Role.MEMBER)
        for late in (twin, other):
            answer = await api.post(f"/api/v1/agents/{late['agent_id']}/approve", json=WHY)
            assert refusal(answer) == (409, "principal_exists")

    @pytest.mark.parametrize("name", ["coding", "elite_coding_agent"])
    async def test_none_is_called_like_a_role(self, stranger: httpx2.AsyncClient, team: Team, name: str) -> None:
        """It would pass for whoever has it."""
        body = PROBE | {"workspace": team.workspace_id, "name": name}
        assert refusal(await stranger.post("/api/v1/agents", json=body)) == (409, "agent_exists")

    async def test_the_key_comes_once_and_not_before(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database
    ) -> None:
        made = await registered(client(None), team)
        place = f"/api/v1/agents/{made['agent_id']}"
        registrant = client(made["registration_token"])
        assert (await registrant.get(place)).json()["data"]["key"] is None
        assert (await registrant.get("/api/v1/agents")).status_code == 401, "the token opens nothing else"
        await api.post(f"{place}/approve", json=WHY)
        answers = await asyncio.gather(*(registrant.get(place) for _ in range(5)))
        found = [answer.json()["data"]["key"] for answer in answers if answer.is_success]
        [secret] = [key for key in found if key]
        spent = await registrant.get(place)
        assert refusal(spent) == (401, "registration_token_spent")
        assert "`POST /agents/probe/rotate-key`" in spent.json()["error"]["message"]
        assert (await client(secret).get(place)).json()["data"]["name"] == "probe"
        async with db.system() as session:
            stored = (await session.execute(text("SELECT agent::text FROM agent"))).scalars().all()
        assert not any(made["registration_token"] in row or secret in row for row in stored)

    async def test_whoever_makes_a_key_for_it_too_early_is_told_what_to_do(
        self, api: httpx2.AsyncClient, client: Caller, team: Team
    ) -> None:
        made = await registered(client(None), team)
        key = {"principal": "probe", "kind": "agent"}
        refused = await api.post("/api/v1/keys", json=key)
        assert refusal(refused) == (409, "agent_exists")
        assert "`mission-control agent approve probe --reason WHY`" in refused.json()["error"]["message"]
        await api.post(f"/api/v1/agents/{made['agent_id']}/approve", json=WHY)
        assert (await api.post("/api/v1/keys", json=key)).status_code == 201

    async def test_its_decision_never_expires(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database, database_url: str
    ) -> None:
        made = await registered(client(None), team)
        async with clock_moved(database_url, "1000 days"):
            async with db.system() as session:
                assert await governance.tell_half_time(session, PASS, 100) == 0
                assert await governance.expire_overdue(session, PASS, 100) == 0
            [waits] = (await api.get("/api/v1/decisions?kind=registration")).json()["data"]["items"]
            assert (waits["status"], waits["expires_at"]) == ("pending", None)
            assert (await api.post(f"/api/v1/agents/{made['agent_id']}/approve", json=WHY)).status_code == 200
        shown = await client(made["registration_token"]).get(f"/api/v1/agents/{made['agent_id']}")
        assert shown.json()["data"]["registration"] == "approved"

    async def test_a_rejected_one_gets_no_key_and_may_come_again(
        self, api: httpx2.AsyncClient, client: Caller, team: Team
    ) -> None:
        made = await registered(client(None), team)
        place = f"/api/v1/agents/{made['agent_id']}"
        assert (await api.post(f"{place}/reject", json=WHY)).json()["data"]["registration"] == "rejected"
        shown = (await client(made["registration_token"]).get(place)).json()["data"]
        assert (shown["registration"], shown["key"]) == ("rejected", None)
        late = await api.post(f"{place}/approve", json=WHY)
        assert refusal(late) == (409, "illegal_transition")
        said = late.json()["error"]
        assert said["details"]["resolved_by"] == "admin"
        told = f"the registration of 'probe' was rejected by admin already, at {said['details']['resolved_at']}; "
        assert said["message"].startswith(told)
        assert (await registered(client(None), team))["agent_id"] != made["agent_id"]

    @pytest.mark.parametrize("has_key", [True, False])
    async def test_the_token_of_one_that_was_ended_opens_nothing(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, has_key: bool
    ) -> None:
        made = await registered(client(None), team)
        place, registrant = f"/api/v1/agents/{made['agent_id']}", client(made["registration_token"])
        await api.post(f"{place}/approve", json=WHY)
        if has_key:
            assert (await registrant.get(place)).json()["data"]["key"]
        assert (await api.delete(place)).status_code == 200
        told = await registrant.get(place)
        assert refusal(told) == (401, "registration_token_spent")
        assert "'probe' was deactivated" in told.json()["error"]["message"]

    async def test_a_repetition_registers_once(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database
    ) -> None:
        again, body = {"Idempotency-Key": "k"}, PROBE | {"workspace": team.workspace_id}
        first, second = [await client(None).post("/api/v1/agents", json=body, headers=again) for _ in range(2)]
        assert (first.status_code, second.headers["idempotency-replayed"]) == (201, "true")
        assert second.json()["data"] == first.json()["data"] | {"registration_token": None}
        assert await events_of(db, team, "agent.%") == ["agent.registered"]
        other = await client(None).post("/api/v1/agents", json=body | {"name": "other"}, headers=again)
        assert refusal(other) == (409, "idempotency_key_reused")
        assert "the Idempotency-Key 'k' was used" in other.json()["error"]["message"]
        key = await api.post("/api/v1/keys", json={"principal": "olga", "role": "observer"}, headers=again)
        assert key.status_code == 201, "a stranger uses up no member's key"

    async def test_a_stranger_is_nobody_of_any_workspace(self, client: Caller, team: Team, db: Database) -> None:
        async with db.system() as session:
            await make_workspace(session, "unknown")
            await make_key(session, "unknown", "probe", role=Role.ADMIN)
        await registered(client(None), team)
        async with db.workspace(team.workspace_id) as session:
            said = await session.execute(text("SELECT actor, actor_kind FROM audit WHERE action = 'agent.registered'"))
            assert [tuple(row) for row in said] == [("(unknown)/probe", "unknown")]

    async def test_one_that_an_admin_adds_is_told_of(self, api: httpx2.AsyncClient, team: Team, db: Database) -> None:
        made = await api.post("/api/v1/principals", json={"name": "probe", "kind": "agent"})
        assert made.status_code == 201
        assert await events_of(db, team, "%") == ["agent.approved", "principal.created"]

    async def test_a_name_is_taken_once(self, api: httpx2.AsyncClient, client: Caller, team: Team) -> None:
        await registered(client(None), team)
        here = {"workspace": team.workspace_id}
        for name, code in [("probe", "agent_exists"), ("\uff50robe", "agent_exists"), ("operator", "principal_exists")]:
            answer = await client(None).post("/api/v1/agents", json=PROBE | here | {"name": name})
            assert refusal(answer) == (409, code)

    async def test_none_is_called_like_what_another_can_do(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database
    ) -> None:
        here = {"workspace": team.workspace_id}
        early = await client(None).post("/api/v1/agents", json=PROBE | here | {"name": "python"})
        async with db.system() as session:
            await add_agents(session, team.workspace_id, "w", capabilities=["python"])
        for said in ({"name": "python"}, {"name": "z", "capabilities": ["w"]}):
            refused = await client(None).post("/api/v1/agents", json=PROBE | here | said)
            assert refusal(refused) == (409, "agent_exists")
        place = f"/api/v1/agents/{early.json()['data']['agent_id']}"
        assert refusal(await api.post(f"{place}/approve", json=WHY)) == (409, "agent_exists")
        changed = await api.patch("/api/v1/agents/w", json={"capabilities": ["python", "go"]})
        assert changed.status_code == 200
        await registered(client(None), team)
        await api.post("/api/v1/agents/probe/approve", json=WHY)
        changed = await api.patch("/api/v1/agents/w", json={"capabilities": ["probe"]})
        assert refusal(changed) == (409, "agent_exists")

    @pytest.mark.parametrize(
        "change",
        [
            {"endpoint": None},
            {"endpoint": "ftp://x"},
            {"endpoint": "https://me:secret@example.org"},
            {"endpoint": "https://[::1"},
            {"endpoint": "http://x:99999"},
            {"name": ""},
            {"name": "a" * 10_000},
            {"name": "reconciler"},
            {"name": "agent_0123456789abcdef"},
            {"capabilities": ["x"] * 101},
            {"level": "lead"},
        ],
        ids=str,
    )
    async def test_what_makes_no_sense_is_refused(
        self, stranger: httpx2.AsyncClient, team: Team, change: dict[str, Any]
    ) -> None:
        body = {key: value for key, value in (PROBE | change).items() if value is not None}
        assert refusal(await stranger.post("/api/v1/agents", json=body)) == (422, "invalid_input")

    async def test_so_many_wait_and_no_more(self, client: Caller, team: Team, db: Database) -> None:
        async with db.system() as session:
            await add_many(session, team, 199, "pending", None, "(unknown)/x")
        await registered(client(None), team)
        more = PROBE | {"name": "p", "workspace": team.workspace_id}
        assert refusal(await client(None).post("/api/v1/agents", json=more)) == (409, "too_many_pending")
        assert (await client(team.admin).post("/api/v1/agents", json=more)).status_code == 201, "it has its own room"
        async with db.system() as session:
            await session.execute(text("UPDATE agent SET requested_by = 'agent' WHERE requested_by LIKE '(%'"))
        other = more | {"name": "q"}
        assert refusal(await client(team.agent).post("/api/v1/agents", json=other)) == (409, "too_many_pending")
        assert (await client(None).post("/api/v1/agents", json=other)).status_code == 201

    async def test_without_a_workspace_it_is_the_default_one(
        self, client: Caller, team: Team, db: Database, stranger: httpx2.AsyncClient
    ) -> None:
        elsewhere = await client(team.admin).post("/api/v1/agents", json=PROBE | {"workspace": "default"})
        assert refusal(elsewhere) == (404, "workspace_not_found")
        unknown = await stranger.post("/api/v1/agents", json=PROBE | {"workspace": "nowhere"})
        assert refusal(unknown) == (404, "workspace_not_found")
        async with db.system() as session:
            root = await make_key(session, "default", "root", role=Role.PLATFORM_ADMIN)
        assert (await client(root).put(f"/api/v1/workspaces/{team.workspace_id}/default")).status_code == 200
        assert (await stranger.post("/api/v1/agents", json=PROBE)).status_code == 201
        listed = (await client(team.observer).get("/api/v1/agents?registration=pending")).json()["data"]["items"]
        assert [agent["name"] for agent in listed] == ["probe"]


class TestWhoLetsIn:
    async def test_no_agent_lets_in_what_it_registered_itself(
        self, api: httpx2.AsyncClient, client: Caller, team: Team
    ) -> None:
        await let_answer(api, "registration", "agent")
        agent = client(team.agent)
        own = await registered(agent, team, name="child")
        assert refusal(await resolve(agent, own)) == (403, "own_decision")
        assert (await api.get(f"/api/v1/agents/{own['agent_id']}")).json()["data"]["registration"] == "pending"
        assert (await resolve(agent, await registered(client(None), team))).status_code == 200

    async def test_nor_does_an_admin_while_somebody_else_could(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database
    ) -> None:
        async with db.system() as session:
            olga = client(await make_key(session, team.workspace_id, "olga", role=Role.ADMIN))
        made = await registered(api, team)
        place = f"/api/v1/agents/{made['agent_id']}"
        for verb in ("approve", "reject"):
            assert refusal(await api.post(f"{place}/{verb}", json=WHY)) == (403, "own_decision")
        assert (await olga.post(f"{place}/approve", json=WHY)).json()["data"]["registration"] == "approved"
        decision = (await api.get(f"/api/v1/decisions/{made['agent_id']}.registration")).json()["data"]
        assert (decision["resolved_by"], decision["single_operator"]) == ("olga", False)
        assert decision["terms"]["requesters"] == ["admin"]

    async def test_nor_does_a_visitor_under_the_name_at_home(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database
    ) -> None:
        """ADR 18: a visitor and a member of one name are one person."""
        async with db.system() as session:
            root = client(await make_key(session, "default", "admin", role=Role.PLATFORM_ADMIN))
            await make_key(session, team.workspace_id, "olga", role=Role.ADMIN)
        root.headers["X-Workspace"] = team.workspace_id
        made = await registered(root, team)
        assert made["requested_by"] == "default/admin"
        assert refusal(await resolve(api, made)) == (403, "own_decision")

    async def test_the_only_admin_does_and_it_is_told(
        self, api: httpx2.AsyncClient, client: Caller, team: Team
    ) -> None:
        made = await registered(api, team)
        assert (await api.post(f"/api/v1/agents/{made['agent_id']}/approve", json=WHY)).status_code == 200
        decision = (await api.get(f"/api/v1/decisions/{made['agent_id']}.registration")).json()["data"]
        assert (decision["status"], decision["single_operator"]) == ("approved", True)

    async def test_what_a_stranger_is_called_is_nobodys_name(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database
    ) -> None:
        made = await registered(client(None), team, name="olga")
        async with db.system() as session:
            olga = client(await make_key(session, team.workspace_id, "olga", role=Role.ADMIN))
        answered = await resolve(olga, made, "deny")
        assert (answered.status_code, answered.json()["data"]["single_operator"]) == (200, False)


async def resolve(caller: httpx2.AsyncClient, made: dict[str, Any], said: str = "approve") -> httpx2.Response:
    place = f"/api/v1/decisions/{made['agent_id']}.registration/resolve"
    return await caller.post(place, json=WHY | {"decision": said})


class TestInbox:
    async def test_a_registration_is_a_decision(self, api: httpx2.AsyncClient, client: Caller, team: Team) -> None:
        made = await registered(client(None), team)
        listed = await api.get("/api/v1/decisions?status=pending&kind=registration")
        [decision] = listed.json()["data"]["items"]
        assert decision["question"]["endpoint"] == PROBE["endpoint"]
        assert (decision["reasons"], decision["terms"]["requesters"]) == (["an agent asks to be let in"], [])
        place = f"/api/v1/decisions/{decision['decision_id']}/resolve"
        answer = {"decision": "approve", "explanation": "known to us"}
        assert refusal(await client(team.operator).post(place, json=answer)) == (403, "not_permitted")
        assert (await api.get(f"/api/v1/agents/{made['agent_id']}")).json()["data"]["registration"] == "pending"
        assert (await api.post(place, json=answer)).status_code == 200
        assert (await api.get(f"/api/v1/agents/{made['agent_id']}")).json()["data"]["registration"] == "approved"
        assert refusal(await api.post(place, json=answer)) == (409, "already_resolved")

    async def test_of_two_admins_at_once_one_is_first(
        self, api: httpx2.AsyncClient, client: Caller, team: Team
    ) -> None:
        made = await registered(client(None), team)
        place = f"/api/v1/agents/{made['agent_id']}"
        answers = await asyncio.gather(api.post(f"{place}/approve", json=WHY), api.post(f"{place}/reject", json=WHY))
        assert sorted(answer.status_code for answer in answers) == [200, 409]

    async def test_a_name_that_was_taken_meanwhile(self, api: httpx2.AsyncClient, client: Caller, team: Team) -> None:
        made = await registered(client(None), team)
        await api.post("/api/v1/principals", json={"name": "probe", "role": "observer"})
        answer = await api.post(f"/api/v1/agents/{made['agent_id']}/approve", json=WHY)
        assert refusal(answer) == (409, "principal_exists")
        [decision] = (await api.get("/api/v1/decisions?kind=registration")).json()["data"]["items"]
        assert decision["status"] == "pending"


async def test_who_asked_answers_where_the_only_other_admin_has_a_narrowed_key(
    api: httpx2.AsyncClient, client: Caller
) -> None:
    """Who may do less than what an agent gets lets none in."""
    narrowed = {"principal": "second", "role": "admin", "scopes": ["decisions", "agents"]}
    second = client((await api.post("/api/v1/keys", json=narrowed)).json()["data"]["secret"])
    probe = {"name": "probe", "endpoint": "https://agents.example.org", "capabilities": ["coding"]}
    agent_id = (await api.post("/api/v1/agents", json=probe)).json()["data"]["agent_id"]
    place, body = f"/api/v1/agents/{agent_id}/approve", {"explanation": "known"}
    assert refusal(await second.post(place, json=body)) == (403, "out_of_scope")
    assert (await api.post(place, json=body)).status_code == 200
