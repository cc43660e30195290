"""What a mission is refused as expected is a line of the worker's log, and no traceback."""

from collections.abc import Callable

from models.domain.budgets import Cap
from models.domain.states import MissionOutcome
from tests.fixtures.blocks import capped, held
from tests.fixtures.budgets import MONTH
from tests.fixtures.logs import Lines, logged
from tests.fixtures.waiting import eventually
from tests.fixtures.workers import World

__all__ = ["logged"]


async def test_of_a_mission_that_a_limit_holds(world: World, logged: Callable[[], Lines]) -> None:
    lines = logged()
    await capped(world, MONTH, Cap(tokens=0))
    run = await world.start()
    await eventually(lambda: held(run))
    await capped(world, MONTH, Cap())
    await world.crew.reconcile()
    assert await run.outcome() is MissionOutcome.MERGED
    told = lines()
    [refused] = [line for line in told if line["event"] == "activity_refused"]
    assert (refused["code"], refused["level"]) == ("mission_blocked", "info")
    assert "of 0 tokens is crossed" in refused["reason"]
    assert [line for line in told if "exception" in line] == []
