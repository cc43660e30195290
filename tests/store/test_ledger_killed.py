"""A spender is killed in the middle: nothing is half done."""

import pytest

from models.store import ledger
from models.store.database import Database
from models.store.ledger import Place
from tests.fixtures.api import Team
from tests.fixtures.budgets import BOT, start
from tests.fixtures.killing import eventually_whole, require_whole, spend_until_killed


@pytest.mark.timeout(120)
async def test_nothing_is_half_done(db: Database, team: Team, database_url: str) -> None:
    runs = [await start(db, team.workspace_id) for _ in range(8)]
    for number, rows in enumerate((1, 40, 77, 150)):
        await spend_until_killed(db, database_url, team.workspace_id, f"kill{number}", runs, rows)
        open_ones = await eventually_whole(db, database_url, team.workspace_id)
    for run_id, cost_id in open_ones:
        assert await ledger.release(db, Place(team.workspace_id, run_id, cost_id), BOT)
    assert await require_whole(db, team.workspace_id) == set()
