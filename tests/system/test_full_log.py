"""A disk that is full for logs alone: what they tell of goes on."""

import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from tests.fixtures.product import Product
from tests.fixtures.waiting import eventually
from worker.dev.process import Child
from worker.dev.programs import is_ready

pytestmark = pytest.mark.timeout(240)

FULL = Path("/dev/full")
"""Each write there fails as on a full disk (ENOSPC)."""
REPORT = {"type": "subsystem.report", "subject": {"kind": "subsystem", "id": "calc"}}


@asynccontextmanager
async def logging_nowhere(product: Product) -> AsyncIterator[list[Child]]:
    """Run the worker and the API with a log that takes nothing."""
    for part in ("worker", "api"):
        await product.stack.stop(part)
    children: list[Child] = []
    try:
        for module in ("worker", "api"):
            argv = [sys.executable, "-P", "-m", module]
            children.append(await Child.spawn(argv, log=FULL, death_signal=signal.SIGTERM, env=product.stack.env()))
        await eventually(lambda: is_ready(product.stack.settings))
        yield children
    finally:
        for child in children:
            await child.stop(signal.SIGTERM, 10)


async def test_no_request_and_no_mission_fails(product: Product) -> None:
    repo = product.repo()
    async with logging_nowhere(product) as children, httpx2.AsyncClient(trust_env=False) as anyone:
        posted = [(await product.api.post("/events", json=REPORT)).status_code for _ in range(20)]
        assert posted == [202] * 20
        mission = await product.file(repo)
        assert (await product.ended(mission))["outcome"] == "merged"
        metrics = (await anyone.get(f"{product.stack.settings.api_url}/metrics")).text
    product.assert_unharmed(mission, repo)
    [dropped] = re.findall(r"^mission_control_log_lines_dropped_total ([0-9.]+)$", metrics, re.MULTILINE)
    assert float(dropped) > len(posted), "each request has its line"
    worker, api = children
    assert (worker.exit_code, api.exit_code) == (0, -signal.SIGTERM), "as they end with a log, too"
