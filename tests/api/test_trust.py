"""Trust: shown, earned by missions, and asked for before a mission is given or started (POL-12..16)."""

from decimal import Decimal

import pytest
from sqlalchemy import text

from models.domain.principals import Kind
from models.domain.states import MissionOutcome
from models.store import missions, trust
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.access import make_key
from tests.fixtures.api import Caller, Team, add_agents
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import DIFF, filed, refusal, repo
from tests.fixtures.policies import put_to_several

__all__ = ["repo"]

API = "/api/v1"
WORKER = Actor("worker", "request-1")


@pytest.fixture(autouse=True)
async def _agents(db: Database, team: Team) -> None:
    async with db.system() as session:
        await add_agents(session, team.workspace_id, "a1", "a2")


async def set_score(db: Database, team: Team, name: str, score: str) -> None:
    async with db.workspace(team.workspace_id) as session:
        values = {"score": Decimal(score), "name": name}
        await session.execute(text("UPDATE agent SET trust = :score WHERE name = :name"), values)


async def end(db: Database, team: Team, mission_id: str, outcome: MissionOutcome) -> None:
    async with db.workspace(team.workspace_id) as session:
        mission = await missions.require(session, team.workspace_id, mission_id)
        await trust.learn(session, mission, outcome, WORKER)


class TestScores:
    async def test_every_agent_begins_with_a_half(self, client: Caller, team: Team) -> None:
        shown = (await client(team.observer).get(f"{API}/trust-scores")).json()["data"]["items"]
        assert sorted((score["name"], score["score"]) for score in shown) == [("a1", 0.5), ("a2", 0.5), ("agent", 0.5)]
        one = (await client(team.observer).get(f"{API}/trust-scores/a1")).json()["data"]
        assert (one["name"], one["score"]) == ("a1", 0.5)
        assert refusal(await client(team.observer).get(f"{API}/trust-scores/nobody")) == (404, "agent_not_found")

    async def test_a_mission_moves_it_once_and_says_why(
        self, client: Caller, team: Team, db: Database, repo: Repo
    ) -> None:
        api = client(team.operator)
        first, second = [(await filed(api, repo, assigned_to="a1"))["mission_id"] for _ in range(2)]
        for _ in range(2):
            await end(db, team, first, MissionOutcome.MERGED)
        await end(db, team, second, MissionOutcome.ROLLED_BACK)
        changes = (await api.get(f"{API}/trust-scores/a1/changes")).json()["data"]["items"]
        assert [(one["mission_id"], one["outcome"], one["before"], one["after"]) for one in changes] == [
            (second, "rolled_back", 0.52, 0.32),
            (first, "merged", 0.5, 0.52),
        ]
        assert (await api.get(f"{API}/trust-scores/a1")).json()["data"]["score"] == 0.32
        assert (await api.get(f"{API}/trust-scores/a2")).json()["data"]["score"] == 0.5

    async def test_what_was_canceled_or_nobodys_moves_nothing(
        self, client: Caller, team: Team, db: Database, repo: Repo
    ) -> None:
        api = client(team.operator)
        await end(db, team, (await filed(api, repo, assigned_to="a1"))["mission_id"], MissionOutcome.CANCELED)
        await end(db, team, (await filed(api, repo))["mission_id"], MissionOutcome.MERGED)
        scores = (await api.get(f"{API}/trust-scores")).json()["data"]["items"]
        assert {score["score"] for score in scores} == {0.5}

    @pytest.mark.parametrize(("approved", "score"), [(False, 0.5), (True, 0.52)])
    async def test_nobody_earns_by_merging_what_they_filed_for_themselves(
        self, client: Caller, team: Team, db: Database, repo: Repo, approved: bool, score: float
    ) -> None:
        async with db.system() as session:
            agent = client(await make_key(session, team.workspace_id, "a1", kind=Kind.AGENT))
        await filed(client(team.operator), repo)  # which registers the repository
        mission = (await filed(agent, repo, assigned_to="a1"))["mission_id"]
        if approved:
            decision = await put_to_several(db, team.workspace_id, mission, 1)
            body = {"decision": "approve", "explanation": "looked at it"}
            answer = await client(team.operator).post(f"{API}/decisions/{decision}/resolve", json=body)
            assert answer.status_code == 200, answer.text
        await end(db, team, mission, MissionOutcome.MERGED)
        assert (await agent.get(f"{API}/trust-scores/a1")).json()["data"]["score"] == score
        await end(db, team, (await filed(agent, repo, assigned_to="a1"))["mission_id"], MissionOutcome.FAILED)
        shown = (await agent.get(f"{API}/trust-scores/a1")).json()["data"]["score"]
        assert shown == pytest.approx(score - 0.1), "and loses as everybody"

    @pytest.mark.parametrize("outcome", [MissionOutcome.MERGED, MissionOutcome.FAILED, MissionOutcome.ROLLED_BACK])
    async def test_what_another_agent_filed_moves_nothing(
        self, client: Caller, team: Team, db: Database, repo: Repo, outcome: MissionOutcome
    ) -> None:
        async with db.system() as session:
            other = client(await make_key(session, team.workspace_id, "a2", kind=Kind.AGENT))
        people = client(team.operator)
        await filed(people, repo)  # which registers the repository
        mission = (await filed(other, repo, assigned_to="a1"))["mission_id"]
        await end(db, team, mission, outcome)
        assert (await other.get(f"{API}/trust-scores/a1")).json()["data"]["score"] == 0.5

    async def test_the_app_cannot_rewrite_history(self, db: Database, team: Team) -> None:
        with pytest.raises(Exception, match="permission denied"):
            async with db.workspace(team.workspace_id) as session:
                await session.execute(text("DELETE FROM trust_change"))


class TestGates:
    @pytest.mark.parametrize(("score", "given"), [("0.79", False), ("0.80", True)])
    async def test_the_queue_gives_what_the_score_allows(
        self, client: Caller, team: Team, db: Database, repo: Repo, score: str, given: bool
    ) -> None:
        mission = await filed(client(team.operator), repo, trust_requirements={"required_trust_score": 0.8})
        await set_score(db, team, "a1", score)
        answer = await client(team.operator).get(f"{API}/queue/next", params={"agent_id": "a1", "agent_role": "coding"})
        if given:
            assert answer.json()["data"]["mission_id"] == mission["mission_id"]
        else:
            assert refusal(answer) == (403, "trust_too_low")

    @pytest.mark.parametrize(
        ("needs", "code"),
        [
            ({"required_trust_score": 0.51}, "trust_too_low"),
            ({"allowed_roles": ["elite_coding_agent"]}, "role_not_allowed"),
        ],
    )
    async def test_an_agent_that_is_not_let_in_neither_starts_nor_adds(
        self, client: Caller, team: Team, repo: Repo, needs: dict[str, object], code: str
    ) -> None:
        mission = await filed(
            client(team.operator),
            repo,
            assigned_to="agent",
            trust_requirements=needs,
            patch_candidates=[{"diff": DIFF}],
        )
        agent = client(team.agent)
        for verb, body in (("execute", {"mission_type": "coding"}), ("candidates", {"ref": "topic"})):
            answer = await agent.post(f"{mission['links']['self']}/{verb}", json=body)
            assert refusal(answer) == (403, code)
