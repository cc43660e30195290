"""How often a mission is told that a limit blocks one of its runs: a workflow takes 10,000 signals at most."""

from datetime import timedelta

from sqlalchemy import text

from models.store import blocks
from models.store.blocks import AT_WILL, SELDOM
from tests.fixtures.budgets import clock_moved, start
from tests.fixtures.stage_hosts import Case, Shop, shop

__all__ = ["shop"]

LIMIT = 10_000


async def flip(shop: Shop, case: Case, run: str) -> None:
    """Let the mission's row say otherwise than its run, as a run that is blocked and ended again and again does."""
    async with shop.db.system() as session:
        await session.execute(
            text(
                "UPDATE run SET status = 'blocked', blocked_by = 'run', blocked_period = '', reason = 'so'"
                " WHERE run_id = :run"
            ),
            {"run": run},
        )
        await session.execute(
            text("UPDATE mission SET status = 'in_progress', stage = 'governance' WHERE mission_id = :mission"),
            {"mission": case.mission_id},
        )


async def tell(shop: Shop, here: str | None) -> list[tuple[str, str]]:
    async with shop.db.system() as session:
        return await blocks.to_tell(session, here)


async def test_the_first_are_told_at_once_and_the_others_ever_more_rarely(shop: Shop, database_url: str) -> None:
    case = await shop.mission()
    await flip(shop, case, await start(shop.db, shop.workspace_id, mission_id=case.mission_id))
    mission = (shop.workspace_id, case.mission_id)
    for number in range(AT_WILL + 1):
        assert await tell(shop, shop.workspace_id) == [mission], number
    assert await tell(shop, shop.workspace_id) == [], "a second has to pass"
    async with clock_moved(database_url, "2 seconds"):
        assert mission in await tell(shop, None), "the reconciler looks at all workspaces"
        assert await tell(shop, shop.workspace_id) == []


async def test_none_is_forgotten(shop: Shop, database_url: str) -> None:
    case = await shop.mission()
    await flip(shop, case, await start(shop.db, shop.workspace_id, mission_id=case.mission_id))
    async with shop.db.system() as session:
        await session.execute(
            text("UPDATE mission SET blocks_told = 9000, blocks_told_at = mc_now() WHERE workspace_id = :w"),
            {"w": shop.workspace_id},
        )
    assert await tell(shop, shop.workspace_id) == []
    async with clock_moved(database_url, f"{SELDOM} seconds"):
        assert len(await tell(shop, shop.workspace_id)) == 1
    assert len(await tell(shop, shop.workspace_id)) == 1, "a clock that was set back keeps nobody waiting"


async def test_at_once_each_is_told_once(shop: Shop) -> None:
    case = await shop.mission()
    await flip(shop, case, await start(shop.db, shop.workspace_id, mission_id=case.mission_id))
    async with shop.db.system() as first, shop.db.system() as second:
        assert len(await blocks.to_tell(first, shop.workspace_id)) == 1
        assert await blocks.to_tell(second, shop.workspace_id) == [], "who comes second waits for nobody"


def test_it_takes_weeks_to_use_up_what_a_workflow_takes() -> None:
    waits = [min(max(number - AT_WILL, 0), SELDOM) for number in range(LIMIT)]
    assert timedelta(seconds=sum(waits)) > timedelta(days=60)
