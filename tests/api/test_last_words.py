"""A run has its last words after the last that it paid, also where that was after the end of its mission."""

import httpx2
import pytest
from sqlalchemy import text

from models.store import runs
from models.store.database import Database
from tests.fixtures.budgets import clock_moved
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, repo

__all__ = ["repo"]


async def orphaned(db: Database, url: str, run_id: str, seconds: int) -> bool:
    """Whether it would be ended so long after now."""
    async with clock_moved(url, f"{seconds} seconds"), db.system() as session:
        return run_id in [row[1] for row in await runs.orphans(session, 100)]


async def test_counted_from_its_last_act(api: httpx2.AsyncClient, repo: Repo, db: Database, database_url: str) -> None:
    mission = (await filed(api, repo))["mission_id"]
    run_id = (await api.post("/api/v1/runs", json={"mission_id": mission})).json()["data"]["run_id"]
    place = f"/api/v1/runs/{run_id}/reservations"
    held = await api.post(place, json={"usd": "0.1"})
    assert held.is_success, held.text
    async with db.system() as session:
        ended = "UPDATE mission SET ended_at = mc_now() - interval '10 minutes' WHERE mission_id = :id"
        await session.execute(text(ended), {"id": mission})
    assert not await orphaned(db, database_url, run_id, 0), "it holds something yet"
    paid = await api.post(f"{place}/{held.json()['data']['cost_id']}/settle", json={"usd": "0.1"})
    assert paid.is_success, paid.text
    assert not await orphaned(db, database_url, run_id, 110)
    assert await orphaned(db, database_url, run_id, 130)


@pytest.mark.parametrize("of_mission", [False, True])
async def test_a_run_that_goes_on_is_nobodys_orphan(
    api: httpx2.AsyncClient, repo: Repo, db: Database, database_url: str, *, of_mission: bool
) -> None:
    """However long ago it paid last: an agent may think, build, or wait for an answer."""
    body = {"mission_id": (await filed(api, repo))["mission_id"]} if of_mission else {}
    run_id = (await api.post("/api/v1/runs", json=body)).json()["data"]["run_id"]
    place = f"/api/v1/runs/{run_id}/reservations"
    for over in ("settle", "release"):
        cost = (await api.post(place, json={"usd": "0.1"})).json()["data"]["cost_id"]
        done = await api.post(f"{place}/{cost}/{over}", json={"usd": "0.1"} if over == "settle" else {})
        assert done.is_success, done.text
    assert not await orphaned(db, database_url, run_id, 24 * 3600)
