"""How questions are found that their subject left behind: whatever else waits, and none stands before the others."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from models.store import budgets, governance, runs
from models.store.connections import plain
from models.store.database import Database
from tests.fixtures.api import Team
from tests.fixtures.budgets import BOT
from tests.fixtures.sql import rows

ASKED = """
    INSERT INTO decision (workspace_id, decision_id, kind, round, candidate, status, risk, requested_by, binding)
    SELECT :w, kind || '-' || n, kind, 0, 0, 'pending', 'YELLOW', 'bot', CASE kind
    WHEN 'budget' THEN jsonb_build_object('scope', 'run', 'subject', 'run-' || n)
    ELSE jsonb_build_object('run_id', 'run-' || n) END
    FROM unnest(CAST(:kinds AS text[])) kind, generate_series(1, :number) n
"""
ENDED = """
    INSERT INTO run (workspace_id, run_id, created_by, status, ended_at)
    SELECT :w, 'run-' || n, 'bot', 'failed', now()
"""
OPEN = "INSERT INTO budget (workspace_id, scope, subject, period) SELECT :w, 'run', 'run-' || n, ''"
READ = """
    SELECT COALESCE(sum(seq_tup_read + COALESCE(idx_tup_fetch, 0)), 0) FROM pg_stat_xact_user_tables
    WHERE relname = 'decision'
"""
"""Decisions that this transaction has read."""


async def fill(db: Database, team: Team, number: int, *kinds: str) -> None:
    """Let so many of each kind wait, each about a run of its own."""
    async with db.workspace(team.workspace_id) as session:
        await session.execute(text(ASKED), {"w": team.workspace_id, "kinds": list(kinds), "number": number})


async def subjects(db: Database, team: Team, numbers: str) -> None:
    """Let there be runs that have ended, and limits that are open."""
    async with db.workspace(team.workspace_id) as session:
        for line in (ENDED, OPEN):
            await session.execute(text(f"{line} FROM {numbers} n"), {"w": team.workspace_id})


def vacuum(database_url: str) -> None:
    """Let the planner know how things are, as it does on a machine that has run for a minute."""
    with psycopg.connect(plain(database_url), autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE decision, run, budget")


async def read(session: AsyncSession) -> int:
    return int((await session.execute(text(READ))).scalar_one())


async def test_a_run_that_ends_reads_its_own_questions_alone(db: Database, team: Team, database_url: str) -> None:
    """As those who keep to their workspace do: row-level security lets no index on an expression be used."""
    await fill(db, team, 5_000, "budget", "tool_action")
    vacuum(database_url)
    async with db.workspace(team.workspace_id) as session:
        before = await read(session)
        await runs.close(session, team.workspace_id, "run-77", BOT)
        assert 2 <= await read(session) - before <= 20
        closed = "SELECT decision_id FROM decision WHERE status = 'canceled' ORDER BY 1"
        assert list(await session.scalars(text(closed))) == ["budget-77", "tool_action-77"]


async def test_what_else_waits_is_not_looked_through(db: Database, team: Team, database_url: str) -> None:
    rows(
        database_url, "UPDATE decision SET status = 'canceled', resolved_by = 'x' WHERE status = 'pending'"
    )  # of others
    await fill(db, team, 5_000, "governance")
    await fill(db, team, 5, "budget", "tool_action")
    await subjects(db, team, "generate_series(100, 101)")
    vacuum(database_url)
    async with db.system() as session:
        await session.execute(text("SET LOCAL enable_seqscan = off"))  # how small the other tables are here is luck
        before = await read(session)
        assert [*await budgets.asked_of_ended(session, 10), *await budgets.asked_of_open(session, 10)] == []
        assert await read(session) - before <= 20


Find = Callable[[AsyncSession, int], Awaitable[Sequence[Any]]]


@pytest.mark.parametrize("find", [budgets.asked_of_ended, budgets.asked_of_open, governance.asked_of_ended])
async def test_none_stands_before_the_others_in_every_pass(db: Database, team: Team, find: Find) -> None:
    """Those that cannot be taken back would keep the others from it."""
    await fill(db, team, 20, "budget", "tool_action")
    await subjects(db, team, "generate_series(1, 20)")
    async with db.workspace(team.workspace_id) as session:
        for line in MISSIONS:
            await session.execute(text(line), {"w": team.workspace_id})
    async with db.system() as session:
        found = [await find(session, 1) for _ in range(50)]
    assert {len(some) for some in found} == {1}
    assert len({some[0] for some in found}) > 1


MISSIONS = (
    "INSERT INTO repository (workspace_id, repository_id, name, url, place, target_branch, protected, env, created_by)"
    " VALUES (:w, 'r', 'r', '/r', '/r', 'main', false, 'dev', 'x')",
    "INSERT INTO mission (workspace_id, mission_id, repository_id, subsystem_id, severity, severity_rank, status,"
    " outcome, ended_at, paused, control_version, mission_type, branch, env, protected, created_by, correlation_id)"
    " SELECT :w, 'm' || n, 'r', 's', 'low', 3, 'escalated', 'terminated', now(), false, 0, 'coding', 'main', 'dev',"
    " false, 'x', 'c' FROM generate_series(1, 20) n",
    "INSERT INTO decision (workspace_id, decision_id, kind, mission_id, round, candidate, status, risk, requested_by)"
    " SELECT :w, mission_id || '.governance.1.1', 'governance', mission_id, 1, 1, 'pending', 'YELLOW', 'x'"
    " FROM mission",
)
"""Missions that were closed while a question of theirs was put."""
