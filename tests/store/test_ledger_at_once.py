"""Many who spend of the same limits at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal

from psycopg import AsyncConnection

from models.domain.budgets import Key, Owner, Scope
from models.domain.errors import Conflict
from models.domain.policy import Level
from models.store import ledger
from models.store.connections import plain
from models.store.database import Database
from models.store.ledger import Place
from tests.fixtures.api import Team
from tests.fixtures.budgets import BOT, MONTH, at, cap, counters, entries, place, usd


async def test_two_hundred_at_once_spend_a_cap_to_the_cent(db: Database, team: Team, database_url: str) -> None:
    await cap(db, team.workspace_id, MONTH, "10")
    places = [await place(db, team.workspace_id, str(number)) for number in range(20)]
    calls = [at(places[number % 20], f"{number}") for number in range(200)]
    async with watched(database_url, team.workspace_id) as seen:
        answers = await asyncio.gather(
            *(ledger.spend(db, where, usd("0.1"), BOT) for where in calls), return_exceptions=True
        )
    assert len({one for one in seen if one < 10}) > 5, "it was looked at while they spent"
    assert max(seen) <= 10
    refused = [answer for answer in answers if answer is not True]
    assert {error.code for error in refused if isinstance(error, Conflict)} <= {"budget_exceeded", "run_blocked"}
    assert all(isinstance(error, Conflict) for error in refused)
    assert len(refused) == 100
    [month] = [row for row in await counters(db, team.workspace_id) if row["scope"] == "workspace_month"]
    assert (month["settled_usd"], month["reserved_usd"], month["crossings"]) == (Decimal(10), 0, 1)
    paid = [row["usd"] for row in await entries(db, team.workspace_id) if row["kind"] == "settle"]
    assert sum(paid) == 10


async def test_no_commit_goes_beyond_the_cap_while_two_hundred_reserve_and_settle(
    db: Database, team: Team, database_url: str
) -> None:
    await cap(db, team.workspace_id, MONTH, "10")
    places = [await place(db, team.workspace_id, str(number)) for number in range(20)]

    async def call(number: int) -> None:
        mine = at(places[number % 20], f"{number}")
        with suppress(Conflict):
            await ledger.reserve(db, mine, usd("0.1"), BOT)
            await (ledger.settle(db, mine, usd("0.07"), BOT) if number % 4 else ledger.release(db, mine, BOT))

    async with watched(database_url, team.workspace_id) as seen:
        await asyncio.gather(*(call(number) for number in range(200)))
    assert len(set(seen)) > 5, "it was looked at while they spent"
    assert max(seen) <= 10
    [month] = [row for row in await counters(db, team.workspace_id) if row["scope"] == "workspace_month"]
    paid = [row["usd"] for row in await entries(db, team.workspace_id) if row["kind"] == "settle"]
    assert (month["settled_usd"], month["reserved_usd"]) == (sum(paid), 0)


@asynccontextmanager
async def watched(url: str, workspace_id: str) -> AsyncIterator[list[Decimal]]:
    """Look, as often as one can, at what was settled and promised of the month; each look sees what is committed."""
    seen: list[Decimal] = []
    async with await AsyncConnection.connect(plain(url), autocommit=True) as connection:

        async def look() -> None:
            while True:
                found = await connection.execute(SPOKEN_FOR, [workspace_id])
                seen.extend(row[0] for row in await found.fetchall())

        watching = asyncio.create_task(look())
        try:
            yield seen
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching


SPOKEN_FOR = "SELECT settled_usd + reserved_usd FROM budget WHERE scope = 'workspace_month' AND workspace_id = %s"


async def test_all_four_limits_at_once_meet_without_a_deadlock(db: Database, team: Team) -> None:
    agents = [f"bot-{number}" for number in range(5)]
    made = [
        await place(db, team.workspace_id, agent_id=agents[number % 5], ticket_id=f"T-{number % 3}", level=Level.LEAD)
        for number in range(30)
    ]

    async def call(where: Place, number: int) -> None:
        mine = at(where, f"c{number}")
        await ledger.reserve(db, mine, usd("0.01", 5), BOT)
        await (ledger.settle(db, mine, usd("0.02", 9), BOT) if number % 3 else ledger.release(db, mine, BOT))

    async def turn_a_cap() -> None:
        for amount in ("3", "2", "3"):
            await cap(db, team.workspace_id, Key(Scope.RUN, Owner.LEVEL, "lead"), amount)

    await asyncio.gather(turn_a_cap(), *(call(where, number) for where in made for number in range(6)))
    sums: dict[str, Decimal] = {}
    for row in await counters(db, team.workspace_id):
        assert row["reserved_usd"] == row["reserved_tokens"] == 0
        sums[row["scope"]] = sums.get(row["scope"], Decimal(0)) + row["settled_usd"]
    assert set(sums.values()) == {Decimal("0.02") * 30 * 4}
