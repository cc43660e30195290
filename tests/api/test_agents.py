"""Agents: how they are let in, what holds them, and what their silence costs (AGENT-01..11)."""

import asyncio
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.principals import Role
from models.store import agents, governance
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.access import make_key, make_workspace
from tests.fixtures.api import Caller, Team, add_agents
from tests.fixtures.budgets import clock_moved
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo

__all__ = ["repo"]
PROBE = {"name": "probe", "endpoint": "https://agents.example.org/probe", "capabilities": ["coding"]}
WHY = {"explanation": "known to us"}
PASS = Actor("reconciler", "pass-1")


@pytest.fixture
def stranger(client: Caller) -> httpx2.AsyncClient:
    """Whoever has no key."""
    return client(None)


async def registered(stranger: httpx2.AsyncClient, team: Team, **body: Any) -> dict[str, Any]:
    """Register an agent; what was answered."""
    answer = await stranger.post("/api/v1/agents", json=PROBE | {"workspace": team.workspace_id} | body)
    assert answer.status_code == 201, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


async def admitted(api: httpx2.AsyncClient, client: Caller, team: Team, **body: Any) -> tuple[str, httpx2.AsyncClient]:
    """Register an agent, approve it and fetch its key; its id, and the agent as a caller."""
    made = await registered(client(None), team, **body)
    assert (await api.post(f"/api/v1/agents/{made['agent_id']}/approve", json=WHY)).status_code == 200
    shown = await client(made["registration_token"]).get(f"/api/v1/agents/{made['agent_id']}")
    return made["agent_id"], client(shown.json()["data"]["key"])


async def events_of(db: Database, team: Team, like: str) -> list[str]:
    async with db.workspace(team.workspace_id) as session:
        found = await session.execute(text("SELECT type FROM event WHERE type LIKE :like ORDER BY id"), {"like": like})
        return list(found.scalars())


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
        found = [answer.json()["data"]["key"] for answer in answers]
        [secret] = [key for key in found if key]
        assert (await registrant.get(place)).json()["data"]["key"] is None
        assert (await client(secret).get(place)).json()["data"]["name"] == "probe"
        async with db.system() as session:
            stored = (await session.execute(text("SELECT agent::text FROM agent"))).scalars().all()
        assert not any(made["registration_token"] in row or secret in row for row in stored)

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
        assert refusal(await api.post(f"{place}/approve", json=WHY)) == (409, "illegal_transition")
        assert (await registered(client(None), team))["agent_id"] != made["agent_id"]

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


class TestInbox:
    async def test_a_registration_is_a_decision(self, api: httpx2.AsyncClient, client: Caller, team: Team) -> None:
        made = await registered(client(None), team)
        listed = await api.get("/api/v1/decisions?status=pending&kind=registration")
        [decision] = listed.json()["data"]["items"]
        assert decision["question"]["endpoint"] == PROBE["endpoint"]
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


class TestHold:
    async def test_only_active_agents_are_offered_work(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, repo: Repo
    ) -> None:
        agent_id, agent = await admitted(api, client, team)
        await filed(api, repo)
        work = "/api/v1/queue/next?agent_id=probe&agent_role=coding&peek=true"
        assert refusal(await agent.get(work)) == (409, "agent_stale"), "nothing was heard of it yet"
        await agent.post(f"/api/v1/agents/{agent_id}/heartbeat")
        for verb, status in [("pause", "paused"), ("resume", "active"), ("drain", "drained"), ("resume", "active")]:
            told = await client(team.operator).post(f"/api/v1/agents/{agent_id}/{verb}", json={})
            assert told.json()["data"]["status"] == status
            offered = await agent.get(work)
            assert (offered.status_code == 200) == (status == "active"), (verb, offered.text)
            if status != "active":
                assert refusal(offered) == (409, "agent_not_active")

    async def test_out_of_quarantine_only_with_an_admin(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database
    ) -> None:
        agent_id, _ = await admitted(api, client, team)
        operator, place = client(team.operator), f"/api/v1/agents/{agent_id}"
        assert (await operator.post(f"{place}/quarantine")).status_code == 200
        assert refusal(await operator.post(f"{place}/resume")) == (403, "admins_only")
        assert refusal(await operator.post(f"{place}/drain")) == (409, "illegal_transition")
        assert (await api.post(f"{place}/resume")).json()["data"]["status"] == "paused"
        assert refusal(await operator.post(f"{place}/sing")) == (422, "invalid_input")
        assert await events_of(db, team, "agent.status%") == ["agent.status_changed"] * 2

    async def test_a_held_one_begins_nothing_within_a_second(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, address: str
    ) -> None:
        agent_id, agent = await admitted(api, client, team)
        place = f"/api/v1/agents/{agent_id}"
        assert (await agent.get(place)).status_code == 200
        async with httpx2.AsyncClient(base_url=address, headers=dict(agent.headers)) as elsewhere:
            async with elsewhere.stream("GET", "/api/v1/events") as stream:
                assert (await client(team.operator).post(f"{place}/quarantine")).status_code == 200
                async with asyncio.timeout(3):
                    async for _ in stream.aiter_bytes():
                        pass
            assert refusal(await elsewhere.post(f"{place}/rotate-key", json={})) == (409, "agent_not_active")
            assert (await elsewhere.post(f"{place}/heartbeat")).json()["data"]["status"] == "quarantined"

    async def test_a_stopped_one_has_no_keys(self, api: httpx2.AsyncClient, client: Caller, team: Team) -> None:
        agent_id, agent = await admitted(api, client, team)
        place = f"/api/v1/agents/{agent_id}"
        await client(team.operator).post(f"{place}/stop")
        await shut_out(agent)
        for path in (f"{place}/rotate-key", "/api/v1/keys"):
            body = {} if path.startswith(place) else {"principal": "probe"}
            assert refusal(await api.post(path, json=body)) == (409, "agent_not_active")
        await api.post(f"{place}/resume")
        renewed = await api.post(f"{place}/rotate-key", json={})
        assert (await client(renewed.json()["data"]["secret"]).get(place)).status_code == 200

    @pytest.mark.parametrize("end", ["stop", "delete"])
    async def test_no_key_outlives_its_agent(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database, end: str
    ) -> None:
        """Stopping or deactivating an agent while it renews its key ends both keys, whichever is first."""
        agent_id, agent = await admitted(api, client, team)
        place = f"/api/v1/agents/{agent_id}"
        ended, *renewed = await asyncio.gather(
            api.delete(place) if end == "delete" else api.post(f"{place}/stop"),
            agent.post(f"{place}/rotate-key", json={}),
            api.post("/api/v1/keys", json={"principal": "probe"}),
            api.post(f"{place}/rotate-key", json={}),
        )
        assert ended.status_code == 200
        assert {answer.status_code for answer in renewed} <= {201, 401, 409}
        async with db.workspace(team.workspace_id) as session:
            alive = "SELECT count(*) FROM api_key WHERE principal = 'probe' AND revoked_at IS NULL"
            assert (await session.execute(text(alive))).scalar_one() == 0

    async def test_a_deactivated_one_stays_listed(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database
    ) -> None:
        agent_id, agent = await admitted(api, client, team)
        place = f"/api/v1/agents/{agent_id}"
        for _ in range(2):
            ended = (await api.delete(place)).json()["data"]
            assert (ended["registration"], ended["status"]) == ("deactivated", "stopped")
        await shut_out(agent)
        assert (await api.get(place)).json()["data"]["registration"] == "deactivated"
        assert (await api.get("/api/v1/principals/probe")).json()["data"]["deactivated_at"] is not None
        assert refusal(await api.post("/api/v1/keys", json={"principal": "probe"})) == (409, "principal_deactivated")
        assert refusal(await client(None).post("/api/v1/agents", json=PROBE | {"workspace": team.workspace_id})) == (
            409,
            "principal_exists",
        )
        assert await events_of(db, team, "agent.%") == ["agent.registered", "agent.approved", "agent.deactivated"]

    async def test_an_end_is_of_the_one_that_is_named(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database
    ) -> None:
        """An agent from before names were checked may be called like another one's id."""
        victim, victims_caller = await admitted(api, client, team)
        impostor, impostors_caller = await admitted(api, client, team, name="impostor")
        async with db.system() as session:
            await rename(session, team, "impostor", victim)
        ended = await api.delete(f"/api/v1/agents/{impostor}")
        assert ended.status_code == 200, ended.text
        await shut_out(impostors_caller)
        assert (await victims_caller.get(f"/api/v1/agents/{victim}")).json()["data"]["registration"] == "approved"
        assert (await api.get(f"/api/v1/agents/{impostor}")).json()["data"]["registration"] == "deactivated"


class TestList:
    async def test_an_agent_sees_all_of_its_workspace_and_none_of_another(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, other_team: Team
    ) -> None:
        """AGENT-05: also those that wait, and those that were let go."""
        gone, _ = await admitted(api, client, team, name="gone")
        await api.delete(f"/api/v1/agents/{gone}")
        await registered(client(None), team, name="waiting")
        _, ours = await admitted(api, client, team)
        _, theirs = await admitted(client(other_team.admin), client, other_team)
        await admitted(client(other_team.admin), client, other_team, name="other")
        mine, others = [(await agent.get("/api/v1/agents")).json()["data"]["items"] for agent in (ours, theirs)]
        assert sorted(agent["name"] for agent in mine) == ["agent", "gone", "probe", "waiting"]
        assert sorted(agent["name"] for agent in others) == ["agent", "other", "probe"]
        assert not {agent["agent_id"] for agent in mine} & {agent["agent_id"] for agent in others}


class TestSelf:
    async def test_an_agent_changes_itself_and_no_other(
        self, api: httpx2.AsyncClient, client: Caller, team: Team
    ) -> None:
        agent_id, agent = await admitted(api, client, team)
        place = f"/api/v1/agents/{agent_id}"
        changed = await agent.patch(place, json={"endpoint": "https://elsewhere.example.org"})
        assert changed.json()["data"]["endpoint"] == "https://elsewhere.example.org"
        assert refusal(await agent.patch(place, json={"level": "lead"})) == (403, "admins_only")
        assert refusal(await agent.patch(place, json={})) == (422, "nothing_to_change")
        assert (await api.patch(place, json={"level": "lead"})).json()["data"]["level"] == "lead"
        assert refusal(await api.patch(place, json={"level": "boss"})) == (422, "invalid_input")
        for path, body in [("", {"endpoint": "http://x"}), ("/heartbeat", None), ("/rotate-key", {})]:
            asked = client(team.agent).request("POST" if path else "PATCH", f"{place}{path}", json=body)
            assert refusal(await asked) == (403, "not_your_agent")

    async def test_a_cap_beside_a_new_level_keeps_the_tokens_of_that_one(
        self, api: httpx2.AsyncClient, db: Database, team: Team
    ) -> None:
        async with db.system() as session:
            await add_agents(session, team.workspace_id, "bot")
        for name, tokens in (("intern", 100), ("lead", 1_000_000)):
            of_level = {"scope": "agent_day", "owner": "level", "name": name, "cap_usd": "5", "cap_tokens": tokens}
            assert (await api.put("/api/v1/budgets", json=of_level)).status_code == 200
        change = {"level": "lead", "daily_cap_usd": "9", "run_cap_usd": "3"}
        assert (await api.patch("/api/v1/agents/bot", json=change)).status_code == 200
        listed = (await api.get("/api/v1/budgets")).json()["data"]["items"]
        [own] = [one for one in listed if (one["scope"], one["name"]) == ("agent_day", "bot")]
        assert (own["cap_usd"], own["cap_tokens"]) == ("9", 1_000_000)

    async def test_dollars_that_are_set_back_leave_the_tokens(
        self, api: httpx2.AsyncClient, db: Database, team: Team
    ) -> None:
        async with db.system() as session:
            await add_agents(session, team.workspace_id, "bot")
        tokens = {"scope": "agent_day", "owner": "agent", "name": "bot", "cap_tokens": 1000}
        assert (await api.patch("/api/v1/budgets", json=tokens)).status_code == 200
        for usd in ("3", None):
            assert (await api.patch("/api/v1/agents/bot", json={"daily_cap_usd": usd})).status_code == 200
        listed = (await api.get("/api/v1/budgets")).json()["data"]["items"]
        [own] = [one for one in listed if (one["scope"], one["name"]) == ("agent_day", "bot")]
        assert (own["cap_usd"], own["cap_tokens"]) == ("2", 1000), "two dollars are an intern's day"

    async def test_its_tools_have_one_spelling(self, api: httpx2.AsyncClient, db: Database, team: Team) -> None:
        async with db.system() as session:
            await add_agents(session, team.workspace_id, "bot")
        hidden = await api.patch("/api/v1/agents/bot", json={"tools": ["git\u200b"]})
        assert refusal(hidden) == (422, "invalid_input")
        kept = await api.patch("/api/v1/agents/bot", json={"tools": [" read_* ", "\uff53hell"]})
        assert kept.json()["data"]["tools"] == ["read_*", "shell"]

    async def test_its_day_has_the_cap_of_the_level_that_it_has_now(
        self, api: httpx2.AsyncClient, db: Database, team: Team
    ) -> None:
        """BUDG-01: whatever its first run of the day was, and also where a promotion opens what was closed."""
        async with db.system() as session:
            await add_agents(session, team.workspace_id, "bot")

        async def level(to: str) -> tuple[str, bool]:
            assert (await api.patch("/api/v1/agents/bot", json={"level": to})).status_code == 200
            return await day()

        async def day() -> tuple[str, bool]:
            [found] = (await api.get("/api/v1/budgets/spending?scope=agent_day")).json()["data"]["items"]
            return found["cap_usd"], found["crossed"]

        async def run(**values: Any) -> dict[str, Any]:
            made = (await api.post("/api/v1/runs", json={"agent_id": "bot", **values})).json()["data"]
            return dict((await api.get(f"/api/v1/runs/{made['run_id']}")).json()["data"])

        await api.patch("/api/v1/agents/bot", json={"level": "lead"})
        await run(level="intern")
        assert await day() == ("12", False)
        lead = await run()
        await api.post(f"/api/v1/runs/{lead['run_id']}/costs", json={"usd": "1.5"})
        assert await level("intern") == ("2", False)
        interns = {"scope": "agent_day", "owner": "level", "name": "intern", "cap_usd": "1", "cap_tokens": None}
        await api.put("/api/v1/budgets", json=interns)
        assert await day() == ("1.5", True)
        held = await run()
        assert held["blocked_by"] == "agent_day"
        assert await level("specialist") == ("5", False)
        assert (await api.get(f"/api/v1/runs/{held['run_id']}")).json()["data"]["status"] is None
        await api.patch("/api/v1/agents/bot", json={"level": "intern", "daily_cap_usd": "3"})
        assert await day() == ("3", False)

    async def test_an_agent_gives_up_capabilities_and_gets_more_from_an_admin(
        self, api: httpx2.AsyncClient, client: Caller, team: Team
    ) -> None:
        agent_id, agent = await admitted(api, client, team, capabilities=["coding", "healing"])
        place = f"/api/v1/agents/{agent_id}"

        async def has(caller: httpx2.AsyncClient, *wanted: str) -> list[str]:
            answer = await caller.patch(place, json={"capabilities": wanted})
            found: list[str] = answer.json()["data"]["capabilities"] if answer.is_success else [str(refusal(answer))]
            return found

        refused = ["(403, 'admins_only')"]
        assert await has(agent, "coding", "healing", "deploying") == refused
        assert (await agent.get(place)).json()["data"]["capabilities"] == ["coding", "healing"]
        assert await has(agent, "elite_coding_agent") == ["elite_coding_agent"], "what `coding` is short for"
        assert await has(agent, "elite_coding_agent", "healing") == refused, "what it gave up is gone"
        assert await has(agent) == []
        assert await has(api, "deploying") == ["deploying"]

    async def test_both_keys_work_in_the_grace_period(
        self, api: httpx2.AsyncClient, client: Caller, team: Team
    ) -> None:
        agent_id, agent = await admitted(api, client, team)
        place = f"/api/v1/agents/{agent_id}"
        renewed = (await agent.post(f"{place}/rotate-key", json={"grace_hours": 1})).json()["data"]
        for caller in (agent, client(renewed["secret"])):
            assert (await caller.get(place)).status_code == 200
        assert refusal(await agent.post(f"{place}/rotate-key", json={})) == (409, "key_rotated")
        await api.post(f"{place}/rotate-key", json={"grace_hours": 0})
        await shut_out(client(renewed["secret"]))


class TestSilence:
    async def test_it_is_told_once_and_costs_the_work(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database
    ) -> None:
        agent_id, agent = await admitted(api, client, team)
        await agent.post(f"/api/v1/agents/{agent_id}/heartbeat")
        for seconds, types in [(60, []), (100, ["agent.stale"]), (100, []), (400, ["agent.lost"]), (400, [])]:
            before = await events_of(db, team, "agent.%")
            async with db.system() as session:
                await session.execute(
                    text("UPDATE agent SET last_heartbeat_at = now() - make_interval(secs => :s) WHERE agent_id = :id"),
                    {"s": seconds, "id": agent_id},
                )
                await agents.sweep(session)
            assert (await events_of(db, team, "agent.%"))[len(before) :] == types
        offered = await agent.get("/api/v1/queue/next?agent_id=probe&agent_role=coding")
        assert refusal(offered) == (409, "agent_stale")
        assert (await api.get(f"/api/v1/agents/{agent_id}")).json()["data"]["silence"] == "lost"
        await agent.post(f"/api/v1/agents/{agent_id}/heartbeat")
        assert (await events_of(db, team, "agent.%"))[-1] == "agent.returned"
        assert (await agent.get("/api/v1/queue/next?agent_id=probe&agent_role=coding")).json()["data"] is None

    async def test_a_pass_tells_of_so_many_and_the_next_one_of_the_rest(self, team: Team, db: Database) -> None:
        async with db.system() as session:
            await add_many(session, team, agents.SWEPT_AT_ONCE + 5, "approved", "active")
        for told in (agents.SWEPT_AT_ONCE, 5, 0):
            async with db.system() as session:
                assert await agents.sweep(session) == told
        assert await events_of(db, team, "agent.%") == ["agent.lost"] * (agents.SWEPT_AT_ONCE + 5)

    async def test_it_waits_for_nobody(self, team: Team, db: Database) -> None:
        """An agent whose row somebody changes just now is left to the next pass."""
        async with db.system() as session:
            await add_many(session, team, 2, "approved", "active")
        async with db.system() as busy, asyncio.timeout(3):
            await agents.require_named(busy, team.workspace_id, "one-of-many-1")
            async with db.system() as session:
                assert await agents.sweep(session) == 1
        async with db.system() as session:
            assert await agents.sweep(session) == 1

    async def test_who_was_never_heard_of_is_not_missed(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database
    ) -> None:
        await admitted(api, client, team)
        async with db.system() as session:
            await agents.sweep(session)
        assert await events_of(db, team, "agent.stale") == []


async def add_many(
    session: AsyncSession, team: Team, number: int, registration: str, status: str | None, by: str = "a test"
) -> None:
    """Add so many agents that were last heard of an hour ago."""
    made = (
        "INSERT INTO agent (workspace_id, agent_id, name, registration, status, requested_by, last_heartbeat_at)"
        " SELECT :place, 'one-of-many-' || n, 'one-of-many-' || n, :registration, :status, :by,"
        " mc_now() - interval '1 hour' FROM generate_series(1, :number) AS n"
    )
    values = {"place": team.workspace_id, "registration": registration, "status": status, "number": number, "by": by}
    await session.execute(text(made), values)


async def rename(session: AsyncSession, team: Team, before: str, after: str) -> None:
    """Give an agent another name."""
    for table in ("principal", "agent"):
        change = f"UPDATE {table} SET name = :after WHERE workspace_id = :place AND name = :before"  # noqa: S608
        await session.execute(text(change), {"place": team.workspace_id, "before": before, "after": after})


async def shut_out(caller: httpx2.AsyncClient) -> None:
    """Wait until a key opens nothing any more."""
    async with asyncio.timeout(3):
        while (await caller.get("/api/v1/agents")).status_code != 401:
            pass
