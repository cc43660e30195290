"""Answering what waits for a human: once, in time, by somebody else, and without Temporal."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from models.contracts.pipeline import StageRef
from models.domain.principals import Role
from models.domain.stages import StageName
from models.store import governance
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.access import make_key
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
        facts: dict[str, Any] | None = None,
        *,
        protected: bool = False,
        **of_mission: Any,
    ) -> str:
        mission = await filed(api, repo, **of_mission)
        verdict = merge_verdict(protected=protected, facts=facts or {}) if facts or protected else VERDICT
        ref = StageRef(workspace_id=team.workspace_id, mission_id=mission["mission_id"], stage=StageName.GOVERNANCE)
        question = {"diff": "sha256:" + "d" * 64, "overrides": {"test": "true"}}
        async with db.workspace(team.workspace_id) as session:
            decision = await put(
                session, ref, verdict, question, expires_in=expires_in, asker=requested_by, **(terms or {})
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
        assert found["cost_so_far"] == {"usd": "0", "tokens": 0}
        assert found["expires_at"]
        assert (await api.get(found["links"]["mission"])).json()["data"]["mission_id"] == found["mission_id"]

    async def test_the_inbox(self, api: httpx2.AsyncClient, ask: Ask) -> None:
        first, second = await ask(), await ask()
        await api.post(of(first, "/resolve"), json=NO)
        pending = (await api.get("/api/v1/decisions?status=pending")).json()["data"]["items"]
        assert [decision["decision_id"] for decision in pending] == [second]
        mission = pending[0]["mission_id"]
        assert refusal(await api.get("/api/v1/decisions?kind=nonsense")) == (422, "invalid_input")
        narrowed = (await api.get(f"/api/v1/decisions?mission_id={mission}&kind=governance")).json()["data"]["items"]
        assert len(narrowed) == 1

    async def test_says_who_may_answer_and_what_exactly_is_asked(self, api: httpx2.AsyncClient, ask: Ask) -> None:
        one, other = [(await api.get(of(await ask()))).json()["data"] for _ in range(2)]
        assert one["terms"] == {
            "role": "operator",
            "people": 1,
            "four_eyes": "unless_alone",
            "agents": [],
            "requesters": ["worker"],
            "named": [],
        }
        assert one["digest"].startswith("sha256:")
        assert one["digest"] == other["digest"], "the same was asked"
        assert one["when_expired"] == "denied"

    async def test_counted_and_sorted_by_risk(self, api: httpx2.AsyncClient, ask: Ask) -> None:
        yellow, red = await ask(facts={"medium_findings": 1}), await ask(protected=True)
        await api.post(of(await ask(), "/resolve"), json=NO)
        counts = (await api.get("/api/v1/decisions/counts")).json()["data"]
        assert counts == {
            "status": "pending",
            "total": 2,
            "by_kind": {"governance": 2},
            "by_risk": {"YELLOW": 1, "RED": 1},
        }
        assert (await api.get("/api/v1/decisions/counts?status=denied")).json()["data"]["total"] == 1
        for sort, order in (("-risk", [red, yellow]), ("risk", [yellow, red])):
            found = (await api.get(f"/api/v1/decisions?status=pending&sort={sort}")).json()["data"]["items"]
            assert [decision["decision_id"] for decision in found] == order
        narrowed = (await api.get("/api/v1/decisions?risk=YELLOW")).json()["data"]["items"]
        assert [decision["decision_id"] for decision in narrowed] == [yellow]

    async def test_of_one_who_asks(self, api: httpx2.AsyncClient, ask: Ask) -> None:
        mine, _ = [await ask(terms={"requesters": who}) for who in (("anna", "olga"), ("annabel",))]
        found = (await api.get("/api/v1/decisions?requester=anna")).json()["data"]["items"]
        assert [decision["decision_id"] for decision in found] == [mine]

    async def test_sorted_by_when_they_expire(self, api: httpx2.AsyncClient, ask: Ask) -> None:
        ever, late, soon = [await ask(expires_in=hours and timedelta(hours=hours)) for hours in (None, 5, 1)]
        for sort, order in (("expires_at", [soon, late, ever]), ("-expires_at", [ever, late, soon])):
            found, cursor = [], ""
            for _ in order:
                page = (await api.get(f"/api/v1/decisions?status=pending&sort={sort}&limit=1{cursor}")).json()["data"]
                found += [decision["decision_id"] for decision in page["items"]]
                cursor = f"&cursor={page['next_cursor']}"
            assert (found, page["next_cursor"]) == (order, None)

    async def test_an_agent_sees_what_concerns_it(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, ask: Ask
    ) -> None:
        mine, assigned, others = await ask(requested_by="agent"), await ask(assigned_to="agent"), await ask()
        agent = client(team.agent)
        listed = (await agent.get("/api/v1/decisions")).json()["data"]["items"]
        assert [decision["decision_id"] for decision in listed] == [assigned, mine]
        assert (await agent.get(of(assigned))).status_code == 200
        assert refusal(await agent.get(of(others))) == (404, "decision_not_found")
        several = await ask(assigned_to="agent", terms={"people": 2})
        for name in (mine, several):
            assert refusal(await agent.post(of(name, "/resolve"), json=YES)) == (403, "not_permitted")


class TestWhoAnswers:
    async def test_never_who_filed_it_while_there_are_others(self, client: Caller, team: Team, ask: Ask) -> None:
        name = await ask(terms={"requesters": ("admin", "worker")})
        refused = await client(team.admin).post(of(name, "/resolve"), json=YES)
        assert refusal(refused) == (403, "own_decision")
        found = (await client(team.operator).post(of(name, "/resolve"), json=YES)).json()["data"]
        assert (found["status"], found["single_operator"]) == ("approved", False)

    async def test_nobody_is_alone_by_writing_down_the_others(
        self, client: Caller, team: Team, ask: Ask, db: Database
    ) -> None:
        """A candidate's author, and who is assigned, are what the requester says."""
        async with db.system() as session:
            olga = client(await make_key(session, team.workspace_id, "olga", role=Role.OPERATOR))
        keys = (await client(team.admin).get("/api/v1/keys")).json()["data"]["items"]
        others = tuple({key["principal"] for key in keys} - {"olga"})
        name = await ask(terms={"requesters": ("olga", *others), "named": others})
        assert refusal(await olga.post(of(name, "/resolve"), json=YES)) == (403, "own_decision")
        found = (await client(team.admin).post(of(name, "/resolve"), json=YES)).json()["data"]
        assert (found["status"], found["single_operator"]) == ("approved", True), "nobody is left, and it says so"

    async def test_alone_it_is_recorded(self, client: Caller, team: Team, ask: Ask, db: Database) -> None:
        api = client(team.admin)
        keys = (await api.get("/api/v1/keys?role=operator")).json()["data"]["items"]
        for key in keys:
            await api.delete(f"/api/v1/keys/{key['key_id']}")
        await api.post("/api/v1/keys", json={"principal": "olga", "role": "operator", "scopes": ["missions"]})
        name = await ask(terms={"requesters": ("admin",)})
        found = (await api.post(of(name, "/resolve"), json=YES)).json()["data"]
        assert (found["status"], found["single_operator"]) == ("approved", True)
        [told] = await events(db, team, name, "decision.approved")
        assert told["single_operator"] is True

    async def test_two_people_where_the_policy_wants_two(
        self, client: Caller, team: Team, ask: Ask, db: Database
    ) -> None:
        name = await ask(terms={"people": 2})
        first = (await client(team.operator).post(of(name, "/resolve"), json=YES)).json()["data"]
        assert (first["status"], [each["principal"] for each in first["answers"]]) == ("pending", ["operator"])
        again = await client(team.operator).post(of(name, "/resolve"), json=YES)
        assert refusal(again) == (409, "already_approved")
        second = (await client(team.admin).post(of(name, "/resolve"), json=YES)).json()["data"]
        assert (second["status"], second["resolved_by"]) == ("approved", "admin")
        assert [each["principal"] for each in second["answers"]] == ["operator", "admin"]
        [given] = await events(db, team, name, "decision.approval_given")
        assert (given["approvals"], given["of"]) == (1, 2)
        assert len(await events(db, team, name, "decision.approved")) == 1

    @pytest.mark.parametrize("change", ["deactivated_at = now()", "role = 'observer'"])
    async def test_who_left_has_approved_in_vain(
        self, client: Caller, team: Team, ask: Ask, db: Database, change: str
    ) -> None:
        name = await ask(terms={"people": 2})
        await client(team.operator).post(of(name, "/resolve"), json=YES)
        async with db.system() as session:
            lowered = f"UPDATE principal SET {change} WHERE workspace_id = :w AND name = 'operator'"  # noqa: S608
            await session.execute(text(lowered), {"w": team.workspace_id})
        second = (await client(team.admin).post(of(name, "/resolve"), json=YES)).json()["data"]
        assert second["status"] == "pending"
        counted = {one["principal"]: one["counts"] for one in second["answers"]}
        assert counted == {"operator": False, "admin": True}
        [_, told] = await events(db, team, name, "decision.approval_given")
        assert (told["approvals"], told["of"]) == (1, 2)

    async def test_who_was_put_back_counts_again(self, client: Caller, team: Team, ask: Ask, db: Database) -> None:
        name = await ask(terms={"people": 2})
        for key, role in ((team.operator, "observer"), (team.admin, "operator")):
            await client(key).post(of(name, "/resolve"), json=YES)
            async with db.system() as session:
                moved = "UPDATE principal SET role = :role WHERE workspace_id = :w AND name = 'operator'"
                await session.execute(text(moved), {"w": team.workspace_id, "role": role})
        assert (await client(team.admin).get(of(name))).json()["data"]["status"] == "pending"
        ended = await client(team.operator).post(of(name, "/resolve"), json=YES)
        assert (ended.status_code, ended.json()["data"]["status"]) == (200, "approved")

    async def test_two_at_once_are_two(self, client: Caller, team: Team, ask: Ask) -> None:
        name = await ask(terms={"people": 2})
        keys = (team.operator, team.admin)
        answers = await asyncio.gather(*(client(key).post(of(name, "/resolve"), json=YES) for key in keys))
        assert sorted(answer.json()["data"]["status"] for answer in answers) == ["approved", "pending"]

    async def test_one_who_denies_is_enough(self, client: Caller, team: Team, ask: Ask) -> None:
        name = await ask(terms={"people": 2})
        await client(team.operator).post(of(name, "/resolve"), json=YES)
        assert (await client(team.admin).post(of(name, "/resolve"), json=NO)).json()["data"]["status"] == "denied"

    async def test_only_the_role_that_the_policy_names(self, client: Caller, team: Team, ask: Ask) -> None:
        name = await ask(terms={"role": Role.ADMIN})
        refused = await client(team.operator).post(of(name, "/resolve"), json=YES)
        assert refusal(refused) == (403, "not_permitted")
        assert (await client(team.admin).post(of(name, "/resolve"), json=YES)).status_code == 200

    async def test_an_agent_answers_what_the_policy_lets_it(self, client: Caller, team: Team, ask: Ask) -> None:
        agent = client(team.agent)
        lets, others = await ask(terms={"agents": ("agent",)}), await ask(terms={"agents": ("another",)})
        own = await ask(terms={"agents": ("agent",), "requesters": ("agent",)})
        assert (await agent.post(of(lets, "/resolve"), json=YES)).json()["data"]["resolved_by"] == "agent"
        assert refusal(await agent.post(of(others, "/resolve"), json=YES)) == (404, "decision_not_found")
        assert refusal(await agent.post(of(own, "/resolve"), json=YES)) == (403, "own_decision")

    async def test_a_service_never(self, client: Caller, team: Team, ask: Ask) -> None:
        assert (await client(team.service).post(of(await ask(), "/resolve"), json=YES)).status_code == 403

    async def test_what_was_answered_is_never_changed(self, client: Caller, team: Team, ask: Ask, db: Database) -> None:
        await client(team.operator).post(of(await ask(), "/resolve"), json=YES)
        for change in (
            "UPDATE decision_answer SET answer = 'denied'",
            "DELETE FROM decision_answer",
            "DELETE FROM decision",
        ):
            with pytest.raises(DBAPIError, match="permission denied"):
                async with db.workspace(team.workspace_id) as session:
                    await session.execute(text(change))

    @pytest.mark.parametrize(
        "change", ["status = 'denied'", "resolved_by = 'mallory'", "question = '{}'", "terms = '{}'", "risk = 'GREEN'"]
    )
    async def test_nor_is_the_decision(self, client: Caller, team: Team, ask: Ask, db: Database, change: str) -> None:
        name = await ask()
        await client(team.operator).post(of(name, "/resolve"), json=YES)
        with pytest.raises(DBAPIError, match=name):
            async with db.workspace(team.workspace_id) as session:
                await session.execute(text(f"UPDATE decision SET {change} WHERE decision_id = '{name}'"))  # noqa: S608


async def test_its_history_tells_who_when_and_why(client: Caller, team: Team, ask: Ask) -> None:
    """APPR-05."""
    name, _ = await ask(requested_by="agent", terms={"people": 2}), await ask()
    for key, why in ((team.operator, "read the diff"), (team.admin, "read the tests")):
        await client(key).post(of(name, "/resolve"), json=YES | {"explanation": why})
    found = (await client(team.observer).get(f"/api/v1/audit?subject={name}")).json()["data"]["items"]
    decision = (await client(team.observer).get(of(name))).json()["data"]
    assert {row["subject"]["id"] for row in found} == {name}
    assert [(row["action"], row["actor"], row["content"].get("explanation")) for row in reversed(found)] == [
        ("decision.requested", "agent", None),
        ("decision.approval_given", "operator", "read the diff"),
        ("decision.approved", "admin", "read the tests"),
    ]
    resolved, given, requested = [datetime.fromisoformat(row["created_at"]) for row in found]
    began, ended = [datetime.fromisoformat(decision[when]) for when in ("requested_at", "resolved_at")]
    assert began <= requested < given < ended <= resolved, "each row is written within its transaction"


async def events(db: Database, team: Team, decision: str, kind: str) -> list[dict[str, Any]]:
    """What was told of a decision."""
    async with db.workspace(team.workspace_id) as session:
        statement = text("SELECT data FROM event WHERE type = :kind AND subject_id = :id")
        return list((await session.execute(statement, {"kind": kind, "id": decision})).scalars())


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
            {"decision": "approve", "explanation": " \t\u2003 "},
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
