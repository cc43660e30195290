"""Starting missions over HTTP, with the real workflow on a real Temporal server."""

import asyncio

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.principals import Role
from models.domain.stages import StageName
from models.store import missions
from models.store.database import Database
from tests.fixtures.access import make_key
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo
from tests.fixtures.instant_ports import InstantPorts
from tests.fixtures.missions import filed, refusal, repo
from tests.fixtures.stages import service_key
from tests.fixtures.steering import Mission, ended, in_tests, mission, ports, ready, say, settings, when

__all__ = ["mission", "ports", "repo", "service_key", "settings"]


def in_governance(mission: Mission) -> bool:
    return bool(mission["stage"] == "governance")


def is_blocked(mission: Mission) -> bool:
    return mission["blocked"] is not None


def in_any_state(_: Mission) -> bool:
    return True


class TestExecute:
    async def test_runs_to_the_merge(self, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts) -> None:
        started = await say(api, mission, "execute", mission_type="coding")
        assert started.status_code == 202
        assert started.json()["data"]["run_id"]
        assert started.json()["data"]["links"]["temporal"].endswith("%2F" + mission["mission_id"])
        found = await when(api, mission, ended)
        assert (found["status"], found["outcome"]) == ("resolved", "merged")
        assert found["merge_sha"]
        stages = (await api.get(mission["links"]["stages"])).json()["data"]["items"]
        assert [stage["number"] for stage in stages] == ["1", "2", "3", "4s", "4", "5", "6", "7", "8", "9", "10", "11"]

    async def test_the_sdk_counts_its_calls(
        self, api: httpx2.AsyncClient, mission: Mission, client: Caller, ports: InstantPorts
    ) -> None:
        await say(api, mission, "execute")
        assert 'operation="StartWorkflowExecution"' in (await client(None).get("/metrics")).text
        await when(api, mission, ended)

    async def test_not_twice(self, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts) -> None:
        gate = ports.script(mission["mission_id"]).blocks[StageName.RUN_TESTS] = asyncio.Event()
        await say(api, mission, "execute")
        assert refusal(await say(api, mission, "execute")) == (409, "already_running")
        await when(api, mission, in_tests)
        assert refusal(await say(api, mission, "execute")) == (409, "already_running")
        gate.set()
        await when(api, mission, ended)
        assert refusal(await say(api, mission, "execute")) == (409, "illegal_transition")

    async def test_of_two_at_once_one_starts_it(
        self, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts
    ) -> None:
        answers = await asyncio.gather(*(say(api, mission, "execute") for _ in range(2)))
        assert sorted(answer.status_code for answer in answers) == [202, 409]
        assert [refusal(answer)[1] for answer in answers if answer.status_code == 409] == ["already_running"]
        assert (await when(api, mission, ended))["outcome"] == "merged"

    async def test_an_agent_takes_what_it_starts(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, repo: Repo, db: Database
    ) -> None:
        taken = text("SELECT claimed_at IS NOT NULL FROM mission WHERE mission_id = :id")
        for key, is_taken in ((team.operator, False), (team.agent, True)):
            mission = await ready(api, repo, assigned_to="agent")
            assert (await say(client(key), mission, "execute")).status_code == 202
            async with db.workspace(team.workspace_id) as session:
                assert (await session.execute(taken, {"id": mission["mission_id"]})).scalar_one() is is_taken

    async def test_what_is_canceled_at_that_moment_is_not_said_to_have_started(
        self, api: httpx2.AsyncClient, mission: Mission, db: Database, team: Team, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        note = missions.note_start

        async def too_late(session: AsyncSession, *which: str) -> None:
            assert (await say(api, mission, "cancel")).status_code == 200
            await note(session, *which)

        monkeypatch.setattr(missions, "note_start", too_late)
        assert refusal(await say(api, mission, "execute")) == (409, "mission_ended")
        found = await when(api, mission, ended)
        assert (found["outcome"], found["started_at"]) == ("canceled", None)

    async def test_a_start_whose_answer_was_lost_is_found_by_its_repetition(
        self, api: httpx2.AsyncClient, mission: Mission, db: Database, team: Team
    ) -> None:
        place, headers = f"{mission['links']['self']}/execute", {"Idempotency-Key": "lost"}
        first = await api.post(place, json={}, headers=headers)
        async with db.workspace(team.workspace_id) as session:  # as if we had died right after the start
            await session.execute(text("UPDATE idempotency SET status_code = NULL, response = NULL"))
            await session.execute(text("UPDATE mission SET run_id = NULL"))
        again = await api.post(place, json={}, headers=headers)
        assert (again.status_code, again.json()["data"]["run_id"]) == (202, first.json()["data"]["run_id"])

    async def test_a_repetition_is_answered_the_same(
        self, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts
    ) -> None:
        place, headers = f"{mission['links']['self']}/execute", {"Idempotency-Key": "run"}
        first, second = [await api.post(place, json={}, headers=headers) for _ in range(2)]
        assert (first.status_code, first.json()) == (second.status_code, second.json())
        await when(api, mission, ended)

    async def test_a_repetition_after_a_crash_finds_the_mission_started(
        self, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts, db: Database, team: Team
    ) -> None:
        place, headers = f"{mission['links']['self']}/execute", {"Idempotency-Key": "crash"}
        first = await api.post(place, json={}, headers=headers)
        for moment in (in_any_state, ended):
            await when(api, mission, moment)
            async with db.workspace(team.workspace_id) as session:  # as if we had died before the answer was stored
                await session.execute(text("UPDATE idempotency SET status_code = NULL, response = NULL"))
            again = await api.post(place, json={}, headers=headers)
            assert (again.status_code, again.json()) == (202, first.json())

    async def test_not_without_a_candidate(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        assert refusal(await say(api, await filed(api, repo), "execute")) == (409, "no_candidate")

    async def test_no_body_is_an_empty_one(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        place, headers = (await filed(api, repo))["links"]["self"], {"Idempotency-Key": "empty"}
        assert refusal(await api.post(f"{place}/execute")) == (409, "no_candidate")
        assert refusal(await api.post(f"{place}/pause")) == refusal(await api.post(f"{place}/resume"))
        assert refusal(await api.post(f"{place}/resume")) == (409, "mission_not_running")
        canceled = await api.post(f"{place}/cancel", headers=headers)
        assert canceled.json()["data"]["effect"] == "cleans_up"
        assert (await api.post(f"{place}/cancel", json={}, headers=headers)).headers["idempotency-replayed"] == "true"
        assert (await api.post(f"{place}/retry")).status_code == 201

    async def test_not_before_its_dependencies(
        self, api: httpx2.AsyncClient, repo: Repo, mission: Mission, ports: InstantPorts
    ) -> None:
        later = await ready(api, repo, dependencies=[mission["mission_id"]])
        refused = await say(api, later, "execute")
        assert refusal(refused) == (409, "dependencies_unresolved")
        assert refused.json()["error"]["details"]["missions"] == [mission["mission_id"]]
        await say(api, mission, "execute")
        await when(api, mission, ended)
        assert (await say(api, later, "execute")).status_code == 202
        await when(api, later, ended)

    async def test_an_agent_starts_what_it_is_assigned(
        self, client: Caller, team: Team, api: httpx2.AsyncClient, repo: Repo, ports: InstantPorts
    ) -> None:
        agent, mine, others = client(team.agent), await ready(api, repo, assigned_to="agent"), await ready(api, repo)
        assert refusal(await say(agent, others, "execute")) == (403, "not_assigned")
        assert (await say(agent, mine, "execute")).status_code == 202
        await when(agent, mine, in_governance)  # an intern's merge asks
        await say(api, mine, "cancel")
        await when(agent, mine, ended)

    async def test_who_starts_it_answers_no_question_about_its_cap(
        self, api: httpx2.AsyncClient, client: Caller, db: Database, team: Team, mission: Mission, ports: InstantPorts
    ) -> None:
        async with db.system() as session:
            olga, paul = [
                client(await make_key(session, team.workspace_id, name, role=Role.ADMIN)) for name in ("olga", "paul")
            ]
        cap = {"scope": "run", "owner": "run", "name": mission["mission_id"], "cap_usd": "0", "cap_tokens": None}
        assert (await api.put("/api/v1/budgets", json=cap)).status_code == 200
        await say(olga, mission, "execute")
        await when(api, mission, is_blocked)
        [asked] = (await api.get("/api/v1/decisions?status=pending&kind=budget")).json()["data"]["items"]
        assert asked["terms"]["requesters"] == ["admin", "olga", "worker"]
        place, yes = f"/api/v1/decisions/{asked['decision_id']}/resolve", {"decision": "approve", "explanation": "so"}
        for caller in (olga, api):
            assert refusal(await caller.post(place, json=yes)) == (403, "own_decision")
        answered = (await paul.post(place, json=yes)).json()["data"]
        assert (answered["status"], answered["single_operator"]) == ("approved", False)
        await say(api, mission, "cancel")
        await when(api, mission, ended)

    async def test_an_observer_steers_nothing(self, client: Caller, team: Team, mission: Mission) -> None:
        for verb in ("execute", "pause", "resume", "inject", "cancel", "retry"):
            answer = await say(client(team.observer), mission, verb, text="x")
            assert refusal(answer) == (403, "not_permitted")
