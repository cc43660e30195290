"""The system actor blocks and asks, and never calls anything done: held where states are written (POL-21)."""

import httpx2
import psycopg
import pytest

from models.contracts.pipeline import Conclusion, StageRef
from models.domain.budgets import RunStatus
from models.domain.errors import NotPermitted
from models.domain.stages import StageName
from models.domain.states import MissionOutcome
from models.store import running, runs
from models.store.connections import plain
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, repo

__all__ = ["repo"]

SYSTEM = ("policy", "reconciler", "first-start")
RUNS = "/api/v1/runs"


async def started(api: httpx2.AsyncClient) -> str:
    run_id: str = (await api.post(RUNS, json={})).json()["data"]["run_id"]
    return run_id


async def end(db: Database, team: Team, run_id: str, status: RunStatus, name: str) -> None:
    async with db.workspace(team.workspace_id) as session:
        await runs.end(session, team.workspace_id, run_id, status, None, Actor(name, "a test"))


async def conclude(db: Database, team: Team, mission_id: str, outcome: MissionOutcome, closer: str) -> bool:
    ref = StageRef(workspace_id=team.workspace_id, mission_id=mission_id, stage=StageName.RESOLVE)
    async with db.workspace(team.workspace_id) as session:
        return await running.conclude(session, Conclusion(ref=ref, outcome=outcome, reason="", capa=False), closer)


@pytest.mark.parametrize("name", SYSTEM)
async def test_a_run_is_blocked_and_never_successful(
    api: httpx2.AsyncClient, db: Database, team: Team, name: str
) -> None:
    run_id = await started(api)
    with pytest.raises(NotPermitted, match="may not set success"):
        await end(db, team, run_id, RunStatus.SUCCESS, name)
    assert (await api.get(f"{RUNS}/{run_id}")).json()["data"]["status"] is None
    await end(db, team, run_id, RunStatus.BLOCKED, name)
    assert (await api.get(f"{RUNS}/{run_id}")).json()["data"]["status"] == "blocked"


@pytest.mark.parametrize("name", SYSTEM)
async def test_a_mission_is_escalated_and_never_resolved(
    api: httpx2.AsyncClient, db: Database, team: Team, repo: Repo, database_url: str, name: str
) -> None:
    mission_id = (await filed(api, repo))["mission_id"]
    with psycopg.connect(plain(database_url), autocommit=True) as owner:
        owner.execute("UPDATE mission SET status = 'observing' WHERE workspace_id = %s", (team.workspace_id,))
    with pytest.raises(NotPermitted, match="may not set resolved"):
        await conclude(db, team, mission_id, MissionOutcome.MERGED, name)
    assert (await api.get(f"/api/v1/missions/{mission_id}")).json()["data"]["status"] == "observing"
    assert await conclude(db, team, mission_id, MissionOutcome.TERMINATED, name)
    assert (await api.get(f"/api/v1/missions/{mission_id}")).json()["data"]["status"] == "escalated"


async def test_the_policy_asks_and_somebody_else_approves(
    client: Caller, team: Team, api: httpx2.AsyncClient, db: Database
) -> None:
    run_id = await started(client(team.agent))
    call = await client(team.agent).post(f"{RUNS}/{run_id}/tool-calls", json={"tool": "shell"})
    place = f"/api/v1/decisions/{call.json()['data']['decision_id']}"
    assert (await api.get(place)).json()["data"]["status"] == "pending"
    rows = (await api.get(f"/api/v1/audit?actor=policy&subject={place.rpartition('/')[2]}")).json()["data"]["items"]
    assert [(row["action"], row["actor_kind"]) for row in rows] == [("decision.requested", "system")]
    answered = await api.post(f"{place}/resolve", json={"decision": "approve", "explanation": "go"})
    assert answered.json()["data"]["resolved_by"] == "admin"


@pytest.mark.parametrize("name", ["worker", "reconciler", "policy", "first-start", "system"])
async def test_nobody_gets_a_key_under_such_a_name(api: httpx2.AsyncClient, name: str) -> None:
    for path, body in (
        ("/keys", {"principal": name, "role": "operator"}),
        ("/principals", {"name": name, "role": "operator"}),
        ("/agents", {"name": name, "endpoint": "https://example.org"}),
    ):
        assert (await api.post(f"/api/v1{path}", json=body)).status_code == 422, path
