"""Waits that last hours, on a server whose clock skips them."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from temporalio.testing import WorkflowEnvironment

from models.domain.budgets import Cap
from models.domain.states import DecisionStatus
from tests.fixtures.blocks import capped, crossed, held
from tests.fixtures.budgets import MONTH
from tests.fixtures.instant_ports import Script
from tests.fixtures.time_skipping import time_skipping
from tests.fixtures.waiting import eventually
from tests.fixtures.workers import World, make_world


@pytest.fixture(scope="module")
async def clock() -> AsyncIterator[WorkflowEnvironment]:
    """The server, and the hands of its clock."""
    async with time_skipping() as environment:
        yield environment


@pytest.fixture(scope="module")
async def world(
    clock: WorkflowEnvironment, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    address = clock.client.service_client.config.target_host
    async with make_world(database_url, address, tmp_path_factory.mktemp("keys") / "key") as made:
        yield made


async def test_nothing_is_merged_without_an_answer_for_a_day(clock: WorkflowEnvironment, world: World) -> None:
    run = await world.start(requires_governance_approval=True)
    question = await run.question()
    await clock.sleep(timedelta(hours=24))
    assert (await run.question()).decision_id == question.decision_id
    assert run.script.tokens == []
    await run.answer(question, DecisionStatus.APPROVED)
    await clock.sleep(timedelta(minutes=1))
    await run.becomes("resolved")


async def test_an_answer_that_nobody_tells_is_heard(clock: WorkflowEnvironment, world: World) -> None:
    run = await world.start(requires_governance_approval=True)
    question = await run.question()
    await clock.sleep(timedelta(hours=5))
    await run.answer(question, DecisionStatus.APPROVED, tell=False)
    await clock.sleep(timedelta(hours=1, minutes=1))
    await run.becomes("resolved")
    looks = [
        event async for event in run.handle.fetch_history_events() if event.HasField("timer_fired_event_attributes")
    ]
    assert 5 <= len(looks) <= 12, "ever more rarely: a history is finite"


async def test_an_answer_that_nobody_tells_is_heard_soon(clock: WorkflowEnvironment, world: World) -> None:
    run = await world.start(requires_governance_approval=True, approval_timeout_minutes=60 * 24 * 3)
    await run.answer(await run.question(), DecisionStatus.DENIED, tell=False)
    await clock.sleep(timedelta(minutes=1, seconds=1))
    await run.becomes("escalated")


async def test_a_block_whose_end_nobody_tells_is_over(clock: WorkflowEnvironment, world: World) -> None:
    await capped(world, MONTH, Cap(tokens=0))
    run = await world.start()
    await eventually(lambda: held(run))
    await capped(world, MONTH, Cap())
    await clock.sleep(timedelta(minutes=1, seconds=1))
    await run.becomes("resolved")


async def test_a_block_that_nobody_tells_while_it_waits_holds_it(clock: WorkflowEnvironment, world: World) -> None:
    run = await world.start(requires_governance_approval=True)
    question = await run.question()
    await crossed(world, run)
    await run.answer(question, DecisionStatus.APPROVED, tell=False)
    await clock.sleep(timedelta(minutes=1, seconds=1))
    assert await eventually(lambda: held(run))
    assert run.script.tokens == [], "nothing is merged"


async def test_a_block_holds_nothing_that_ends(clock: WorkflowEnvironment, world: World) -> None:
    run = await world.start(Script(anomaly="errors rise", conflicts=1))
    question = await run.question("rollback")
    await crossed(world, run)
    await clock.sleep(timedelta(minutes=5))
    assert not await held(run)
    await run.answer(question, DecisionStatus.APPROVED)
    await run.becomes("escalated")


async def test_a_mission_observes_for_its_whole_window(clock: WorkflowEnvironment, world: World) -> None:
    run = await world.start(Script(observation_seconds=1800))
    await run.becomes("observing")
    await clock.sleep(timedelta(minutes=29))
    assert (await run.row()).status == "observing"
    assert run.script.looks >= 28
    await clock.sleep(timedelta(minutes=2))
    await run.becomes("resolved")
    assert run.script.looks == 30
