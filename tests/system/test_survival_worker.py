"""SIGKILL of the worker inside each of the stages: at its beginning, while its command runs, when its work is done."""

from collections.abc import Collection

import pytest

from models.domain.stages import StageName
from tests.fixtures.gates import GATED, Gate, HeldPush, gates
from tests.fixtures.git_repos import Repo
from tests.fixtures.product import Latches, Product
from tests.fixtures.progress import Progress
from tests.fixtures.waiting import until

pytestmark = pytest.mark.timeout(300)
PRODUCT = {"commands_at_once": 8}

COMMANDS = {
    "tests": ("base", "test"),
    "a scan": ("patched", "scan"),
    "a stress run": ("patched", "stress"),
    "a probe": ("merged", "probe"),
    "the last tests of the window": ("merged", "test"),
}
"""What runs in which checkout when the worker dies."""


async def kill_inside_every_stage(product: Product, moment: str) -> dict[str, Repo]:
    """File one mission for each stage, and kill the worker when each is inside its own."""
    repos = {stage: product.repo() for stage in StageName}
    filed = {await product.file(repo, execute=False): stage for stage, repo in repos.items()}
    there: set[str] = set()
    with Latches(product.url) as latches:
        for mission, stage in filed.items():
            latches.hold(mission, stage.value, moment)
            await product.execute(mission)

        def all_there() -> bool:
            there.update(mission for mission in filed if latches.waiting(mission, filed[mission].value, moment))
            return len(there) == len(filed)

        await until(all_there, 120)
        await product.stack.kill("worker")
        latches.lift()
    return {mission: repos[stage] for mission, stage in filed.items()}


@pytest.mark.parametrize("moment", ["begin", "end"])
async def test_a_worker_killed_inside_any_stage_loses_nothing(product: Product, moment: str) -> None:
    missions = await kill_inside_every_stage(product, moment)
    await comes_back(product, missions)
    await end_merged(product, missions)


async def test_a_worker_killed_while_its_commands_run_leaves_none_of_them(product: Product) -> None:
    missions: dict[str, Repo] = {}
    async with gates(product) as gate:
        for tree, command in COMMANDS.values():
            repo = product.repo(GATED)
            mission = await product.file(repo, execute=False)
            missions[mission] = repo
            gate.held.add(Gate(mission, tree, command))
            await product.execute(mission)
        await until(lambda: all(map(gate.stands_at, gate.held)), 120)
        assert all(product.strays(mission) for mission in missions), "the search for strays sees no command"
        await product.stack.kill("worker")
        await product.no_strays()
        gate.lift()
        await comes_back(product, missions)
        await end_merged(product, missions)


@pytest.mark.parametrize("hook", ["update", "post-receive"])
async def test_a_worker_killed_while_it_pushes_merges_once(product: Product, hook: str) -> None:
    repo = product.repo()
    push = HeldPush(repo, hook)
    mission = await product.file(repo)
    await until(push.is_there, 60)
    assert product.strays(repo.path.parent.name), "the search for strays sees no push"
    await product.stack.kill("worker")
    await comes_back(product, [mission])  # while the hook, which is its owner's, still runs
    push.lift()
    await end_merged(product, {mission: repo})


async def comes_back(product: Product, missions: Collection[str]) -> None:
    """Bring the worker back, and see its missions go on."""
    progress = Progress(product, missions)
    await product.stack.start("worker")
    await progress.resumes()


async def end_merged(product: Product, missions: dict[str, Repo]) -> None:
    """Hold missions to the end they would have had."""
    for mission, repo in missions.items():
        ended = await product.ended(mission, 180)
        assert (ended["status"], ended["outcome"]) == ("resolved", "merged"), (mission, ended["reason"])
        product.assert_unharmed(mission, repo)
    await product.no_strays()
