"""Who is removed or lowered while the last of several answers: a question closes with those who count, or stays."""

import asyncio

import httpx2
import psycopg
import pytest

from models.store.connections import plain
from models.store.database import Database
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, repo
from tests.fixtures.policies import put_to_several
from tests.fixtures.waiting import eventually, somebody_waits

__all__ = ["repo"]

YES = {"decision": "approve", "explanation": "read it"}
LESS = {"removed": b"deactivated_at = mc_now()", "lowered": b"role = 'observer'"}


@pytest.fixture
async def place(client: Caller, team: Team, repo: Repo, db: Database) -> str:
    """A question that takes two people."""
    mission = await filed(client(team.admin), repo)
    name = await put_to_several(db, team.workspace_id, mission["mission_id"], 2)
    return f"/api/v1/decisions/{name}"


@pytest.mark.parametrize("change", LESS)
@pytest.mark.parametrize("who", ["operator", "second"])
async def test_an_answer_waits_for_who_is_removed_or_lowered(
    client: Caller, team: Team, place: str, database_url: str, who: str, change: str
) -> None:
    admin = client(team.admin)
    key = await admin.post("/api/v1/keys", json={"principal": "second", "role": "operator"})
    assert (await client(team.operator).post(f"{place}/resolve", json=YES)).json()["data"]["status"] == "pending"
    second = client(key.json()["data"]["secret"])
    async with await psycopg.AsyncConnection.connect(plain(database_url)) as changing:
        less = b"UPDATE principal SET %b WHERE workspace_id = %%s AND name = %%s" % LESS[change]
        await changing.execute(less, (team.workspace_id, who))
        answering = asyncio.create_task(second.post(f"{place}/resolve", json=YES))
        await eventually(lambda: somebody_waits(changing))
    answer: httpx2.Response = await answering
    shown = (await admin.get(place)).json()["data"]
    counted = [each["principal"] for each in shown["answers"] if each["counts"]]
    assert (answer.status_code, shown["status"]) == (403 if who == "second" else 200, "pending")
    assert counted == (["operator"] if who == "second" else ["second"])
