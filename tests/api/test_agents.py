"""Agents that were let in: what holds them, and what their silence costs (AGENT-01..11)."""

import asyncio
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from models.store import agents, rows
from models.store.database import Database
from tests.fixtures.agents import PROBE, WHY, add_many, admitted, events_of, registered, shut_out
from tests.fixtures.api import Caller, Team, add_agents
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo
from tests.fixtures.waiting import eventually, somebody_waits

__all__ = ["repo"]


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
        for change in ({"level": "lead"}, {"daily_cap_usd": "9"}, {"run_cap_usd": None}):
            assert refusal(await api.patch(place, json=change)) == (409, "agent_not_approved")
        shown = (await api.get(place)).json()["data"]
        assert (shown["registration"], shown["level"]) == ("deactivated", "intern")
        assert (await api.get("/api/v1/principals/probe")).json()["data"]["deactivated_at"] is not None
        renewed = await api.post("/api/v1/keys", json={"principal": "probe"})
        assert refusal(renewed) == (409, "principal_deactivated")
        assert renewed.json()["error"]["message"].endswith("gets no keys: take another name")
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

    async def test_a_rejected_registration_moves_no_cap_of_its_namesake(
        self, api: httpx2.AsyncClient, client: Caller, team: Team
    ) -> None:
        rejected = (await registered(client(None), team))["agent_id"]
        assert (await api.post(f"/api/v1/agents/{rejected}/reject", json=WHY)).status_code == 200
        living = f"/api/v1/agents/{(await admitted(api, client, team))[0]}"
        before = (await api.get(living)).json()["data"]
        for change in ({"daily_cap_usd": "1000"}, {"run_cap_usd": None}, {"level": "lead"}):
            asked = await api.patch(f"/api/v1/agents/{rejected}", json=change)
            assert refusal(asked) == (409, "agent_not_approved")
        cap = {"scope": "agent_day", "owner": "agent", "name": rejected, "cap_usd": "1000", "cap_tokens": None}
        for method in ("PUT", "PATCH"):
            asked = await api.request(method, "/api/v1/budgets", json=cap)
            assert refusal(asked) == (409, "agent_not_approved")
        assert (await api.get(living)).json()["data"] == before
        assert (await api.get(f"/api/v1/agents/{rejected}")).json()["data"]["level"] == "intern"
        assert (await api.put("/api/v1/budgets", json=cap | {"name": "probe"})).status_code == 200

    async def test_what_it_was_and_is_stands_in_the_log(
        self, api: httpx2.AsyncClient, client: Caller, team: Team
    ) -> None:
        agent_id, _ = await admitted(api, client, team)
        changed = await api.patch(
            f"/api/v1/agents/{agent_id}",
            json={"level": "lead", "tools": ["git_*"], "endpoint": "https://a.example/?token=x"},
        )
        assert changed.status_code == 200
        [row] = (await api.get("/api/v1/audit?action=agent.changed")).json()["data"]["items"]
        assert {name: row["content"][name] for name in ("changed", "before", "after")} == {
            "changed": ["endpoint", "level", "tools"],
            "before": {"level": "intern", "tools": ["*"]},
            "after": {"level": "lead", "tools": ["git_*"]},
        }

    async def test_one_that_waits_is_given_its_caps(self, api: httpx2.AsyncClient, client: Caller, team: Team) -> None:
        made = await registered(client(None), team)
        changed = await api.patch(f"/api/v1/agents/{made['agent_id']}", json={"daily_cap_usd": "1", "level": "lead"})
        assert (changed.status_code, changed.json()["data"]["daily_cap_usd"]) == (200, "1")

    async def test_whose_registration_is_rejected_leaves_no_cap_to_who_has_its_name_next(
        self, api: httpx2.AsyncClient, client: Caller, team: Team
    ) -> None:
        first = (await registered(client(None), team))["agent_id"]
        caps = {"daily_cap_usd": "1000", "run_cap_usd": "500"}
        assert (await api.patch(f"/api/v1/agents/{first}", json=caps)).status_code == 200
        assert (await api.post(f"/api/v1/agents/{first}/reject", json=WHY)).status_code == 200
        listed = (await api.get("/api/v1/budgets")).json()["data"]["items"]
        assert [limit for limit in listed if limit["owner"] == "agent"] == []
        await admitted(api, client, team)
        assert (await api.get("/api/v1/agents/probe")).json()["data"]["daily_cap_usd"] == "2"

    @pytest.mark.parametrize("way", ["budgets", "agents"])
    async def test_who_sets_a_cap_while_it_is_rejected_hears_of_it(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database, way: str
    ) -> None:
        made = (await registered(client(None), team))["agent_id"]
        cap = {"scope": "agent_day", "owner": "agent", "name": made, "cap_usd": "9", "cap_tokens": None}
        ways = {
            "budgets": ("PUT", "/api/v1/budgets", cap),
            "agents": ("PATCH", f"/api/v1/agents/{made}", {"daily_cap_usd": "9"}),
        }
        method, path, body = ways[way]
        async with db.workspace(team.workspace_id) as session:
            agent = await agents.require(session, team.workspace_id, made, for_update=True)
            asked = asyncio.create_task(api.request(method, path, json=body))
            await eventually(lambda: somebody_waits(session))
            await rows.set_columns(session, agent, registration="rejected")
        assert refusal(await asked) == (409, "agent_not_approved")

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


async def rename(session: AsyncSession, team: Team, before: str, after: str) -> None:
    """Give an agent another name."""
    for table in ("principal", "agent"):
        change = f"UPDATE {table} SET name = :after WHERE workspace_id = :place AND name = :before"  # noqa: S608
        await session.execute(text(change), {"place": team.workspace_id, "before": before, "after": after})
