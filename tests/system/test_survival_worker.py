"""SIGKILL of the worker inside each of the stages: at its beginning, and when its work is done but not yet recorded."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from models.domain.stages import StageName
from tests.fixtures.git_repos import Repo
from tests.fixtures.product import Latches, Product, running
from tests.fixtures.waiting import until

pytestmark = pytest.mark.timeout(300)

GOES_ON_WITHIN = 5.0
"""Seconds from the worker's return to the mission's next step."""


@pytest.fixture(scope="module")
async def product(server_dir: Path) -> AsyncIterator[Product]:
    """The product, for the tests of this file."""
    root = server_dir / "survival-worker"
    root.mkdir()
    async with running(root) as product:
        yield product


async def kill_inside_every_stage(product: Product, moment: str) -> dict[StageName, tuple[str, Repo]]:
    """File one mission for each stage, and kill the worker when each is inside its own."""
    missions: dict[StageName, tuple[str, Repo]] = {}
    seen: set[StageName] = set()
    with Latches(product.url) as latches:
        for stage in StageName:
            repo = product.repo()
            mission = await product.file(repo, execute=False)
            latches.hold(mission, stage.value, moment)
            missions[stage] = (mission, repo)
            await product.execute(mission)

        def all_there() -> bool:
            seen.update(stage for stage in missions if latches.waiting(missions[stage][0], stage.value, moment))
            return len(seen) == len(StageName)

        await until(all_there, 120)
        await product.stack.kill("worker")
        latches.lift()
    return missions


@pytest.mark.parametrize("moment", ["begin", "end"])
async def test_a_worker_killed_inside_any_stage_loses_nothing(product: Product, moment: str) -> None:
    missions = await kill_inside_every_stage(product, moment)
    await product.stack.start("worker")
    for stage, (mission, repo) in missions.items():
        ended = await product.ended(mission, 180)
        assert (ended["status"], ended["outcome"]) == ("resolved", "merged"), (stage, ended["reason"])
        product.assert_unharmed(mission, repo)
    assert product.strays() == []


@pytest.mark.parametrize("stage", [StageName.RUN_TESTS, StageName.MERGE, StageName.OBSERVE])
async def test_a_mission_goes_on_within_seconds_of_the_workers_return(product: Product, stage: StageName) -> None:
    repo = product.repo()
    with Latches(product.url) as latches:
        mission = await product.file(repo, execute=False)
        latches.hold(mission, stage.value, "end")
        await product.execute(mission)
        await until(lambda: latches.waiting(mission, stage.value, "end"), 60)
        await product.stack.kill("worker")
        latches.lift()
    await product.stack.start("worker")
    returned = time.time()
    await product.ended(mission)
    sql = "SELECT extract(epoch FROM ended_at) AS at FROM stage WHERE mission_id = %s AND stage = %s"
    went_on = float(product.rows(sql, mission, stage.value)[0]["at"])
    assert went_on - returned <= GOES_ON_WITHIN
    product.assert_unharmed(mission, repo)
