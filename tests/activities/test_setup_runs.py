"""Set-ups that can be run only once, and those that write into their checkout: stage 4 runs them, and is broken off."""

import asyncio
import os
import sys

import psutil

from models.domain.stages import StageName, StageStatus
from tests.fixtures.stage_hosts import Case, Shop, do
from tests.fixtures.waiting import eventually

TESTS = StageName.RUN_TESTS
CONFIG = ".mission-control.yaml"
FOLLOW = "test: sh check.sh\njunit: /out/junit.xml\nsetup: '{}'\n"
ONCE = FOLLOW.format("mkdir build && echo began && sleep 1")
LOCKING = FOLLOW.format("head -c 8 /dev/urandom | od -An -tx1 > package-lock.json")

WORKER = """
import asyncio, sys
from pathlib import Path
from models.contracts.pipeline import StageInput
from models.settings import Settings
from models.store.database import Database
from tests.fixtures.stage_hosts import Shop, do
root, workspace, task = Path(sys.argv[1]), sys.argv[2], StageInput.model_validate_json(sys.argv[3])
shop = Shop(root, Database.from_settings(Settings()), "", workspace)
asyncio.run(do(shop.host().testing.run_tests, task))
"""


async def began(case: Case) -> bool:
    return "began" in await case.log(TESTS)


class TestBrokenOff:
    async def test_by_a_pause(self, shop: Shop) -> None:
        case = await (await shop.mission({CONFIG: ONCE})).patched()
        first = asyncio.ensure_future(do(case.host.testing.run_tests, case.task(TESTS)))
        await eventually(lambda: began(case))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        again = await do(case.host.testing.run_tests, case.task(TESTS), attempt=2)
        assert again.status is StageStatus.PASSED, await case.log(TESTS)

    async def test_by_a_kill(self, shop: Shop) -> None:
        case = await (await shop.mission({CONFIG: ONCE})).patched()
        what = (str(shop.root), shop.workspace_id, case.task(TESTS).model_dump_json())
        worker = psutil.Popen([sys.executable, "-c", WORKER, *what], env={**os.environ, "DATABASE_URL": shop.owner_url})
        try:
            await eventually(lambda: began(case))
        finally:
            worker.kill()
            worker.wait()
        again = await do(case.host.testing.run_tests, case.task(TESTS), attempt=2)
        assert again.status is StageStatus.PASSED, await case.log(TESTS)


async def test_what_a_set_up_writes_does_not_rename_its_environment(shop: Shop) -> None:
    """A lock file it makes would ask for another environment each time, and file the base under one it never saw."""
    case = await (await shop.mission({CONFIG: LOCKING})).patched()
    assert (await do(case.host.testing.run_tests, case.task(TESTS))).status is StageStatus.PASSED
    assert len(list((case.host.benches.settings.cache_dir / "environments").iterdir())) == 1
