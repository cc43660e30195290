"""What a run leaves open, reservations and questions: how much that may be, and how all of it ends with the run."""

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from models.domain.budgets import MAX_RESERVATIONS, RunStatus
from models.domain.errors import Conflict
from models.domain.policy import Level
from models.store import ledger, runs
from models.store.database import Database
from models.store.ledger import Place
from models.store.migrate import migrate
from tests.fixtures.api import Team
from tests.fixtures.budgets import BOT, counters, entries, place, told, usd
from tests.fixtures.servers import PostgresServer
from tests.fixtures.sql import rows


def at(where: Place, cost_id: str) -> Place:
    return Place(where.workspace_id, where.run_id, cost_id)


async def fill(db: Database, where: Place, number: int) -> None:
    """Let a run have so many open reservations, without the time that it takes to make them one by one."""
    made = """
        INSERT INTO ledger (workspace_id, run_id, cost_id, kind, agent_id, ticket_id, tokens_in, tokens_out, calls, usd,
        holder, held_until, day, month)
        SELECT workspace_id, run_id, 'many-' || n, 'reserve', agent_id, ticket_id, 2, 1, 1, 0.00001, 'bot',
        now() + interval '1 hour', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD'),
        to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM') FROM run, generate_series(1, :number) n WHERE run_id = :run_id
    """
    kept = """
        INSERT INTO open_reservation SELECT workspace_id, run_id, cost_id, held_until FROM ledger
        WHERE run_id = :run_id AND cost_id LIKE 'many-%'
    """
    counted = """
        UPDATE budget SET reservations = reservations + :number, reserved_usd = reserved_usd + 0.00001 * :number,
        reserved_tokens = reserved_tokens + 3 * :number
    """
    async with db.workspace(where.workspace_id) as session:
        await session.execute(text(made), {"number": number, "run_id": where.run_id})
        await session.execute(text(kept), {"run_id": where.run_id})
        await session.execute(text(counted), {"number": number})


async def held(db: Database, where: Place) -> set[tuple[Any, ...]]:
    """What each counter holds."""
    names = ("reservations", "reserved_usd", "reserved_tokens")
    return {tuple(row[name] for name in names) for row in await counters(db, where.workspace_id)}


async def test_a_run_ends_with_very_many_at_once(db: Database, team: Team) -> None:
    """One by one they would take longer than a transaction may."""
    where = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1", level=Level.LEAD)
    await ledger.reserve(db, where, usd("0.1", 10), BOT)
    await ledger.settle(db, where, usd("0.1", 10), BOT)
    await ledger.reserve(db, at(where, "2"), usd("0.01", 1), BOT)
    await fill(db, where, 20_000)
    assert await held(db, where) == {(20_001, Decimal("0.21"), 60_001)}
    async with db.workspace(team.workspace_id) as session:
        await runs.end(session, team.workspace_id, where.run_id, RunStatus.SUCCESS, None, BOT)
    assert await held(db, where) == {(0, 0, 0)}
    ends = [row for row in await entries(db, team.workspace_id) if row["kind"] == "release"]
    assert len(ends) == 20_001
    names = ("agent_id", "ticket_id", "holder", "usd", "tokens_in", "calls", "overrun", "held_until")
    assert {tuple(row[name] for name in names) for row in ends} == {("bot", "T-1", "bot", 0, 0, 0, False, None)}
    assert not await ledger.release(db, at(where, "2"), BOT), "it was given back"
    assert await ledger.settle(db, at(where, "2"), usd("0.01"), BOT), "and may be paid all the same"
    assert await held(db, where) == {(0, 0, 0)}


ASKED = """
    INSERT INTO decision (workspace_id, decision_id, kind, round, candidate, status, risk, requested_by, binding)
    SELECT :workspace, run || '-' || n, 'tool_action', 0, 0, 'pending', 'YELLOW', 'bot',
    jsonb_build_object('run_id', run) FROM unnest(ARRAY[:ends, 'run_x']) run, generate_series(1, 5000) n
"""


async def test_a_run_ends_with_very_many_questions_at_once(db: Database, team: Team) -> None:
    """One by one they would take longer than a transaction may."""
    where = await place(db, team.workspace_id)
    async with db.workspace(team.workspace_id) as session:
        await session.execute(text(ASKED), {"workspace": team.workspace_id, "ends": where.run_id})
    async with db.workspace(team.workspace_id) as session:
        await runs.end(session, team.workspace_id, where.run_id, RunStatus.SUCCESS, None, BOT)
    found = "SELECT binding ->> 'run_id' AS run_id, status, resolved_by, count(*) AS n FROM decision GROUP BY 1, 2, 3"
    assert {tuple(row.values()) for row in await db.alone(team.workspace_id, found, {})} == {
        (where.run_id, "canceled", "policy", 5_000),
        ("run_x", "pending", None, 5_000),
    }
    withdrawn = await told(db, team.workspace_id, "decision.canceled")
    assert len({event["subject_id"] for event in withdrawn}) == len(withdrawn) == 5_000
    assert {(event["actor"], event["data"]["binding"]["run_id"]) for event in withdrawn} == {("policy", where.run_id)}


async def test_a_run_has_so_many_open_and_no_more(db: Database, team: Team) -> None:
    where = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1")
    await fill(db, where, MAX_RESERVATIONS - 1)
    for _ in range(2):
        await ledger.reserve(db, at(where, "last"), usd("0.01"), BOT)
    with pytest.raises(Conflict, match="settle or release") as refused:
        await ledger.reserve(db, at(where, "more"), usd("0.01"), BOT)
    assert refused.value.code == "too_many_reservations"
    await ledger.spend(db, at(where, "told"), usd("0.01"), BOT)
    other = await place(db, team.workspace_id, agent_id="bot", ticket_id="T-1")
    await ledger.reserve(db, other, usd("0.01"), BOT)
    await ledger.release(db, at(where, "last"), BOT)
    await ledger.reserve(db, at(where, "more"), usd("0.01"), BOT)
    assert (await runs_status(db, where), len(await counters(db, team.workspace_id))) == (None, 5)


async def runs_status(db: Database, where: Place) -> str | None:
    [row] = await db.alone(where.workspace_id, "SELECT status FROM run WHERE run_id = %(id)s", {"id": where.run_id})
    status: str | None = row["status"]
    return status


OLD = """
INSERT INTO workspace (workspace_id, slug, name) VALUES ('w', 'w', 'W');
INSERT INTO run (workspace_id, run_id, agent_id, created_by, status, ended_at) VALUES
    ('w', 'open', 'bot', 'x', NULL, NULL), ('w', 'ended', 'bot', 'x', 'success', now());
INSERT INTO budget (workspace_id, scope, subject, period) VALUES
    ('w', 'run', 'open', ''), ('w', 'run', 'ended', ''), ('w', 'agent_day', 'bot', '2026-01-01'),
    ('w', 'agent_day', 'bot', '2026-01-02'), ('w', 'workspace_month', '', '2026-01');
INSERT INTO ledger
    (workspace_id, run_id, agent_id, cost_id, kind, tokens_in, tokens_out, calls, usd, holder, day, month)
SELECT 'w', run_id, 'bot', cost_id, kind, 0, 0, 1, 0, 'bot', day, '2026-01' FROM (VALUES
    ('open', '1', 'reserve', '2026-01-01'), ('open', '2', 'reserve', '2026-01-02'),
    ('open', '3', 'reserve', '2026-01-02'), ('open', '3', 'settle', '2026-01-02'),
    ('open', '4', 'reserve', '2026-01-02'), ('open', '4', 'release', '2026-01-02'),
    ('ended', '1', 'reserve', '2026-01-02'), ('ended', '1', 'release', '2026-01-02')
) AS t (run_id, cost_id, kind, day);
"""


def test_those_that_are_open_when_the_count_begins_are_counted(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    migrate(url, "0024")
    rows(url, OLD)
    migrate(url)
    assert rows(url, "SELECT scope, subject, period, reservations FROM budget ORDER BY 1, 2, 3") == [
        ("agent_day", "bot", "2026-01-01", 1),
        ("agent_day", "bot", "2026-01-02", 1),
        ("run", "ended", "", 0),
        ("run", "open", "", 2),
        ("workspace_month", "", "2026-01", 2),
    ]
