"""A spender is killed in the middle: nothing is half done."""

import asyncio
import os
import sys
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from models.store import ledger
from models.store.connections import plain
from models.store.database import Database
from models.store.ledger import Place
from tests.fixtures.api import Team
from tests.fixtures.budgets import BOT, counters, entries, start
from tests.fixtures.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
ROWS = "SELECT count(*) AS rows FROM ledger WHERE cost_id LIKE %(name)s"


async def spend_until_killed(db: Database, url: str, workspace: str, name: str, runs: list[str], rows: int) -> None:
    """Let a process spend, and kill it when the ledger has so many rows of it."""
    command = [sys.executable, "-m", "tests.store.doomed_spender", url, workspace, name, *runs]
    child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})

    async def enough() -> bool:
        assert child.returncode is None, "it must not end by itself"
        [found] = await db.alone(workspace, ROWS, {"name": f"{name}-%"})
        return bool(found["rows"] >= rows)

    try:
        await eventually(enough)
    finally:
        child.kill()
        await child.wait()


async def require_whole(db: Database, workspace: str) -> set[tuple[str, str]]:
    """Hold every counter against the rows of the ledger; what is still reserved."""
    settled: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
    reserved: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
    rows = await entries(db, workspace)
    ended = {(row["run_id"], row["cost_id"]) for row in rows if row["kind"] != "reserve"}
    for row in rows:
        counters_of = (("run", row["run_id"]), ("agent_day", row["agent_id"]), ("workspace_month", ""))
        for counter in counters_of:
            if row["kind"] == "settle":
                settled[counter] += row["usd"]
            elif row["kind"] == "reserve" and (row["run_id"], row["cost_id"]) not in ended:
                reserved[counter] += row["usd"]
    for row in await counters(db, workspace):
        counter = row["scope"], row["subject"]
        assert (row["settled_usd"], row["reserved_usd"]) == (settled[counter], reserved[counter]), counter
    return {(row["run_id"], row["cost_id"]) for row in rows} - ended


@pytest.mark.timeout(120)
async def test_nothing_is_half_done(db: Database, team: Team, database_url: str) -> None:
    runs = [await start(db, team.workspace_id) for _ in range(8)]
    for number, rows in enumerate((1, 40, 77, 150)):
        await spend_until_killed(db, database_url, team.workspace_id, f"kill{number}", runs, rows)
        open_ones = await eventually_whole(db, database_url, team.workspace_id)
    for run_id, cost_id in open_ones:
        assert await ledger.release(db, Place(team.workspace_id, run_id, cost_id), BOT)
    assert await require_whole(db, team.workspace_id) == set()


async def eventually_whole(db: Database, url: str, workspace: str) -> set[tuple[str, str]]:
    """Look once the server has ended what the killed process began: when nobody is connected any more."""
    await db.close()
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    async with await psycopg.AsyncConnection.connect(plain(url), autocommit=True) as connection:

        async def nobody_is_left() -> bool:
            return await (await connection.execute(others)).fetchone() == (0,)

        await eventually(nobody_is_left)
    return await require_whole(db, workspace)
