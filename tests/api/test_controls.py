"""Starting and steering missions over HTTP, with the real workflow on a real Temporal server."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from temporalio.worker import Worker

from activities.governance import GovernanceActivities
from activities.merge_queue import MergeQueueActivities
from activities.recording import StageRecorder
from activities.records import RecordActivities
from activities.workbench.signing import ServiceKey
from models.domain.principals import Role
from models.domain.stages import StageName
from models.settings import Settings
from models.store.database import Database
from models.store.policies import PolicyBook
from tests.fixtures.access import make_key
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo
from tests.fixtures.instant_ports import InstantPorts
from tests.fixtures.missions import DIFF, filed, refusal, repo
from tests.fixtures.servers import TemporalServer
from tests.fixtures.stages import service_key
from tests.fixtures.waiting import until
from worker.interceptors import AroundActivities
from worker.registry import MERGE_DOORS
from workflows.client import connect
from workflows.coding_pipeline import CodingPipelineWorkflow
from workflows.merge_queue import MergeQueueWorkflow
from workflows.queues import control_queue, workbench_queue

__all__ = ["repo", "service_key"]

Mission = dict[str, Any]


@pytest.fixture
def settings(database_url: str, temporal_server: TemporalServer, tmp_path: Path) -> Settings:
    """Settings of an API that has all its parts, on task queues of the test's own."""
    return Settings(
        DATABASE_URL=database_url,
        TEMPORAL_ADDRESS=temporal_server.address,
        temporal_ui_url=temporal_server.ui_url,
        task_queue_prefix=f"{uuid.uuid4().hex}-",
        data_dir=tmp_path,
        repository_roots=(tmp_path,),
    )


@pytest.fixture
async def ports(settings: Settings, db: Database, service_key: ServiceKey) -> AsyncIterator[InstantPorts]:
    """A worker with the real workflow and records; git, tests and scans answer at once, or as a test scripts them."""
    client, recorder = await connect(settings), StageRecorder(db, service_key)
    control = control_queue(settings.task_queue_prefix)
    instant = InstantPorts(recorder, control)
    records, governance = RecordActivities(recorder), GovernanceActivities(recorder, PolicyBook(settings.config_dir))
    queue = MergeQueueActivities(db, client, MERGE_DOORS, control)
    activities = [
        *instant.activities(),
        records.record_control,
        records.heed_runs,
        records.conclude,
        governance.settle_round,
        governance.settle,
        governance.ask_about_rollback,
        queue.request_slot,
        queue.release_slot,
        queue.offer_slot,
        queue.has_ended,
    ]
    workflows = [CodingPipelineWorkflow, MergeQueueWorkflow]
    options: dict[str, Any] = {"activities": activities, "interceptors": [AroundActivities()]}
    async with (
        Worker(client, task_queue=control, workflows=workflows, **options),
        Worker(client, task_queue=workbench_queue(control), **options),
    ):
        yield instant


@pytest.fixture
async def mission(api: httpx2.AsyncClient, repo: Repo) -> Mission:
    """A mission with something to try, and nothing to wait for."""
    return await ready(api, repo)


async def ready(api: httpx2.AsyncClient, repo: Repo, **changes: Any) -> Mission:
    return await filed(api, repo, acceptance_criteria={}, symptoms=[], patch_candidates=[{"diff": DIFF}], **changes)


async def say(api: httpx2.AsyncClient, mission: Mission, verb: str, **body: Any) -> httpx2.Response:
    return await api.post(f"{mission['links']['self']}/{verb}", json=body)


async def when(api: httpx2.AsyncClient, mission: Mission, holds: Callable[[Mission], bool]) -> Mission:
    """The mission as soon as `holds`; the test's own timeout is the deadline."""
    while True:
        found: Mission = (await api.get(mission["links"]["self"])).json()["data"]
        if holds(found):
            return found
        await asyncio.sleep(0.05)


async def question(api: httpx2.AsyncClient, mission: Mission) -> dict[str, Any]:
    """What the mission asks, as soon as it does."""
    while True:
        pending = (await api.get(f"{mission['links']['decisions']}&status=pending")).json()["data"]["items"]
        if pending:
            asked: dict[str, Any] = pending[0]
            return asked
        await asyncio.sleep(0.05)


def ended(mission: Mission) -> bool:
    return mission["outcome"] is not None


def in_governance(mission: Mission) -> bool:
    return bool(mission["stage"] == "governance")


def in_tests(mission: Mission) -> bool:
    return bool(mission["stage"] == "run_tests")


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

    async def test_an_observer_steers_nothing(self, client: Caller, team: Team, mission: Mission) -> None:
        for verb in ("execute", "pause", "resume", "inject", "cancel", "retry"):
            answer = await say(client(team.observer), mission, verb, text="x")
            assert refusal(answer) == (403, "not_permitted")


class TestSteer:
    async def test_pause_note_and_resume(self, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts) -> None:
        gate = ports.script(mission["mission_id"]).blocks[StageName.RUN_TESTS] = asyncio.Event()
        await say(api, mission, "execute")
        await when(api, mission, in_tests)
        paused = (await say(api, mission, "pause", reason="let me look")).json()["data"]
        assert (paused["effect"], paused["paused"], paused["stage"]) == ("stops_command", True, "run_tests")
        assert (await when(api, mission, lambda m: m["paused"]))["status"] == "in_progress"
        assert (await say(api, mission, "pause")).json()["data"]["effect"] == "already"
        assert (await say(api, mission, "inject", text="it is the cache")).json()["data"]["effect"] == "noted"
        gate.set()
        assert (await say(api, mission, "resume")).json()["data"]["effect"] == "resumed"
        found = await when(api, mission, ended)
        assert found["outcome"] == "merged"
        acts = [(entry["action"], entry["actor"]) for entry in found["remediation_history"]]
        assert [act for act in acts if act[1] == "admin"] == [
            ("pause", "admin"),
            ("note", "admin"),
            ("resume", "admin"),
        ]

    async def test_a_visitor_is_named_with_its_home(
        self, client: Caller, team: Team, db: Database, mission: Mission, ports: InstantPorts
    ) -> None:
        async with db.system() as session:
            name = f"root-{uuid.uuid4().hex[:8]}"
            root = client(await make_key(session, "default", name, role=Role.PLATFORM_ADMIN))
        root.headers["X-Workspace"] = team.workspace_id
        added = await root.post(mission["links"]["candidates"], json={"diff": DIFF})
        assert added.json()["data"]["author"] == f"default/{name}"
        gate = ports.script(mission["mission_id"]).blocks[StageName.RUN_TESTS] = asyncio.Event()
        await say(root, mission, "execute")
        await when(root, mission, in_tests)
        for verb, said in (("pause", {}), ("inject", {"text": "a note"}), ("resume", {}), ("cancel", {"reason": "x"})):
            assert (await say(root, mission, verb, **said)).status_code == 200
        gate.set()
        await when(root, mission, ended)
        async with db.workspace(team.workspace_id) as session:
            rows = await session.execute(text("SELECT DISTINCT actor FROM event WHERE actor LIKE '%root-%'"))
        assert set(rows.scalars()) == {f"default/{name}"}

    async def test_a_mission_that_does_not_run_takes_no_command(
        self, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts
    ) -> None:
        for verb in ("pause", "resume", "inject"):
            body = {"text": "x"} if verb == "inject" else {}
            assert refusal(await say(api, mission, verb, **body)) == (409, "mission_not_running")


class TestCancel:
    async def test_before_the_start(self, api: httpx2.AsyncClient, mission: Mission) -> None:
        answer = await say(api, mission, "cancel", reason="filed by mistake")
        assert (answer.status_code, answer.json()["data"]["effect"]) == (200, "cleans_up")
        found = (await api.get(mission["links"]["self"])).json()["data"]
        assert (found["status"], found["outcome"], found["reason"]) == ("escalated", "canceled", "filed by mistake")
        assert refusal(await say(api, mission, "execute")) == (409, "illegal_transition")

    async def test_while_it_runs(self, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts) -> None:
        ports.script(mission["mission_id"]).blocks[StageName.RUN_TESTS] = asyncio.Event()
        await say(api, mission, "execute")
        await when(api, mission, in_tests)
        assert (await say(api, mission, "cancel")).json()["data"]["effect"] == "cleans_up"
        found = await when(api, mission, ended)
        assert (found["outcome"], found["merge_sha"]) == ("canceled", None)

    async def test_the_stage_that_runs_is_named(
        self, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts
    ) -> None:
        ports.script(mission["mission_id"]).blocks[StageName.PULL_CODE] = asyncio.Event()
        await say(api, mission, "execute")
        await when(api, mission, lambda found: found["stage"] == "pull_code")
        assert (await say(api, mission, "cancel")).json()["data"]["stage"] == "pull_code"
        assert (await when(api, mission, ended))["outcome"] == "canceled"

    @pytest.mark.parametrize(
        ("merged", "effect", "outcome"),
        [("keep", "keeps_merge", "canceled"), ("roll_back", "rolls_back", "rolled_back")],
    )
    async def test_after_the_merge_the_caller_chooses(
        self, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts, merged: str, effect: str, outcome: str
    ) -> None:
        ports.script(mission["mission_id"]).observation_seconds = 600
        await say(api, mission, "execute")
        await when(api, mission, lambda found: found["status"] == "observing")
        assert refusal(await say(api, mission, "cancel")) == (409, "merged_choice_required")
        told = (await say(api, mission, "cancel", merged=merged)).json()["data"]
        assert (told["effect"], told["stage"]) == (effect, "observe")
        assert (await when(api, mission, ended))["outcome"] == outcome


class TestBlocked:
    async def test_a_limit_holds_it_at_once_and_a_raised_cap_lets_it_go_on_at_once(
        self, client: Caller, team: Team, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts
    ) -> None:
        """Nobody reconciles here."""
        gate = ports.script(mission["mission_id"]).blocks[StageName.RUN_TESTS] = asyncio.Event()
        await say(api, mission, "execute")
        await when(api, mission, in_tests)
        agent = client(team.service)
        started = await agent.post("/api/v1/runs", json={"mission_id": mission["mission_id"], "level": "intern"})
        run = f"/api/v1/runs/{started.json()['data']['run_id']}"
        assert refusal(await agent.post(f"{run}/costs", json={"usd": "0.26"})) == (409, "budget_exceeded")
        found = await when(api, mission, lambda m: m["paused"])
        await until(lambda: ports.script(mission["mission_id"]).stopped == [StageName.RUN_TESTS])
        why = f"the run's limit of 0.25 USD is crossed; an admin may raise it (run {run.rpartition('/')[2]})"
        assert found["blocked"] == why
        assert (await say(api, mission, "pause")).status_code == 200
        for _ in range(2):
            answer = (await say(api, mission, "resume")).json()["data"]
            assert (answer["effect"], answer["reason"]) == ("still_blocked", found["blocked"])
        gate.set()
        [asked] = (await api.get("/api/v1/decisions?kind=budget")).json()["data"]["items"]
        assert asked["question"]["proposed"]["cap_usd"] == "0.50"
        yes = {"decision": "approve", "explanation": "it is worth that"}
        assert (await api.post(f"{asked['links']['self']}/resolve", json=yes)).status_code == 200
        assert (await when(api, mission, ended))["outcome"] == "merged"
        assert (await agent.post(f"{run}/costs", json={"usd": "0.26"})).status_code == 201

    async def test_a_workspace_that_has_nothing_left_begins_none(
        self, client: Caller, team: Team, api: httpx2.AsyncClient, mission: Mission, ports: InstantPorts
    ) -> None:
        budget = f"/api/v1/workspaces/{team.workspace_id}/budget"
        assert refusal(await client(team.operator).put(budget, json={"cap_tokens": 0})) == (403, "not_permitted")
        assert (await api.put(budget, json={"cap_tokens": 0})).json()["data"]["cap_tokens"] == 0
        assert (await say(api, mission, "execute")).status_code == 202
        found = await when(api, mission, lambda m: bool(m["blocked"]))
        assert (found["status"], found["paused"], found["stage"]) == ("in_progress", True, None)
        assert "of 0 tokens is crossed" in found["blocked"]
        [alert] = (await api.get("/api/v1/alerts")).json()["data"]["items"]
        assert (alert["kind"], alert["subject_id"]) == ("cost_spike", f"workspace_month/{team.workspace_id}")
        assert (await api.put(budget, json={"cap_tokens": None})).status_code == 200
        assert (await when(api, mission, ended))["outcome"] == "merged"
        [audited] = [row for row in (await api.get("/api/v1/audit?action=budget.changed")).json()["data"]["items"]][-1:]
        assert audited["actor"] == "admin"


class TestApproval:
    async def test_an_answer_lets_the_mission_go_on(
        self, client: Caller, team: Team, repo: Repo, ports: InstantPorts
    ) -> None:
        filer, answerer = client(team.operator), client(team.admin)
        mission = await ready(filer, repo, requires_governance_approval=True)
        await say(filer, mission, "execute")
        await when(filer, mission, lambda found: found["stage"] == "governance")
        asked = await question(answerer, mission)
        body = {"decision": "approve", "explanation": "looks right"}
        await answerer.post(f"{asked['links']['self']}/resolve", json=body)
        assert (await when(filer, mission, ended))["outcome"] == "merged"
        found = (await answerer.get(asked["links"]["self"])).json()["data"]
        assert (found["status"], found["resolved_by"]) == ("approved", "admin")
        assert found["acknowledged_at"]


async def test_status_sees_the_worker(api: httpx2.AsyncClient, ports: InstantPorts) -> None:
    while True:
        found = (await api.get("/api/v1/status")).json()["data"]
        if found["overall_health"] == "healthy":
            break
        await asyncio.sleep(0.1)
    assert {part["state"] for part in found["subsystems"]} == {"healthy"}
