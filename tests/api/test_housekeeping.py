"""What the reconciler reads and keeps in order across workspaces."""

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text

from models.domain.events import EventType, Subject
from models.domain.principals import Role
from models.store import reconciling
from models.store.connections import plain
from models.store.database import Database
from models.store.events import Actor, append_everywhere
from models.store.migrate import expected_revision, migrate
from tests.fixtures.api import Team
from tests.fixtures.servers import PostgresServer


def month(ahead: int) -> datetime:
    """The middle of a month to come."""
    now = datetime.now(UTC)
    years, months = divmod(now.month - 1 + ahead, 12)
    return datetime(now.year + years, months + 1, 15, tzinfo=UTC)


async def write_event(db: Database, team: Team, at: datetime) -> None:
    statement = text(
        "INSERT INTO event (occurred_at, workspace_id, type, subject_kind, subject_id, actor, correlation_id)"
        " VALUES (:at, :workspace, 'subsystem.report', 's', 'x', 'a', 'c')"
    )
    async with db.workspace(team.workspace_id) as session:
        await session.execute(statement, {"at": at, "workspace": team.workspace_id})


async def events(db: Database, team: Team) -> list[tuple[Any, ...]]:
    """Where the team's events lie, and what must not change about them."""
    statement = text("SELECT tableoid::regclass::text, id, xid::text, epoch, occurred_at FROM event ORDER BY id")
    async with db.workspace(team.workspace_id) as session:
        return [tuple(row) for row in await session.execute(statement)]


class TestPartitions:
    async def test_events_of_a_clock_that_ran_ahead_are_taken_along(
        self, db: Database, team: Team, other_team: Team
    ) -> None:
        for ahead in (5, 6, 5):
            await write_event(db, team, month(ahead))
        early = await events(db, team)
        assert {place for place, *_ in early} == {"event_default"}
        for _ in range(2):
            async with db.system() as session:
                await session.execute(text("SELECT mc_event_partitions(6)"))
        await write_event(db, team, month(5))
        now = await events(db, team)
        names = [f"event_{month(ahead):%Y_%m}" for ahead in (5, 6, 5, 5)]
        assert [place for place, *_ in now] == names
        assert [rest for _, *rest in now[:3]] == [rest for _, *rest in early]
        assert await events(db, other_team) == []

    async def test_migrating_goes_on(self, db: Database, team: Team, database_url: str) -> None:
        with psycopg.connect(plain(database_url), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(f"event_{month(2):%Y_%m}")))
        await write_event(db, team, month(2))
        migrate(database_url)
        assert [place for place, *_ in await events(db, team)] == [f"event_{month(2):%Y_%m}"]


def test_all_migrations_can_be_taken_back(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    assert [migrate(url, to) for to in ("head", "base", "head")] == [expected_revision(), "base", expected_revision()]


async def test_sessions_that_ran_out_are_forgotten(db: Database, team: Team) -> None:
    statement = text(
        "INSERT INTO browser_session (workspace_id, digest, key_id, expires_at)"
        " SELECT workspace_id, key_id || :name, key_id, now() + CAST(:left AS interval) FROM api_key"
        " WHERE workspace_id = :workspace AND role = :role"
    )
    known = {"workspace": team.workspace_id, "role": Role.ADMIN.value}
    async with db.system() as session:
        await session.execute(statement, {"name": "old", "left": "-1 minute", **known})
        await session.execute(statement, {"name": "new", "left": "1 minute", **known})
        await reconciling.forget_sessions(session)
        left = await session.scalars(text("SELECT right(digest, 3) FROM browser_session"))
        assert list(left) == ["new"]


async def test_a_pass_forgets_so_many_sessions(db: Database, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciling, "FORGOTTEN_AT_ONCE", 2)
    fill = (
        "INSERT INTO browser_session (workspace_id, digest, key_id, expires_at)"
        " SELECT workspace_id, key_id || n, key_id, now() - interval '1 minute' FROM api_key, generate_series(1, 5) n"
        " WHERE workspace_id = :workspace AND role = :role"
    )
    left = text("SELECT count(*) FROM browser_session WHERE workspace_id = :workspace AND expires_at < now()")
    counts = []
    async with db.system() as session:
        await session.execute(text(fill), {"workspace": team.workspace_id, "role": Role.ADMIN.value})
        for _ in range(3):
            await reconciling.forget_sessions(session)
            counts.append(await session.scalar(left, {"workspace": team.workspace_id}))
    assert counts == [3, 1, 0]


class TestLeftovers:
    async def test_a_host_that_is_gone_hides_no_other(self, db: Database, team: Team) -> None:
        async with db.workspace(team.workspace_id) as session:
            for line in (
                "INSERT INTO repository (workspace_id, repository_id, name, url, place, target_branch, protected, env,"
                " created_by) VALUES (:w, 'r', 'r', '/r', '/r', 'main', false, 'dev', 'x')",
                "INSERT INTO mission (workspace_id, mission_id, repository_id, subsystem_id, severity, severity_rank,"
                " status, outcome, paused, control_version, mission_type, branch, env, protected, created_by,"
                " correlation_id) SELECT :w, 'm' || n, 'r', 's', 'low', 3, 'escalated', 'terminated', false, 0,"
                " 'coding', 'main', 'dev', false, 'x', 'c' FROM generate_series(1, 1200) n",
                "INSERT INTO workbench (workspace_id, mission_id, host)"
                " SELECT :w, 'm' || n, CASE WHEN n > 1190 THEN 'alive' ELSE 'gone' END"
                " FROM generate_series(1, 1200) n",
            ):
                await session.execute(text(line), {"w": team.workspace_id})
        async with db.system() as session:
            found = await reconciling.open_workbenches_of_ended(session)
        hosts = [leftover.host for leftover in found]
        assert (hosts.count("alive"), hosts.count("gone")) == (10, reconciling.OF_ONE_HOST)


MANY = "INSERT INTO workspace (workspace_id, slug, name) SELECT n, n, 'x' FROM generate_series(1, 20000) AS t (n)"


async def test_news_reach_all_of_very_many_workspaces_in_one_short_transaction(db: Database) -> None:
    """One by one they would take longer than a transaction may."""
    about = Subject(kind="configuration", id="installation")
    async with db.system() as session:
        await session.execute(text(MANY))
    async with db.system() as session:
        await append_everywhere(session, EventType.CONFIG_CHANGED, about, Actor("x", "y"), {"config_hash": "news"})
    async with db.system() as session:
        told = await session.scalars(text("SELECT workspace_id FROM event WHERE data ->> 'config_hash' = 'news'"))
        known = await session.scalars(text("SELECT workspace_id FROM workspace"))
        assert sorted(told) == sorted(known)
