"""Another workspace's things are not found: by no route, in no list, under no name."""

from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from activities.workbench.signing import ServiceKey
from api.registry import VERSIONS
from api.routing import Route
from models.contracts.pipeline import StageRef
from models.domain.canonical import sha256_digest
from models.domain.stages import StageName
from models.store.database import Database
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import DIFF, filed, refusal, repo
from tests.fixtures.policies import SOURCE, judged, merge_verdict, put
from tests.fixtures.stages import Recorder, service_key

__all__ = ["repo", "service_key"]

BODIES: dict[str, dict[str, Any] | None] = {
    "/missions/{mission_id}/execute": {"mission_type": "coding"},
    "/missions/{mission_id}/pause": {},
    "/missions/{mission_id}/resume": {},
    "/missions/{mission_id}/inject": {"text": "hello"},
    "/missions/{mission_id}/cancel": {},
    "/missions/{mission_id}/retry": {},
    "/missions/{mission_id}/candidates": {"ref": "topic"},
    "/decisions/{decision_id}/resolve": {"decision": "approve", "explanation": "mine"},
    "/capa/{capa_id}": {"status": "closed"},
    "/keys/{key_id}/rotate": {},
    "/keys/{key_id}": None,
    "/policy/versions/{version}/activate": {},
    "/runs/{run_id}": {"status": "success"},
    "/runs/{run_id}/end": {"status": "success"},
    "/runs/{run_id}/costs": {"tokens_in": 1},
    "/runs/{run_id}/reservations": {"tokens_in": 1},
    "/runs/{run_id}/reservations/{cost_id}/settle": {"tokens_in": 1},
    "/runs/{run_id}/reservations/{cost_id}/release": {},
    "/runs/{run_id}/adjustments": {"usd": "1", "reason": "mine"},
    "/runs/{run_id}/tool-calls": {"tool": "grep"},
}
"""A good body for every changing route that names a thing."""


@dataclass(frozen=True)
class Theirs:
    """What the other team has, by the names of path parameters."""

    ids: dict[str, str]
    mission: dict[str, Any]


@pytest.fixture
async def theirs(client: Caller, other_team: Team, db: Database, repo: Repo, service_key: ServiceKey) -> Theirs:
    """One of everything, in the other team's workspace."""
    api, workspace = client(other_team.admin), other_team.workspace_id
    mission = await filed(api, repo, patch_candidates=[{"diff": DIFF}])
    recorder = Recorder(db, workspace, service_key)
    record = await recorder.begin(mission["mission_id"], StageName.RUN_TESTS)
    await recorder.end(record, log=b"their log\n")
    ref = StageRef(workspace_id=workspace, mission_id=mission["mission_id"], stage=StageName.GOVERNANCE)
    async with db.workspace(workspace) as session:
        decision = await put(session, ref, merge_verdict(protected=True))
    capa = await api.post("/api/v1/capa", json={"title": "t", "cause": "c", "severity": "low"})
    key = await api.post("/api/v1/keys", json={"principal": "probe", "kind": "agent"})
    await judged(db, workspace)
    law = await api.post("/api/v1/policy/versions", json={"source": SOURCE})
    await api.post("/api/v1/metrics/observations", json={"metric_id": "p95", "value": 1})
    run = (await api.post("/api/v1/runs", json={"agent_id": "bot"})).json()["data"]["run_id"]
    cost = await api.post(f"/api/v1/runs/{run}/costs", json={"usd": "0.01"})
    ids = {
        "run_id": run,
        "cost_id": cost.json()["data"]["cost_id"],
        "mission_id": mission["mission_id"],
        "repository": mission["repository_id"],
        "decision_id": decision.decision_id,
        "capa_id": capa.json()["data"]["capa_id"],
        "key_id": key.json()["data"]["key_id"],
        "version": str(law.json()["data"]["version"]),
        "stage": "run_tests",
        "digest": sha256_digest(DIFF.encode()),
    }
    return Theirs(ids, mission)


def v1_routes() -> list[Route]:
    """Every route of the first version; paths are relative to it."""
    return [route for routes in VERSIONS["v1"] for route in routes.routes if isinstance(route, Route)]


async def calls(api: httpx2.AsyncClient, ids: dict[str, str]) -> dict[str, httpx2.Response]:
    """Call every route that names a thing, with these ids."""
    answers = {}
    for route in v1_routes():
        for method in (route.methods or ()) if "{" in route.path else ():
            body = BODIES[route.path] if method != "GET" else None
            answers[f"{method} {route.path}"] = await api.request(
                method, f"/api/v1{route.path.format(**ids)}", json=body
            )
    return answers


async def footprint(db: Database, workspace_id: str) -> dict[str, int]:
    """How many rows a workspace has, by table."""
    tables = ("mission", "candidate", "decision", "capa", "repository", "event", "metric_observation", "blob", "ledger")
    async with db.workspace(workspace_id) as session:
        return {
            table: (await session.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()  # noqa: S608  # ours
            for table in tables
        }


async def test_every_route_says_404(client: Caller, team: Team, other_team: Team, theirs: Theirs, db: Database) -> None:
    before = await footprint(db, other_team.workspace_id)
    answers = await calls(client(team.admin), theirs.ids)
    assert len(answers) >= 18
    assert {name: answer.status_code for name, answer in answers.items() if answer.status_code != 404} == {}
    assert all(answer.json()["error"]["code"].endswith("_not_found") for answer in answers.values())
    assert await footprint(db, other_team.workspace_id) == before
    assert (await footprint(db, team.workspace_id))["event"] == 0


async def test_their_own_key_finds_them(client: Caller, other_team: Team, theirs: Theirs) -> None:
    """The walk above would prove nothing if its ids or bodies were wrong."""
    answers = await calls(client(other_team.admin), theirs.ids)
    assert [name for name, answer in answers.items() if answer.status_code in (404, 405, 422)] == []


async def test_no_list_shows_them(client: Caller, team: Team, other_team: Team, theirs: Theirs) -> None:
    plain = [f"/api/v1{route.path}" for route in v1_routes() if "limit" in route.query_names and "{" not in route.path]
    assert set(plain) >= {f"/api/v1/{noun}" for noun in ("missions", "decisions", "capa", "repositories")}
    for path in plain:
        ours, others = [(await client(key).get(path)).json()["data"]["items"] for key in (team.admin, other_team.admin)]
        assert others != [], path
        assert not [item for item in others if item in ours], path
        assert ours == [] or path in ("/api/v1/keys", "/api/v1/policy/versions"), path


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/capa", {"title": "t", "cause": "c", "severity": "low", "mission_id": "{mission_id}"}),
        ("/metrics/observations", {"metric_id": "p95", "value": 1, "mission_id": "{mission_id}"}),
        ("/missions", {"subsystem_id": "s", "severity": "low", "repository": "{repository}"}),
    ],
)
async def test_no_body_names_them(client: Caller, team: Team, theirs: Theirs, path: str, body: dict[str, Any]) -> None:
    named = {key: value.format(**theirs.ids) if isinstance(value, str) else value for key, value in body.items()}
    status, code = refusal(await client(team.admin).post(f"/api/v1{path}", json=named))
    assert (status, code.endswith("_not_found")) == (404, True)


async def test_a_mission_depends_on_its_own_workspaces(client: Caller, team: Team, theirs: Theirs, repo: Repo) -> None:
    body = {"subsystem_id": "s", "severity": "low", "workspace_repo_path": str(repo.path)}
    answer = await client(team.admin).post("/api/v1/missions", json=body | {"dependencies": [theirs.ids["mission_id"]]})
    assert refusal(answer) == (404, "mission_not_found")


async def test_the_queue_gives_out_only_ones_own(client: Caller, team: Team, theirs: Theirs) -> None:
    answer = await client(team.admin).get("/api/v1/queue/next?agent_id=a&agent_role=coding")
    assert answer.json()["data"] is None


async def test_counts_are_ones_own(client: Caller, team: Team, other_team: Team, theirs: Theirs) -> None:
    counts = [
        (await client(key).get("/api/v1/status")).json()["data"]["total_missions"]
        for key in (team.admin, other_team.admin)
    ]
    assert counts == [0, 1]


async def test_an_idempotency_key_is_ones_own(client: Caller, team: Team, other_team: Team, repo: Repo) -> None:
    headers = {"Idempotency-Key": "the-same"}
    body = {"subsystem_id": "s", "severity": "low", "workspace_repo_path": str(repo.path)}
    answers = [
        await client(key).post("/api/v1/missions", json=body, headers=headers) for key in (team.admin, other_team.admin)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert "idempotency-replayed" not in answers[1].headers
