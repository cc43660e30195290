"""The operators' acts as the console asks for them: the seeds' columns, words and indexes (AUD-02..04, AUD-07)."""

from collections.abc import Iterator
from typing import Any

import httpx2
import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import text

from models.contracts.pipeline import ControlRecord
from models.domain.agents import Verb
from models.domain.events import EventType, Subject
from models.store import agents, events, running
from models.store.connections import plain
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.api import Team, api, app, client
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, repo

__all__ = ["api", "app", "client", "repo"]

OPERATOR = Actor("operator", "request-1")
ODD = "stop: \u201cx\u201d\n\t{not json} \u2028 100 %"


@pytest.fixture
def superuser(database_url: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(plain(database_url), row_factory=dict_row, autocommit=True) as connection:
        yield connection


async def of_operators(db: Database, team: Team) -> list[dict[str, Any]]:
    """Read the view as the app does, the oldest first."""
    async with db.workspace(team.workspace_id) as session:
        rows = await session.execute(text("SELECT * FROM operator_audit_log ORDER BY id"))
        return [dict(row) for row in rows.mappings()]


async def steer(db: Database, team: Team, mission: str, *commands: tuple[str, str]) -> None:
    """Write operators' commands down, as the mission's workflow does."""
    for version, (action, detail) in enumerate(commands, 1):
        change = ControlRecord(
            workspace_id=team.workspace_id,
            mission_id=mission,
            key=f"{action}-{version}",
            version=version,
            action=action,
            actor="operator",
            detail=detail,
            correlation_id="r",
        )
        async with db.workspace(team.workspace_id) as session:
            await running.record_control(session, change)


class TestColumns:
    def test_are_the_seeds(self, superuser: psycopg.Connection[dict[str, Any]]) -> None:
        found = superuser.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'operator_audit_log'"
        ).fetchall()
        assert {row["column_name"]: row["data_type"] for row in found} == {
            "workspace_id": "text",
            "id": "bigint",
            "user_id": "text",
            "session_id": "text",
            "provider": "text",
            "action": "text",
            "content": "text",
            "metadata": "jsonb",
            "created_at": "timestamp with time zone",
        }

    @pytest.mark.parametrize(
        ("wanted", "index"),
        [
            ("session_id = 's7'", "audit_session"),
            ("user_id = 'operator'", "audit_actor"),
            ("created_at > now() - interval '1 minute'", "audit_newest"),
        ],
    )
    async def test_each_question_has_its_index(
        self, db: Database, team: Team, superuser: psycopg.Connection[dict[str, Any]], wanted: str, index: str
    ) -> None:
        async with db.workspace(team.workspace_id) as session:
            for number in range(300):
                about, who = Subject(kind="session", id=f"s{number}"), Actor(("operator", "admin")[number % 2], "r")
                await events.append(session, team.workspace_id, EventType.SESSION_CLOSED, about, who)
        superuser.execute("ANALYZE audit")
        async with db.workspace(team.workspace_id) as session:
            await session.execute(text("SET LOCAL enable_seqscan = off"))
            await session.execute(text("SET LOCAL enable_sort = off"))
            asked = text(
                f"EXPLAIN SELECT * FROM operator_audit_log WHERE workspace_id = :w AND {wanted}"  # noqa: S608  # ours
                " ORDER BY created_at, id LIMIT 5"
            )
            plan = "\n".join((await session.execute(asked, {"w": team.workspace_id})).scalars())
        assert f"Index Scan using {index}" in plan, plan


class TestWords:
    async def test_what_an_operator_does_to_a_mission(
        self, db: Database, team: Team, api: httpx2.AsyncClient, repo: Repo
    ) -> None:
        mission = (await filed(api, repo))["mission_id"]
        await steer(db, team, mission, ("note", ODD), ("pause", "why"), ("resume", ""), ("cancel", "enough"))
        rows = [row for row in await of_operators(db, team) if row["user_id"] == "operator"]
        assert [row["action"] for row in rows] == ["barge-in", "pause", "resume", "terminate"]
        assert rows[0]["content"] == ODD, "what was sent, to the letter"
        assert rows[1]["metadata"] == {"detail": "why"}

    async def test_a_mission_that_was_never_started_is_terminated_too(
        self, db: Database, team: Team, api: httpx2.AsyncClient, repo: Repo
    ) -> None:
        mission = (await filed(api, repo))["mission_id"]
        assert (await api.post(f"/api/v1/missions/{mission}/cancel", json={})).status_code == 200
        assert (await of_operators(db, team))[-1]["action"] == "terminate"

    @pytest.mark.parametrize("verb", [verb for verb in Verb if verb is not Verb.RESUME])
    async def test_what_an_operator_does_to_an_agent(self, db: Database, team: Team, verb: Verb) -> None:
        done = [verb] if verb is Verb.STOP else [verb, Verb.RESUME]
        for one in done:
            async with db.workspace(team.workspace_id) as session:
                await agents.command(session, team.workspace_id, "agent", one, OPERATOR, by_admin=True)
        told = [row["action"] for row in await of_operators(db, team) if row["user_id"] == "operator"]
        assert [word for word in told if "." not in word] == [one.value for one in done]

    async def test_all_else_goes_by_its_type(self, db: Database, team: Team) -> None:
        async with db.workspace(team.workspace_id) as session:
            about = Subject(kind="capa", id="c")
            await events.append(session, team.workspace_id, EventType.CAPA_CREATED, about, OPERATOR)
        [row] = await of_operators(db, team)
        assert (row["action"], row["content"], row["metadata"]) == ("capa.created", None, {})


class TestAttribution:
    async def test_nobody_acts_without_a_name(
        self, db: Database, team: Team, superuser: psycopg.Connection[dict[str, Any]]
    ) -> None:
        with pytest.raises(psycopg.errors.NotNullViolation):
            superuser.execute(
                "INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id)"
                " VALUES ('w', 'capa.changed', 'capa', 'c', NULL, 'r')"
            )
        found = superuser.execute(
            "SELECT attname, attnotnull FROM pg_attribute WHERE attrelid = 'audit'::regclass"
            " AND attname IN ('actor', 'actor_kind', 'correlation_id')"
        ).fetchall()
        assert all(row["attnotnull"] for row in found)
        assert len(found) == 3
        assert superuser.execute("SELECT 1 FROM operator_audit_log WHERE user_id IS NULL").fetchall() == []
