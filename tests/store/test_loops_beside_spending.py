"""A loop that is found while its run spends stays one, whatever becomes of the call."""

import asyncio
from collections.abc import Awaitable

import pytest

from models.domain.budgets import Key, Owner, Scope
from models.domain.errors import Conflict
from models.store import ledger, runs
from models.store.database import Database
from models.store.ledger import Place
from tests.fixtures.api import Team
from tests.fixtures.budgets import BOT, at, cap, clock_moved, place, run_of, told, usd
from tests.fixtures.waiting import eventually, somebody_waits


async def looped(db: Database, where: Place, call: Awaitable[bool]) -> bool | BaseException:
    """Find a loop, and let a call of the same run come before that is written; what became of the call."""
    async with db.workspace(where.workspace_id) as session:
        run = await runs.lock_open(session, where.workspace_id, where.run_id, BOT, also_blocked=True)
        await runs.block_loop(session, run, "git_push", BOT)
        calling = asyncio.ensure_future(call)
        await eventually(lambda: somebody_waits(session))
    [answer] = await asyncio.gather(calling, return_exceptions=True)
    return answer


async def holds(db: Database, team: Team, where: Place) -> tuple[list[str], str]:
    """What blocked the run, in order, and what holds it now."""
    blocked = [event["data"]["by"] for event in await told(db, team.workspace_id, "run.blocked")]
    return blocked, (await run_of(db, where))["blocked_by"]


async def test_a_call_that_meets_a_limit(db: Database, team: Team) -> None:
    where = await place(db, team.workspace_id, agent_id="bot")
    refused = await looped(db, where, ledger.reserve(db, where, usd("0.3"), BOT))
    assert isinstance(refused, Conflict)
    assert await holds(db, team, where) == (["loop"], "loop")
    await cap(db, team.workspace_id, Key(Scope.RUN, Owner.RUN, where.run_id), "9")
    with pytest.raises(Conflict, match="the same error"):
        await ledger.reserve(db, at(where, "2"), usd("0.3"), BOT)


async def test_a_call_that_is_granted_since_what_held_the_run_is_over(
    db: Database, team: Team, database_url: str
) -> None:
    await cap(db, team.workspace_id, Key(Scope.AGENT_DAY, Owner.AGENT, "bot"), "0.1")
    async with clock_moved(database_url, "-1 day"):
        where = await place(db, team.workspace_id, agent_id="bot")
        with pytest.raises(Conflict):
            await ledger.reserve(db, where, usd("0.2"), BOT)
    await place(db, team.workspace_id, agent_id="bot")  # today's counters are there
    await looped(db, where, ledger.reserve(db, at(where, "2"), usd("0.05"), BOT))
    assert await holds(db, team, where) == (["agent_day", "loop"], "loop")
