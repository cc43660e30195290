"""What agents see of questions to people where they look at what happened: those that they may read, and no others."""

import json
from typing import Any

import httpx2
import pytest

from models.contracts.pipeline import StageRef
from models.domain.principals import Kind
from models.domain.stages import StageName
from models.store.database import Database
from tests.fixtures.access import make_key
from tests.fixtures.agents import admitted, registered
from tests.fixtures.api import Caller, Team, add_agents
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, repo
from tests.fixtures.policies import let_answer, merge_verdict, put
from tests.fixtures.watching import Watch, tell, watching

__all__ = ["repo"]

NO = {"decision": "deny", "explanation": "private words"}


@pytest.fixture
def admin(client: Caller, team: Team) -> httpx2.AsyncClient:
    return client(team.admin)


async def asked(db: Database, team: Team, admin: httpx2.AsyncClient, repo: Repo, asker: str, **of_mission: Any) -> str:
    """Ask for a mission's merge; the decision's id."""
    mission = await filed(admin, repo, **of_mission)
    ref = StageRef(workspace_id=team.workspace_id, mission_id=mission["mission_id"], stage=StageName.GOVERNANCE)
    async with db.workspace(team.workspace_id) as session:
        return (await put(session, ref, merge_verdict(protected=True), asker=asker)).decision_id


async def until_told(watch: Watch, name: str) -> list[dict[str, Any]]:
    """What a stream brings before the report about `name`."""
    told: list[dict[str, Any]] = []
    while not told or told[-1]["subject"]["id"] != name:
        told += [json.loads(event.data) for event in await watch.take(1)]
    return told[:-1]


class TestStream:
    async def test_an_agents_own_are_in_it_and_others_are_not(
        self, address: str, admin: httpx2.AsyncClient, client: Caller, team: Team, repo: Repo, db: Database
    ) -> None:
        async def happens(end: str) -> list[str]:
            mine = await asked(db, team, admin, repo, "agent")
            assigned = await asked(db, team, admin, repo, "worker", assigned_to="agent")
            others = await asked(db, team, admin, repo, "worker")
            for name in (others, mine):
                answer = await client(team.operator).post(f"/api/v1/decisions/{name}/resolve", json=NO)
                assert answer.status_code == 200
            await tell(db, team.workspace_id, end)
            return [mine, assigned, mine]

        only = {"type": "decision.*,subsystem.report"}
        before = await happens("past")
        async with (
            watching(address, team.agent, after="0-0-0", **only) as agents,
            watching(address, team.observer, after="0-0-0", **only) as people,
        ):
            past, seen = await until_told(agents, "past"), await until_told(people, "past")
            after = await happens("now")
            now = await until_told(agents, "now")
        assert [event["subject"]["id"] for event in past] == before
        assert [event["subject"]["id"] for event in now] == after
        assert [event["data"]["explanation"] for event in past] == [None, None, "private words"]
        assert len(seen) == 5

    async def test_why_another_was_let_in_is_peoples(
        self, address: str, admin: httpx2.AsyncClient, client: Caller, team: Team, db: Database
    ) -> None:
        await admitted(admin, client, team)
        await tell(db, team.workspace_id, "end")
        only = {"type": "agent.approved,subsystem.report", "after": "0-0-0"}
        async with watching(address, team.agent, **only) as agents, watching(address, team.observer, **only) as people:
            [seen], [told] = await until_told(agents, "end"), await until_told(people, "end")
        assert told["data"] == {"name": "probe", "explanation": "known to us"}
        assert seen == told | {"data": {"name": "probe"}}


async def test_activity_of_others_shows_an_agent_no_questions(
    admin: httpx2.AsyncClient, client: Caller, team: Team, db: Database
) -> None:
    async with db.system() as session:
        await add_agents(session, team.workspace_id, "gatekeeper")
        keeper = client(await make_key(session, team.workspace_id, "gatekeeper", kind=Kind.AGENT))
    await let_answer(admin, "registration", "gatekeeper")
    made = await registered(client(None), team)
    name = f"{made['agent_id']}.registration"
    yes = {"decision": "approve", "explanation": "private words"}
    assert (await keeper.post(f"/api/v1/decisions/{name}/resolve", json=yes)).status_code == 200
    seen = {}
    for who, api in {"human": admin, "keeper": keeper, "agent": client(team.agent)}.items():
        items = (await api.get("/api/v1/activity?agent_id=gatekeeper")).json()["data"]["items"]
        seen[who] = {item["action"]: item["metadata"].get("explanation") for item in items}
    assert seen["human"]["decision.approved"] == seen["human"]["agent.approved"] == "private words"
    assert seen["keeper"]["decision.approved"] == "private words"
    assert "decision.approved" not in seen["agent"]
    assert seen["agent"]["agent.approved"] is None
