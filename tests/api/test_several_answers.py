"""Several people's answers to one question: who may stop it, and whose approval counted when it closed."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import col

from models.domain.states import DecisionStatus
from models.store import governance, questions
from models.store.database import Database
from models.store.events import Actor
from models.tables.missions import Decision
from tests.fixtures.api import Caller, Team
from tests.fixtures.clocks import Clock, clock
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo
from tests.fixtures.policies import put_to_several

__all__ = ["clock", "repo"]
YES = {"decision": "approve", "explanation": "read the diff"}
NO = {"decision": "deny", "explanation": "learned something"}
PASS = Actor("reconciler", "pass-1")


@pytest.fixture
async def name(client: Caller, team: Team, repo: Repo, db: Database) -> str:
    """A question that takes three people."""
    mission = await filed(client(team.admin), repo)
    return await put_to_several(db, team.workspace_id, mission["mission_id"], 3)


async def answered(client: Caller, key: str, name: str, body: dict[str, str]) -> Any:
    return await client(key).post(f"/api/v1/decisions/{name}/resolve", json=body)


async def shown(client: Caller, team: Team, name: str) -> tuple[str, list[tuple[str, str, bool]]]:
    found = (await client(team.observer).get(f"/api/v1/decisions/{name}")).json()["data"]
    return found["status"], [(one["principal"], one["answer"], one["counts"]) for one in found["answers"]]


async def changed(db: Database, team: Team, change: str) -> None:
    async with db.system() as session:
        statement = f"UPDATE principal SET {change} WHERE workspace_id = :w AND name = 'operator'"  # noqa: S608
        await session.execute(text(statement), {"w": team.workspace_id})


async def withdrawn(db: Database, team: Team, name: str) -> None:
    async with db.workspace(team.workspace_id) as session:
        await governance.withdraw(session, team.workspace_id, name, PASS)


async def withdrawn_in_bulk(db: Database, team: Team, name: str) -> None:
    async with db.workspace(team.workspace_id) as session:
        of_all = (col(Decision.workspace_id) == team.workspace_id, col(Decision.kind) == "governance")
        await questions.close(session, DecisionStatus.CANCELED, PASS, *of_all)


class TestWhoApprovedMayDeny:
    async def test_and_that_ends_it(self, client: Caller, team: Team, name: str) -> None:
        await answered(client, team.operator, name, YES)
        assert refusal(await answered(client, team.operator, name, YES)) == (409, "already_approved")
        ended = (await answered(client, team.operator, name, NO)).json()["data"]
        assert (ended["status"], ended["resolved_by"]) == ("denied", "operator")
        both = [("operator", "approved", False), ("operator", "denied", True)]
        assert await shown(client, team, name) == ("denied", both)
        assert refusal(await answered(client, team.operator, name, YES)) == (409, "already_resolved")


async def test_all_who_approved_are_told_to_who_comes_late(
    client: Caller, team: Team, db: Database, repo: Repo
) -> None:
    mission = await filed(client(team.admin), repo)
    name = await put_to_several(db, team.workspace_id, mission["mission_id"], 2)
    for key in (team.operator, team.admin):
        await answered(client, key, name, YES)
    late = await answered(client, team.operator, name, NO)
    assert late.json()["error"]["details"]["resolved_by"] == "admin"
    assert late.json()["error"]["message"].startswith("operator and admin answered first: approved; ")


class TestWhoCounted:
    @pytest.mark.parametrize("close", [withdrawn, withdrawn_in_bulk])
    @pytest.mark.parametrize("change", ["deactivated_at = now()", "role = 'observer'"])
    async def test_is_kept_when_it_closes(
        self, client: Caller, team: Team, db: Database, name: str, close: Any, change: str
    ) -> None:
        for key in (team.operator, team.admin):
            await answered(client, key, name, YES)
        await changed(db, team, change)
        marked = [("operator", "approved", False), ("admin", "approved", True)]
        assert await shown(client, team, name) == ("pending", marked)
        await close(db, team, name)
        await changed(db, team, "deactivated_at = NULL, role = 'operator'")
        assert await shown(client, team, name) == ("canceled", marked), "as it was when it closed"

    async def test_is_kept_when_its_time_is_over(
        self, client: Caller, team: Team, db: Database, name: str, clock: Clock
    ) -> None:
        await answered(client, team.operator, name, YES)
        await changed(db, team, "role = 'observer'")
        clock.show(2)
        async with db.system() as session:
            await governance.expire_overdue(session, PASS, 100)
        await changed(db, team, "role = 'operator'")
        assert await shown(client, team, name) == ("expired", [("operator", "approved", False)])

    async def test_is_not_changed_by_who_leaves_later(
        self, client: Caller, team: Team, db: Database, name: str
    ) -> None:
        await answered(client, team.operator, name, YES)
        await answered(client, team.admin, name, NO)
        await changed(db, team, "deactivated_at = now()")
        assert await shown(client, team, name) == (
            "denied",
            [("operator", "approved", True), ("admin", "denied", True)],
        )

    async def test_is_for_good(self, client: Caller, team: Team, db: Database, name: str) -> None:
        for body in (YES, NO):
            await answered(client, team.operator, name, body)
        with pytest.raises(DBAPIError, match="counts no more, for good"):
            async with db.workspace(team.workspace_id) as session:
                await session.execute(text("UPDATE decision_answer SET counts = true"))
