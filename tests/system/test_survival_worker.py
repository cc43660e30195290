"""SIGKILL of the worker inside each of the stages: at its beginning, and when its work is done but not yet recorded."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from models.domain.stages import StageName
from tests.fixtures.git_repos import Repo
from tests.fixtures.product import Latches, Product, running
from tests.fixtures.waiting import until

pytestmark = pytest.mark.timeout(240)

GOES_ON_WITHIN = 5.0
"""Seconds from the worker's return to the mission's next step."""


@pytest.fixture(scope="module")
async def product(tmp_path_factory: pytest.TempPathFactory, server_dir: Path) -> AsyncIterator[Product]:
    """The product, for the tests of this file."""
    root = server_dir / "survival"
    root.mkdir()
    async with running(root) as product:
        yield product


async def held(product: Product, moment: str) -> dict[StageName, tuple[str, Repo]]:
    """File one mission for each stage, and kill the worker when each is inside its own."""
    latches = Latches(product.url)
    missions: dict[StageName, tuple[str, Repo]] = {}
    for stage in StageName:
        repo = product.repo()
        mission = await product.file(repo, execute=False)
        latches.hold(mission, stage.value, moment)
        missions[stage] = (mission, repo)
        await product.execute(mission)
    seen: set[StageName] = set()

    def all_there() -> bool:
        seen.update(stage for stage, (mission, _) in missions.items() if latches.waiting(mission, stage.value, moment))
        return len(seen) == len(StageName)

    await until(all_there, 90)
    await product.stack.kill("worker")
    latches.lift()
    latches.close()
    return missions


@pytest.mark.parametrize("moment", ["begin", "end"])
async def test_a_worker_killed_inside_any_stage_loses_nothing(product: Product, moment: str) -> None:
    missions = await held(product, moment)
    await product.stack.start("worker")
    returned = time.time()
    for stage, (mission, repo) in missions.items():
        ended = await product.ended(mission)
        assert (ended["status"], ended["outcome"]) == ("resolved", "merged"), (stage, ended["reason"])
        product.assert_unharmed(mission, repo)
    late = {}
    for stage, (mission, _) in missions.items():
        sql = "SELECT extract(epoch FROM min(occurred_at)) AS at FROM event WHERE subject_id = %s AND occurred_at > to_timestamp(%s)"
        late[stage.value] = float(product.rows(sql, mission, returned)[0]["at"]) - returned
    assert max(late.values()) <= GOES_ON_WITHIN, late
    assert product.strays() == []
