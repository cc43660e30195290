"""Open reservations are found among all that a run has paid, however much that is, and of each run some."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.budgets import RunStatus
from models.store import ledger, runs
from models.store.database import Database
from models.store.ledger import Place
from models.store.migrate import migrate
from tests.fixtures.api import Team
from tests.fixtures.budgets import BOT, at, clock_moved, counters, entries, place, still_open, usd
from tests.fixtures.servers import PostgresServer
from tests.fixtures.sql import rows

MANY, FEW = 2_000, 100
PAID = """
    INSERT INTO ledger SELECT l.workspace_id, l.run_id, 'many-' || n, l.kind, l.agent_id, l.ticket_id, l.mission_id,
    l.model, 0, 0, 1, 0, false, false, l.holder, l.held_until, NULL, l.day, l.month, l.at
    FROM ledger l, generate_series(1, :many) n WHERE l.run_id = :run_id AND l.cost_id = 'paid'
"""
READ = """
    SELECT COALESCE(sum(seq_tup_read + idx_tup_fetch + idx_scan), 0) FROM pg_stat_xact_user_tables
    WHERE relname = 'ledger'
"""


async def big(db: Database, where: Place) -> Place:
    """Let a run have paid many calls, each of which it had reserved, and begin one whose holder dies."""
    await ledger.spend(db, at(where, "paid"), usd("0"), BOT)
    async with db.workspace(where.workspace_id) as session:
        await session.execute(text(PAID), {"many": MANY, "run_id": where.run_id})
    await ledger.reserve(db, where, usd("0.01", 3), BOT, timedelta(0))
    return where


@asynccontextmanager
async def reading_few(session: AsyncSession) -> AsyncIterator[None]:
    """Require that what is done reads few rows of the ledger."""
    before = (await session.scalars(text(READ))).one()
    yield
    assert (await session.scalars(text(READ))).one() - before < FEW


async def test_a_run_that_paid_very_often_ends_without_reading_all_of_that(db: Database, team: Team) -> None:
    where = await big(db, await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1"))
    async with db.workspace(team.workspace_id) as session, reading_few(session):
        await runs.end(session, team.workspace_id, where.run_id, RunStatus.FAILED, None, BOT)
    [given] = [row for row in await entries(db, team.workspace_id) if row["kind"] == "release"]
    assert (given["cost_id"], await still_open(db, team.workspace_id)) == (where.cost_id, [])
    held = ("reserved_usd", "reserved_tokens", "reservations")
    assert {tuple(row[name] for name in held) for row in await counters(db, team.workspace_id)} == {(0, 0, 0)}


async def test_counters_for_a_correction_are_taken_without_reading_what_was_paid(db: Database, team: Team) -> None:
    where = await big(db, await place(db, team.workspace_id, agent_id="bot"))
    async with db.workspace(team.workspace_id) as session, reading_few(session):
        await ledger.lock_all(session, where.key)


async def test_what_the_dead_hold_is_found_without_reading_what_was_paid(db: Database, team: Team) -> None:
    where = await big(db, await place(db, team.workspace_id, agent_id="bot"))
    async with db.system() as session, reading_few(session):
        assert where in await ledger.overdue(session, 10_000)


MISSION = """
SET session_replication_role = replica;
INSERT INTO mission (workspace_id, mission_id, repository_id, subsystem_id, severity, severity_rank, status, paused,
    control_version, mission_type, branch, env, protected, created_by, correlation_id)
VALUES ('{0}', 'm', 'r', 's', 'low', 3, 'open', false, 0, 'coding', 'main', 'dev', false, 'bot', 'c')
"""
OVER = "UPDATE mission SET status = 'resolved', outcome = 'merged', ended_at = now() - interval '1 day'"


async def test_who_has_had_the_last_word_is_known_without_reading_what_was_paid(
    db: Database, team: Team, database_url: str
) -> None:
    rows(database_url, MISSION.format(team.workspace_id))
    where = await big(db, await place(db, team.workspace_id, agent_id="bot", mission_id="m"))
    await ledger.release(db, where, BOT)
    rows(database_url, f"SET session_replication_role = replica; {OVER}")
    assert where.run_id not in await orphans(db), "somebody spoke of its calls just now"
    async with clock_moved(database_url, "3 minutes"):
        assert where.run_id in await orphans(db)


async def orphans(db: Database) -> list[str]:
    """Runs that nobody will end."""
    async with db.system() as session, reading_few(session):
        return [run_id for _, run_id, _ in await runs.orphans(session, 10_000)]


async def test_a_run_that_holds_much_leaves_room_for_others(db: Database, team: Team) -> None:
    many = await place(db, team.workspace_id, agent_id="bot")
    few = await place(db, team.workspace_id, agent_id="bot")
    for number in range(40):
        await ledger.reserve(db, at(many, str(number)), usd("0"), BOT, timedelta(0))
    await ledger.reserve(db, few, usd("0"), BOT, timedelta(0))
    async with db.system() as session:
        over = "SELECT count(DISTINCT run_id) FROM ledger WHERE kind = 'reserve' AND held_until < mc_now()"
        found = await ledger.overdue(session, (await session.scalars(text(over))).one())
    assert few in found


OLD = """
INSERT INTO workspace (workspace_id, slug, name) VALUES ('w', 'w', 'W');
INSERT INTO run (workspace_id, run_id, created_by, status, ended_at) VALUES
    ('w', 'open', 'x', NULL, NULL), ('w', 'ended', 'x', 'success', now());
INSERT INTO budget (workspace_id, scope, subject, period) VALUES
    ('w', 'run', 'open', ''), ('w', 'run', 'ended', ''), ('w', 'workspace_month', '', '2026-01');
INSERT INTO ledger
    (workspace_id, run_id, cost_id, kind, tokens_in, tokens_out, calls, usd, holder, held_until, day, month, at)
SELECT 'w', run_id, cost_id, kind, 0, 0, 1, 0, 'bot', CAST(held AS timestamptz), day, '2026-01', CAST(day AS date)
FROM (VALUES
    ('open', '1', 'reserve', '2026-01-01 00:15Z', '2026-01-01'), ('open', 'compute', 'reserve', NULL, '2026-01-01'),
    ('open', '2', 'reserve', '2026-01-01 00:15Z', '2026-01-01'), ('open', '2', 'release', NULL, '2026-01-02'),
    ('open', '3', 'reserve', '2026-01-01 00:15Z', '2026-01-01'), ('open', '3', 'settle', NULL, '2026-01-03'),
    ('open', '4', 'adjust', NULL, '2026-01-04'), ('ended', '1', 'reserve', '2026-01-01 00:15Z', '2026-01-01')
) AS t (run_id, cost_id, kind, held, day);
"""


def test_those_that_are_open_when_the_list_begins_are_in_it(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    migrate(url, "0045")
    rows(url, OLD)
    migrate(url)
    assert rows(url, "SELECT run_id, cost_id FROM open_reservation") == [("open", "1")]
    last = "SELECT scope, subject, CAST(finished_at AT TIME ZONE 'UTC' AS date)::text FROM budget ORDER BY 1, 2"
    assert rows(url, last) == [("run", "ended", None), ("run", "open", "2026-01-03"), ("workspace_month", "", None)]
