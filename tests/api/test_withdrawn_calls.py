"""Tool calls of runs and missions that have ended: nobody is asked about them, and none is made any more."""

from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from models.store.database import Database
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo
from tests.fixtures.tool_calls import RUNS, YES, agent, answer, call, end, now

__all__ = ["agent", "repo"]

CLOSE = """
    UPDATE mission SET ended_at = mc_now(), status = 'escalated', outcome = :outcome WHERE mission_id = :mission
"""
GONE = "denied: its mission has ended, and nobody had told that it was made"


@pytest.fixture
async def mission(api: httpx2.AsyncClient, repo: Repo) -> str:
    """A mission of the agent's."""
    name: str = (await filed(api, repo, assigned_to="agent"))["mission_id"]
    return name


@pytest.fixture
async def run(agent: httpx2.AsyncClient, mission: str) -> str:
    """The address of a run for it."""
    return f"{RUNS}/{(await agent.post(RUNS, json={'mission_id': mission})).json()['data']['run_id']}"


async def close(db: Database, team: Team, mission: str, outcome: str = "canceled") -> None:
    """End the mission, as a workflow that has yet to withdraw its questions."""
    async with db.workspace(team.workspace_id) as session:
        await session.execute(text(CLOSE), {"mission": mission, "outcome": outcome})


async def listed(api: httpx2.AsyncClient, run: str) -> list[Any]:
    return [(row["status"], row["reason"]) for row in (await api.get(f"{run}/tool-calls")).json()["data"]["items"]]


@pytest.mark.parametrize("outcome", ["canceled", "failed", "merged", "terminated"])
async def test_what_was_approved_is_not_to_be_made_once_its_mission_has_ended(
    agent: httpx2.AsyncClient, client: Caller, db: Database, team: Team, mission: str, run: str, outcome: str
) -> None:
    asked, free = await call(agent, run, "email"), await call(agent, run, "read_db")
    assert (await answer(client(team.operator), asked, YES)).status_code == 200
    assert [(await now(agent, run, made))["status"] for made in (asked, free)] == ["allowed", "allowed"]
    await close(db, team, mission, outcome)
    for made in (asked, free):
        late = await now(agent, run, made)
        assert (late["status"], late["reason"], late["ended_at"]) == ("denied", GONE, None)
    assert await listed(agent, run) == [("denied", GONE)] * 2


async def test_what_was_made_before_its_mission_ended_is_told_of_all_the_same(
    agent: httpx2.AsyncClient, db: Database, team: Team, mission: str, run: str
) -> None:
    made, before = await call(agent, run, "read_db"), await call(agent, run, "read_db", duration_ms=1)
    await close(db, team, mission)
    assert (await end(agent, run, made, duration_ms=5)).json()["data"]["status"] == "success"
    assert await listed(agent, run) == [("success", None)] * 2
    assert (await now(agent, run, before))["status"] == "success"


async def test_a_question_of_an_ended_mission_is_not_approved(
    agent: httpx2.AsyncClient, client: Caller, db: Database, team: Team, mission: str, run: str
) -> None:
    asked = await call(agent, run, "email")
    await close(db, team, mission)
    assert (await now(agent, run, asked))["reason"] == "denied: its mission ended before anybody answered"
    assert refusal(await end(agent, run, asked)) == (409, "tool_call_denied")
    assert refusal(await answer(client(team.operator), asked, YES)) == (409, "decision_canceled")
    assert (await now(agent, run, asked))["status"] == "denied"


async def test_what_was_approved_is_not_to_be_made_once_its_run_has_ended(
    agent: httpx2.AsyncClient, client: Caller, team: Team, run: str
) -> None:
    asked, free, told = [await call(agent, run, tool) for tool in ("email", "read_db", "read_db")]
    assert (await answer(client(team.operator), asked, YES)).status_code == 200
    await end(agent, run, told)
    assert (await agent.post(f"{run}/end", json={"status": "success"})).status_code == 200
    gone = "denied: its run has ended, and nobody had told that it was made"
    assert await listed(agent, run) == [("denied", gone)] * 2 + [("success", None)]
    assert refusal(await end(agent, run, free)) == (409, "run_ended")


async def test_a_question_that_the_end_of_its_run_has_left_is_not_approved(
    agent: httpx2.AsyncClient, client: Caller, db: Database, team: Team, run: str
) -> None:
    """It was being answered as the run ended."""
    asked = await call(agent, run, "email")
    async with db.workspace(team.workspace_id) as session:
        await session.execute(
            text("UPDATE run SET status = 'failed', ended_at = mc_now() WHERE run_id = :run"),
            {"run": run.rpartition("/")[2]},
        )
    assert refusal(await answer(client(team.operator), asked, YES)) == (409, "decision_canceled")
    assert (await now(agent, run, asked))["status"] == "denied"
