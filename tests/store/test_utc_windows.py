"""The windows of limits are UTC's, whatever zone a database or session is in."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from models.store.database import Database
from models.store.ledger_statements import DAY, MONTH
from tests.fixtures.budgets import clock_moved

ZONES = ("Etc/GMT-14", "Etc/GMT+12")
"""The first and the last in which a day begins."""


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("minutes", [-30, 30])
async def test_days_and_months_turn_at_midnight_utc(db: Database, database_url: str, zone: str, minutes: int) -> None:
    now = datetime.now(UTC)
    turn = (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)
    then = turn + timedelta(minutes=minutes)
    async with clock_moved(database_url, f"{(then - now).total_seconds()} seconds"), db.system() as session:
        await session.execute(text("SELECT set_config('timezone', :zone, true)"), {"zone": zone})
        found = (await session.execute(text(f"SELECT {DAY} AS day, {MONTH} AS month"))).one()
    assert (found.day, found.month) == (then.strftime("%Y-%m-%d"), then.strftime("%Y-%m"))
