"""Pausing and cancelling missions whose commands really run, and whose merges are really there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from models.domain.ids import mission_workflow_id
from tests.fixtures.gates import GATED, Gate, Gates, gates
from tests.fixtures.git_repos import Repo
from tests.fixtures.product import Product
from tests.fixtures.resets import reset
from tests.fixtures.waiting import until
from workflows.client import connect

pytestmark = pytest.mark.timeout(120)

LONG, SHORT = {"observation_window_minutes": 10}, {"observation_window_minutes": 0.1}


async def told(product: Product, mission: str, command: str, **body: Any) -> dict[str, Any]:
    """Give a command that is taken; the answer."""
    answer = await product.api.post(f"/missions/{mission}/{command}", json=body)
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


@asynccontextmanager
async def held_in_tests(product: Product, repo: Repo) -> AsyncIterator[tuple[str, Gates]]:
    """Run a mission whose tests at the base do not end until the gates are lifted."""
    async with gates(product) as gate:
        mission = await product.file(repo, execute=False)
        held = Gate(mission, "base", "test")
        gate.held.add(held)
        await product.execute(mission)
        await until(lambda: gate.stands_at(held), 60)
        assert product.strays(mission), "the search for strays sees no command"
        yield mission, gate


async def test_a_pause_stops_the_running_command_and_resume_does_the_stage_again(product: Product) -> None:
    repo = product.repo(GATED)
    async with held_in_tests(product, repo) as (mission, gate):
        answer = await told(product, mission, "pause", reason="lunch")
        assert (answer["effect"], answer["stage"]) == ("stops_command", "run_tests")
        await until(lambda: product.strays(mission) == [])
        assert (await product.mission(mission))["paused"]
        gate.lift()
        assert (await told(product, mission, "resume"))["effect"] == "resumed"
        assert (await product.ended(mission))["outcome"] == "merged"
    product.assert_unharmed(mission, repo)


async def test_a_cancel_while_a_command_runs_leaves_nothing(product: Product) -> None:
    repo = product.repo(GATED)
    refs = repo.git("for-each-ref")
    async with held_in_tests(product, repo) as (mission, _):
        assert (await told(product, mission, "cancel", reason="no need"))["effect"] == "cleans_up"
        ended = await product.ended(mission)
        assert (ended["status"], ended["outcome"], ended["reason"]) == ("escalated", "canceled", "no need")
        assert product.strays(mission) == []
    assert not (product.stack.settings.data_dir / "workbenches" / "default" / mission).exists()
    assert product.rows("SELECT * FROM workbench WHERE mission_id = %s AND closed_at IS NULL", mission) == []
    assert product.rows("SELECT * FROM capa WHERE mission_id = %s", mission) == []
    assert repo.git("for-each-ref") == refs


async def test_a_cancel_after_the_merge_keeps_it_or_takes_it_back(product: Product) -> None:
    repos = {"keep": product.repo(), "roll_back": product.repo()}
    trees = {how: repo.git("rev-parse", "main^{tree}") for how, repo in repos.items()}
    missions = {how: await product.file(repo, criteria=LONG) for how, repo in repos.items()}
    merges = {how: await product.observing(mission) for how, mission in missions.items()}
    unsaid = await product.api.post(f"/missions/{missions['keep']}/cancel", json={})
    assert (unsaid.status_code, unsaid.json()["error"]["code"]) == (409, "merged_choice_required")
    effects = {how: (await told(product, missions[how], "cancel", merged=how))["effect"] for how in repos}
    assert effects == {"keep": "keeps_merge", "roll_back": "rolls_back"}
    kept, gone = await asyncio.gather(*map(product.ended, missions.values()))
    assert (kept["outcome"], kept["revert_sha"], repos["keep"].sha("main")) == ("canceled", None, merges["keep"])
    assert (gone["outcome"], gone["revert_sha"]) == ("rolled_back", repos["roll_back"].sha("main"))
    assert repos["roll_back"].git("rev-parse", "main^{tree}") == trees["roll_back"]
    for mission in missions.values():
        assert len(product.rows("SELECT * FROM capa WHERE mission_id = %s", mission)) == 1
    await product.no_strays()


async def test_a_workflow_reset_after_its_merge_observes_that_merge(product: Product) -> None:
    repos = {"good": product.repo(), "bad": product.repo()}
    missions = {name: await product.file(repo, subsystem_id=name, criteria=SHORT) for name, repo in repos.items()}
    merges = {name: await product.observing(mission) for name, mission in missions.items()}
    client = await connect(product.stack.settings)
    for mission in missions.values():
        await reset(client, mission_workflow_id("default", mission), to_start=True)
    event = {"type": "subsystem.error", "subject": {"kind": "subsystem", "id": "bad"}, "data": {"message": "off"}}
    assert (await product.api.post("/events", json=event)).status_code == 202
    good, bad = await asyncio.gather(*map(product.ended, missions.values()))
    assert (good["outcome"], good["merge_sha"]) == ("merged", merges["good"])
    product.assert_unharmed(missions["good"], repos["good"])
    assert (bad["outcome"], bad["merge_sha"], bad["reason"]) == ("rolled_back", merges["bad"], "error in bad: off")
    assert repos["bad"].sha("main") == bad["revert_sha"]
