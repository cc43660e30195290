"""A call is charged by the price of its day, in UTC: wherever the database stands, and whenever it is told."""

import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import psycopg
import pytest
from fastapi import FastAPI

from models.settings import Settings
from models.store.connections import plain
from tests.fixtures.api import Team, make_app, running
from tests.fixtures.budgets import clock_moved

RUNS = "/api/v1/runs"
CALL = {"model": "m", "tokens_in": 1000}
PRICES = """
compute:
  - usd_per_second: 0.00002
models:
  m:
    - {{input: 100, output: 100, until: {today}}}
    - {{input: 1, output: 1, since: {today}, until: {tomorrow}}}
    - {{input: 50, output: 50, since: {tomorrow}}}
"""


@pytest.fixture
async def app(settings: Settings, tmp_path: Path) -> AsyncIterator[FastAPI]:
    """An API whose model is cheap today."""
    today = datetime.now(UTC).date()
    own = tmp_path / "config"
    shutil.copytree(settings.config_dir, own)
    (own / "prices.yaml").write_text(PRICES.format(today=today, tomorrow=today + timedelta(days=1)))
    application = make_app(settings.model_copy(update={"config_dir": own}))
    async with running(application):
        yield application


@pytest.fixture
async def far_away(database_url: str) -> AsyncIterator[None]:
    """Where it is another day than in UTC, at any time, in one of the two zones."""
    zone = "Etc/GMT-14" if datetime.now(UTC).hour >= 12 else "Etc/GMT+12"
    async with await psycopg.AsyncConnection.connect(plain(database_url), autocommit=True) as owner:
        name = owner.info.dbname
        await owner.execute(f"ALTER DATABASE \"{name}\" SET timezone = '{zone}'".encode())
        yield
        await owner.execute(f'ALTER DATABASE "{name}" RESET timezone'.encode())


async def begun(api: httpx2.AsyncClient) -> str:
    return f"{RUNS}/{(await api.post(RUNS, json={})).json()['data']['run_id']}"


async def test_the_day_is_that_of_utc(far_away: None, api: httpx2.AsyncClient, team: Team) -> None:
    paid = await api.post(f"{await begun(api)}/costs", json=CALL)
    assert paid.json()["data"]["usd"] == "0.001"


async def test_the_day_is_that_of_the_reservation(api: httpx2.AsyncClient, database_url: str) -> None:
    async with clock_moved(database_url, "-1 day"):
        run = await begun(api)
        held = (await api.post(f"{run}/reservations", json=CALL | {"hold_seconds": 86_400})).json()["data"]
    for _ in range(2):
        settled = await api.post(f"{run}/reservations/{held['cost_id']}/settle", json=CALL)
        assert (settled.status_code, settled.json()["data"]["usd"]) == (200, held["usd"]), settled.text
    assert held["usd"] == "0.1"
