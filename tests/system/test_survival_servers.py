"""SIGKILL of the API, of PostgreSQL and of Temporal; two workers at once; a host that never comes back."""

import time

import pytest

from models.domain.stages import StageName
from tests.fixtures.gates import GATED, Gate, HeldPush, gates
from tests.fixtures.product import Latches, Product
from tests.fixtures.progress import Progress
from tests.fixtures.waiting import until
from workflows.client import connect

pytestmark = pytest.mark.timeout(240)

ON_ANOTHER_HOST = 15.0
"""Seconds until a mission goes on elsewhere when its host is gone."""


async def test_the_api_killed_while_an_approval_waits(product: Product) -> None:
    repo = product.repo()
    mission = await product.file(repo, trust_requirements={"requires_governance_approval": True})
    decision = await product.pending_decision(mission)
    await product.stack.kill("api")
    progress = Progress(product, [mission])
    await product.stack.start("api")
    await product.resolve(decision, "approve")
    await progress.resumes()
    assert (await product.ended(mission))["outcome"] == "merged"
    product.assert_unharmed(mission, repo)
    await product.no_strays()


async def test_an_answer_given_while_no_worker_runs(product: Product) -> None:
    repo = product.repo()
    mission = await product.file(repo, trust_requirements={"requires_governance_approval": True})
    decision = await product.pending_decision(mission)
    await product.stack.kill("worker")
    await product.resolve(decision, "approve")
    progress = Progress(product, [mission])
    await product.stack.start("worker")
    await progress.resumes()
    assert (await product.ended(mission))["outcome"] == "merged"
    product.assert_unharmed(mission, repo)
    await product.no_strays()


@pytest.mark.parametrize("server", ["postgres", "temporal"])
async def test_a_server_killed_in_mid_run(product: Product, server: str) -> None:
    missions = {await product.file(repo): repo for repo in [product.repo() for _ in range(3)]}
    sql = "SELECT count(*) AS n FROM stage WHERE mission_id = ANY(%s)"
    await until(lambda: product.rows(sql, list(missions))[0]["n"] >= 4, 60)
    await product.stack.kill(server)
    await product.stack.start(server)
    await Progress(product, missions).resumes()
    for mission, repo in missions.items():
        assert (await product.ended(mission))["outcome"] == "merged"
        product.assert_unharmed(mission, repo)
    await product.no_strays()


async def test_two_workers_at_once_do_each_stage_once(product: Product) -> None:
    await product.stack.add_worker("worker-2", {})
    try:
        repos = [product.repo() for _ in range(4)]
        missions = [await product.file(repo) for repo in repos]
        for mission, repo in zip(missions, repos, strict=True):
            assert (await product.ended(mission))["outcome"] == "merged"
            product.assert_unharmed(mission, repo)
    finally:
        await product.stack.stop("worker-2")


async def test_a_mission_goes_on_elsewhere_when_its_host_is_gone(product: Product) -> None:
    repo = product.repo()
    with Latches(product.url) as latches:
        mission = await product.file(repo, execute=False)
        latches.hold(mission, StageName.SECURITY_SCAN.value, "begin")
        await product.execute(mission)
        await until(lambda: latches.waiting(mission, StageName.SECURITY_SCAN.value, "begin"), 60)
        other = product.root / "other-host"
        other.mkdir()
        key = str(product.stack.settings.signing_key)
        env = {"MC_HOST_ID": "other", "MC_DATA_DIR": str(other), "MC_SIGNING_KEY_FILE": key}
        await product.stack.add_worker("worker-elsewhere", env)
        await product.stack.kill("worker")
        latches.lift()
        gone = time.time()
    try:
        ended = await product.ended(mission)
        assert ended["outcome"] == "merged"
        sql = "SELECT extract(epoch FROM ended_at) AS at FROM stage WHERE mission_id = %s AND stage = 'security_scan'"
        assert float(product.rows(sql, mission)[0]["at"]) - gone <= ON_ANOTHER_HOST
    finally:
        await product.stack.stop("worker-elsewhere")
        await product.stack.start("worker")
    await swept(product, mission)
    product.assert_unharmed(mission, repo)


async def swept(product: Product, mission: str) -> None:
    """Wait until the reconciler has made the returned host clear up."""
    sql = "SELECT 1 FROM workbench WHERE mission_id = %s AND closed_at IS NULL"
    await until(lambda: not product.rows(sql, mission), 60)


async def terminate(product: Product, mission: str) -> None:
    """End a mission's workflow as with Temporal's own tools, and see the reconciler close it and clear up."""
    client = await connect(product.stack.settings)
    await client.get_workflow_handle(f"mission/default/{mission}").terminate(reason="by hand")
    ended = await product.ended(mission, 60)
    assert (ended["status"], ended["outcome"]) == ("escalated", "terminated")
    await swept(product, mission)
    assert not (product.stack.settings.data_dir / "workbenches" / "default" / mission).exists()


async def test_a_mission_terminated_while_it_waits_gives_back_its_worktree(product: Product) -> None:
    mission = await product.file(product.repo(), trust_requirements={"requires_governance_approval": True})
    await product.pending_decision(mission)
    await terminate(product, mission)
    assert product.rows("SELECT status FROM decision WHERE mission_id = %s", mission) == [{"status": "canceled"}]
    assert product.strays(mission) == []


async def test_a_mission_terminated_while_its_command_runs_gives_back_its_processes(product: Product) -> None:
    async with gates(product) as gate:
        mission = await product.file(product.repo(GATED), execute=False)
        gate.held.add(Gate(mission, "base", "test"))
        await product.execute(mission)
        await until(lambda: gate.stands_at(Gate(mission, "base", "test")), 60)
        assert product.strays(mission), "the search for strays sees no command"
        await terminate(product, mission)
        assert product.strays(mission) == []


async def test_a_mission_terminated_in_the_merge_slot_gives_back_the_slot(product: Product) -> None:
    repo = product.repo()
    push = HeldPush(repo)
    mission = await product.file(repo)
    await until(push.is_there, 60)
    proven = {"must_pass_tests": ["calc::stands"], "pass_to_pass": True}
    next_one = await product.file(repo, patch={"more.txt": "more\n"}, criteria=proven)
    client = await connect(product.stack.settings)
    await client.get_workflow_handle(f"mission/default/{mission}").terminate(reason="by hand")
    ended = await product.ended(mission, 60)
    assert (ended["outcome"], "look for its Mission-Id" in ended["reason"]) == ("terminated", True)
    push.lift()
    assert (await product.ended(next_one))["outcome"] == "merged"
    await swept(product, mission)
    assert len(product.rows("SELECT * FROM capa WHERE mission_id = %s", mission)) == 1
    await product.no_strays()
