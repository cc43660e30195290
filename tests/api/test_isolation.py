"""Another workspace's things are not found: by no route, in no list, under no name."""

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from activities.workbench.signing import ServiceKey
from models.store.database import Database
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo, make_repo
from tests.fixtures.missions import refusal, repo
from tests.fixtures.one_of_each import Theirs, calls, one_of_each, v1_routes
from tests.fixtures.stages import service_key

__all__ = ["repo", "service_key"]

HELD_BY_ALL = {
    f"/api/v1/{noun}"
    for noun in ("keys", "principals", "agents", "trust-scores", "policy/versions", "audit", "workspaces")
}
NOT_FOR_ADMINS = {"PUT /workspaces/{workspace_id}/default", "POST /agents/{agent}/heartbeat"}

SAME_FOR_ALL = {"pause", "run_tests"}
"""Words of paths that name no thing."""


@pytest.fixture
async def theirs(client: Caller, other_team: Team, db: Database, repo: Repo, service_key: ServiceKey) -> Theirs:
    """One of everything, in the other team's workspace."""
    return await one_of_each(client(other_team.admin), other_team, db, repo, service_key)


async def footprint(db: Database, workspace_id: str) -> dict[str, int]:
    """How many rows a workspace has, by table."""
    tables = ["mission", "candidate", "decision", "capa", "repository", "event", "metric_observation", "blob"]
    tables += ["principal", "agent", "api_key", "audit", "ledger", "memory_note"]
    async with db.workspace(workspace_id) as session:
        return {
            table: (await session.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()  # noqa: S608  # ours
            for table in tables
        }


async def test_every_route_says_404(client: Caller, team: Team, other_team: Team, theirs: Theirs, db: Database) -> None:
    before = await footprint(db, other_team.workspace_id)
    answers = await calls(client(team.admin), theirs.ids)
    assert len(answers) >= 18
    found = {name: answer for name, answer in answers.items() if answer.status_code != 404}
    assert set(found) == NOT_FOR_ADMINS
    assert {answer.status_code for answer in found.values()} == {403}
    assert all(answers[name].json()["error"]["code"].endswith("_not_found") for name in set(answers) - set(found))
    assert await footprint(db, other_team.workspace_id) == before
    assert (await footprint(db, team.workspace_id))["event"] == 0


async def test_the_refusal_is_that_of_a_name_that_exists_nowhere(client: Caller, team: Team, theirs: Theirs) -> None:
    """Whoever guesses ids learns by no word of an answer which of them exist elsewhere."""
    ours = client(team.admin)
    their = {name: str(value) for name, value in theirs.ids.items()}
    nowhere = {name: unlike(value) for name, value in their.items()}
    answers, none = await calls(ours, their), await calls(ours, nowhere)
    for route in set(answers) - NOT_FOR_ADMINS:
        found, missing = said(answers[route], their), said(none[route], nowhere)
        assert found == missing, route


def unlike(value: str) -> str:
    """Name what exists nowhere, in the same form."""
    if value in SAME_FOR_ALL:
        return value
    return f"{int(value) + 1_000_000}" if value.isdecimal() else value[:-6] + "000000"


def said(answer: httpx2.Response, ids: dict[str, str]) -> tuple[int, str, str]:
    """What an answer says, up to the names that were asked for."""
    error = answer.json()["error"]
    named = {value: name for name, value in ids.items() if value not in SAME_FOR_ALL}
    words = [named.get(word.strip("'"), word) for word in re.split(r"('[^']*'|\d+)", error["message"])]
    return answer.status_code, error["code"], "".join(words)


async def test_their_own_key_finds_them(client: Caller, other_team: Team, theirs: Theirs) -> None:
    """The walk above would prove nothing if its ids or bodies were wrong."""
    answers = await calls(client(other_team.admin), theirs.ids)
    assert [name for name, answer in answers.items() if answer.status_code in (404, 405, 422)] == []


async def test_no_list_shows_them(client: Caller, team: Team, other_team: Team, theirs: Theirs) -> None:
    plain = [f"/api/v1{route.path}" for route in v1_routes() if "limit" in route.query_names and "{" not in route.path]
    plain.remove("/api/v1/audit/checkpoints")  # the installation's: they say nothing of any workspace
    assert set(plain) >= {f"/api/v1/{noun}" for noun in ("missions", "decisions", "capa", "repositories")}
    plain.remove("/api/v1/budgets")  # the defaults are the same for all
    cap = {"scope": "ticket", "owner": "ticket", "name": "theirs", "cap_usd": "1", "cap_tokens": None}
    await client(other_team.admin).put("/api/v1/budgets", json=cap)
    for key, has in ((team.admin, False), (other_team.admin, True)):
        caps = (await client(key).get("/api/v1/budgets?limit=200")).json()["data"]["items"]
        assert ("theirs" in {each["name"] for each in caps}) is has
    for path in plain:
        ours, others = [(await client(key).get(path)).json()["data"]["items"] for key in (team.admin, other_team.admin)]
        assert others != [], path
        assert not [item for item in others if item in ours], path
        assert ours == [] or path in HELD_BY_ALL, path


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/capa", {"title": "t", "cause": "c", "severity": "low", "mission_id": "{mission_id}"}),
        ("/memory", {"kind": "code_fragment", "title": "t", "body": "b", "mission_id": "{mission_id}"}),
        ("/metrics/observations", {"metric_id": "p95", "value": 1, "mission_id": "{mission_id}"}),
        ("/missions", {"subsystem_id": "s", "severity": "low", "repository": "{repository}"}),
    ],
)
async def test_no_body_names_them(client: Caller, team: Team, theirs: Theirs, path: str, body: dict[str, Any]) -> None:
    named = {key: value.format(**theirs.ids) if isinstance(value, str) else value for key, value in body.items()}
    status, code = refusal(await client(team.admin).post(f"/api/v1{path}", json=named))
    assert (status, code.endswith("_not_found")) == (404, True)


async def test_a_mission_depends_on_its_own_workspaces(
    client: Caller, team: Team, theirs: Theirs, tmp_path: Path
) -> None:
    body = {"subsystem_id": "s", "severity": "low", "workspace_repo_path": str(make_repo(tmp_path / "ours").path)}
    answer = await client(team.admin).post("/api/v1/missions", json=body | {"dependencies": [theirs.ids["mission_id"]]})
    assert refusal(answer) == (404, "mission_not_found")


async def test_the_queue_gives_out_only_ones_own(client: Caller, team: Team, theirs: Theirs) -> None:
    answer = await client(team.admin).get("/api/v1/queue/next?agent_id=agent&agent_role=coding")
    assert answer.json()["data"] is None


async def test_counts_are_ones_own(client: Caller, team: Team, other_team: Team, theirs: Theirs) -> None:
    counts = [
        (await client(key).get("/api/v1/status")).json()["data"]["total_missions"]
        for key in (team.admin, other_team.admin)
    ]
    assert counts == [0, 1]


async def test_questions_are_counted_in_ones_own(client: Caller, team: Team, other_team: Team, theirs: Theirs) -> None:
    """Whoever asks: an agent, whose questions are counted by name, too."""
    for ours, others in ((team.admin, other_team.admin), (team.agent, other_team.agent)):
        mine, his = [
            (await client(key).get("/api/v1/decisions/counts")).json()["data"]["by_kind"] for key in (ours, others)
        ]
        assert (mine, his) == ({}, {"governance": 1})


async def test_an_idempotency_key_is_ones_own(client: Caller, team: Team, other_team: Team) -> None:
    headers = {"Idempotency-Key": "the-same"}
    body = {"subsystem_id": "s", "severity": "low", "repository": "app"}
    answers = []
    for one in (team, other_team):
        place = {"url": f"https://example.com/{one.workspace_id}", "name": "app"}
        await client(one.admin).post("/api/v1/repositories", json=place)
        answers.append(await client(one.admin).post("/api/v1/missions", json=body, headers=headers))
    assert [answer.status_code for answer in answers] == [201, 201]
    assert "idempotency-replayed" not in answers[1].headers
