"""Answering what waits for a human: once, in time, by somebody else, and without Temporal."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from models.contracts.pipeline import StageRef
from models.domain.stages import StageName
from models.store import governance
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo
from tests.fixtures.policies import merge_verdict, put

__all__ = ["repo"]

Ask = Callable[..., Awaitable[str]]
YES = {"decision": "approve", "explanation": "read the diff, tests are green"}
NO = {"decision": "deny", "explanation": "not today"}
VERDICT = merge_verdict(protected=True, facts={"requires_governance_approval": True, "overrides": ("test",)})


@pytest.fixture
async def ask(api: httpx2.AsyncClient, repo: Repo, db: Database, team: Team) -> Ask:
    """Ask for a merge as the pipeline does; the decision's id."""

    async def ask_for(
        expires_in: timedelta | None = timedelta(hours=1),
        requested_by: str = "worker",
        terms: dict[str, Any] | None = None,
        **of_mission: Any,
    ) -> str:
        mission = await filed(api, repo, **of_mission)
        ref = StageRef(workspace_id=team.workspace_id, mission_id=mission["mission_id"], stage=StageName.GOVERNANCE)
        question = {"diff": "sha256:" + "d" * 64, "overrides": {"test": "true"}}
        async with db.workspace(team.workspace_id) as session:
            decision = await put(
                session, ref, VERDICT, question, expires_in=expires_in, asker=requested_by, **(terms or {})
            )
        return decision.decision_id

    return ask_for


def of(decision: str, verb: str = "") -> str:
    return f"/api/v1/decisions/{decision}{verb}"


class TestShow:
    async def test_shows_what_an_answer_binds(self, api: httpx2.AsyncClient, ask: Ask) -> None:
        name = await ask()
        found = (await api.get(of(name))).json()["data"]
        assert (found["status"], found["risk"], found["kind"]) == ("pending", "RED", "governance")
        assert "the branch is protected" in found["reasons"]
        assert found["question"]["overrides"] == {"test": "true"}
        assert found["binding"]["patch_id"] == "p"
        assert found["cost_so_far"] == {"usd": 0.0, "tokens": 0}
        assert found["expires_at"]
        assert (await api.get(found["links"]["mission"])).json()["data"]["mission_id"] == found["mission_id"]

    async def test_the_inbox(self, api: httpx2.AsyncClient, ask: Ask) -> None:
        first, second = await ask(), await ask()
        await api.post(of(first, "/resolve"), json=NO)
        pending = (await api.get("/api/v1/decisions?status=pending")).json()["data"]["items"]
        assert [decision["decision_id"] for decision in pending] == [second]
        mission = pending[0]["mission_id"]
        narrowed = (await api.get(f"/api/v1/decisions?mission_id={mission}&kind=governance")).json()["data"]["items"]
        assert len(narrowed) == 1

    async def test_an_agent_sees_what_concerns_it(self, client: Caller, team: Team, ask: Ask) -> None:
        mine, assigned, others = await ask(requested_by="agent"), await ask(assigned_to="agent"), await ask()
        agent = client(team.agent)
        listed = (await agent.get("/api/v1/decisions")).json()["data"]["items"]
        assert [decision["decision_id"] for decision in listed] == [assigned, mine]
        assert (await agent.get(of(assigned))).status_code == 200
        assert refusal(await agent.get(of(others))) == (404, "decision_not_found")
        assert refusal(await agent.post(of(mine, "/resolve"), json=YES)) == (403, "not_permitted")


class TestResolve:
    @pytest.mark.parametrize(("answer", "status"), [(YES, "approved"), (NO, "denied")])
    async def test_stands_while_temporal_is_away(
        self, api: httpx2.AsyncClient, ask: Ask, db: Database, team: Team, answer: dict[str, str], status: str
    ) -> None:
        name = await ask()
        given = await api.post(of(name, "/resolve"), json=answer)
        assert given.status_code == 200
        found = (await api.get(of(name))).json()["data"]
        assert (found["status"], found["resolved_by"], found["explanation"]) == (
            status,
            "admin",
            answer["explanation"],
        )
        assert found["acknowledged_at"] is None, "the reconciler still has to tell the mission"
        async with db.workspace(team.workspace_id) as session:
            told = await session.execute(
                text("SELECT actor FROM event WHERE type = :type AND subject_id = :id"),
                {"type": f"decision.{status}", "id": name},
            )
            assert told.scalars().all() == ["admin"]

    async def test_the_second_learns_who_was_first(self, client: Caller, team: Team, ask: Ask) -> None:
        name = await ask()
        await client(team.operator).post(of(name, "/resolve"), json=NO)
        late = await client(team.admin).post(of(name, "/resolve"), json=YES)
        assert refusal(late) == (409, "already_resolved")
        assert late.json()["error"]["details"]["resolved_by"] == "operator"
        assert "operator" in late.json()["error"]["message"]

    async def test_of_many_at_once_one_is_first(self, client: Caller, team: Team, ask: Ask) -> None:
        name = await ask()
        keys = [team.admin, team.operator] * 5
        answers = await asyncio.gather(*(client(key).post(of(name, "/resolve"), json=YES) for key in keys))
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9

    async def test_not_after_its_time(self, api: httpx2.AsyncClient, ask: Ask) -> None:
        name = await ask(expires_in=timedelta(microseconds=1))
        assert refusal(await api.post(of(name, "/resolve"), json=YES)) == (409, "decision_expired")

    async def test_not_once_it_is_withdrawn(self, api: httpx2.AsyncClient, ask: Ask, db: Database, team: Team) -> None:
        name = await ask()
        async with db.workspace(team.workspace_id) as session:
            await governance.withdraw(session, team.workspace_id, name, Actor("worker", "test"))
        assert refusal(await api.post(of(name, "/resolve"), json=YES)) == (409, "decision_canceled")

    async def test_not_by_who_asked(self, client: Caller, team: Team, ask: Ask) -> None:
        name = await ask(requested_by="operator")
        assert refusal(await client(team.operator).post(of(name, "/resolve"), json=YES)) == (403, "own_decision")
        assert (await client(team.admin).post(of(name, "/resolve"), json=YES)).status_code == 200

    @pytest.mark.parametrize(
        "body",
        [
            {"decision": "approve"},
            {"decision": "approve", "explanation": ""},
            {"decision": "approve", "explanation": "x" * 2001},
            {"decision": "maybe", "explanation": "x"},
        ],
    )
    async def test_an_answer_says_why(self, api: httpx2.AsyncClient, ask: Ask, body: dict[str, Any]) -> None:
        name = await ask()
        assert (await api.post(of(name, "/resolve"), json=body)).status_code == 422
        assert (await api.get(of(name))).json()["data"]["status"] == "pending"

    async def test_a_repetition_is_answered_the_same(self, api: httpx2.AsyncClient, ask: Ask) -> None:
        name = await ask()
        headers = {"Idempotency-Key": "resolve-1"}
        first, second = [await api.post(of(name, "/resolve"), json=YES, headers=headers) for _ in range(2)]
        assert (first.status_code, first.json()) == (second.status_code, second.json())

    async def test_unknown_is_404(self, api: httpx2.AsyncClient) -> None:
        assert refusal(await api.post(of("lost", "/resolve"), json=YES)) == (404, "decision_not_found")
