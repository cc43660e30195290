"""What hosts work on a mission: reserved before it begins, settled once when it ends, and refused by the caps."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from models.contracts.pipeline import Conclusion
from models.domain.budgets import Key, Owner, RunStatus, Scope
from models.domain.errors import Conflict
from models.domain.stages import StageName
from models.domain.states import MissionOutcome
from models.store import compute, ledger, running
from models.store.compute import ComputeReserved
from models.store.ledger import Place
from models.tables.budgets import Entry, Run
from models.tables.missions import Decision
from tests.fixtures.budgets import BOT, MONTH, cap, clock_moved, counters, start, told, usd
from tests.fixtures.stage_hosts import FIRST_RUN, Case, Shop, do
from tests.fixtures.waiting import eventually, somebody_waits

PRICE = Decimal("0.00002")
RESERVED = 600 * PRICE


async def concluded(case: Case, outcome: MissionOutcome = MissionOutcome.FAILED) -> Entry:
    """End a mission, twice; what it paid."""
    end = Conclusion(ref=case.ref(StageName.RESOLVE), outcome=outcome, reason="so", merge_sha="a" * 40)
    for attempt in (1, 2):
        await do(case.host.records.conclude, end, attempt=attempt)
    entries: list[Entry] = await case.rows(Entry)
    [entry] = [row for row in entries if row.kind == "settle"]
    return entry


async def began(case: Case) -> None:
    """Start a mission, as stage 1 does."""
    await running.start(case.db, case.workspace_id, case.mission_id, FIRST_RUN, PRICE)


async def counters_of(case: Case) -> list[dict[str, Any]]:
    return await counters(case.db, case.workspace_id)


async def month(case: Case) -> dict[str, Any]:
    [row] = [row for row in await counters_of(case) if row["scope"] == "workspace_month"]
    return row


async def own_run(case: Case) -> Run:
    runs: list[Run] = await case.rows(Run)
    [run] = [run for run in runs if run.run_id == case.mission_id]
    return run


class TestReserve:
    async def test_it_is_promised_before_the_mission_begins_and_for_as_long_as_it_takes(
        self, shop: Shop, database_url: str
    ) -> None:
        case = await (await shop.mission()).begun()
        [entry] = await case.rows(Entry)
        assert (entry.kind, entry.usd, entry.held_until) == ("reserve", RESERVED, None)
        assert ((await month(case))["reserved_usd"], (await own_run(case)).status) == (RESERVED, None)
        assert [row["reservations"] for row in await counters(case.db, case.workspace_id)] == [1, 1]
        async with clock_moved(database_url, "1 year"), case.db.system() as session:
            assert case.workspace_id not in [place.workspace_id for place in await ledger.overdue(session, 200)]

    async def test_however_often_and_by_how_many_it_is_begun(self, shop: Shop) -> None:
        case = await shop.mission()
        await asyncio.gather(*(began(case) for _ in range(8)))
        assert len(await case.rows(Entry)) == 1
        assert (await month(case))["reserved_usd"] == RESERVED

    async def test_many_missions_share_a_month_to_the_cent(self, shop: Shop) -> None:
        await cap(shop.db, shop.workspace_id, MONTH, str(4 * RESERVED))
        cases = [first := await shop.mission(), *[await shop.another(first) for _ in range(6)]]
        answers = await asyncio.gather(*(began(case) for case in cases), return_exceptions=True)
        refused = [answer for answer in answers if answer is not None]
        assert len(refused) == 3
        assert all(isinstance(answer, ComputeReserved) for answer in refused), "others hold it, and may need less"
        held = await month(first)
        assert (held["reserved_usd"], held["reservations"]) == (4 * RESERVED, 4)

    async def test_a_cap_that_leaves_too_little_blocks_the_run_until_it_is_raised(self, shop: Shop) -> None:
        await cap(shop.db, shop.workspace_id, MONTH, "0.01")
        case = await shop.mission()
        for _ in range(2):
            with pytest.raises(Conflict, match=r"the workspace's limit for .* of 0.01 USD is crossed") as refused:
                await began(case)
            assert refused.value.code == "mission_blocked"
            month_of = (await month(case))["period"]
            assert refused.value.details == {"limit": "workspace_month", "subject": "", "period": month_of}
        run = await own_run(case)
        assert (run.status, run.blocked_by, await case.rows(Entry)) == ("blocked", "workspace_month", [])
        assert len(await told(case.db, case.workspace_id, "run.blocked")) == 1
        await cap(shop.db, shop.workspace_id, MONTH, "1")
        await began(case)
        assert (await own_run(case)).status is None
        assert (await month(case))["reserved_usd"] == RESERVED

    async def test_a_month_whose_tokens_are_spent_leaves_nothing(self, shop: Shop) -> None:
        await cap(shop.db, shop.workspace_id, MONTH, None, 100)
        place = Place(shop.workspace_id, await start(shop.db, shop.workspace_id), "1")
        await ledger.spend(shop.db, place, usd("0", 100), BOT)
        with pytest.raises(Conflict, match="of 100 tokens is crossed"):
            await began(await shop.mission())

    async def test_what_begun_calls_hold_is_waited_for(self, shop: Shop) -> None:
        await cap(shop.db, shop.workspace_id, MONTH, "0.02")
        place, case = Place(shop.workspace_id, await start(shop.db, shop.workspace_id), "1"), await shop.mission()
        await ledger.reserve(shop.db, place, usd("0.015"), BOT)
        with pytest.raises(ComputeReserved) as refused:
            await began(case)
        assert (refused.value.retryable, (await own_run(case)).status) == (True, None)
        await ledger.release(shop.db, place, BOT)
        await began(case)

    async def test_a_cap_of_its_own_asks_an_admin(self, shop: Shop) -> None:
        case = await shop.mission()
        await cap(shop.db, shop.workspace_id, Key(Scope.RUN, Owner.RUN, case.mission_id), "0.001")
        with pytest.raises(Conflict, match="the run's limit"):
            await began(case)
        async with shop.db.workspace(shop.workspace_id) as session:
            asked = await session.get(Decision, (shop.workspace_id, f"budget.run.{case.mission_id}.1"))
        assert asked
        assert asked.question["proposed"] == {"cap_usd": "0.01200", "cap_tokens": None}

    async def test_the_next_month_begins_with_nothing(self, shop: Shop, database_url: str) -> None:
        await cap(shop.db, shop.workspace_id, MONTH, "0.01")
        case = await shop.mission()
        with pytest.raises(Conflict):
            await began(case)
        await cap(shop.db, shop.workspace_id, MONTH, "0.015")
        other = await shop.another(case)
        await began(case)
        async with clock_moved(database_url, "1 month"):
            await began(other)
        both = [row["reserved_usd"] for row in await counters(shop.db, shop.workspace_id) if row["period"]]
        assert both == [RESERVED, RESERVED]


class TestSettle:
    async def test_a_mission_pays_by_the_second(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        entry, run = await concluded(case), await own_run(case)
        worked = await case.record(StageName.BRANCH_AND_PATCH)
        assert worked.ended_at is not None
        seconds = (worked.ended_at - worked.started_at).total_seconds()
        assert seconds > 0
        assert float(entry.usd) == pytest.approx(seconds * 0.00002, abs=0.00002 * 0.001)
        assert (run.status, run.ended_at is not None) == ("failed", True)
        assert (entry.unpriced, entry.overrun, entry.calls) == (False, False, 1)
        for row in await counters(case.db, case.workspace_id):
            assert (row["settled_usd"], row["reserved_usd"], row["reservations"]) == (entry.usd, 0, 0)

    async def test_all_missions_of_a_month_count_together(self, shop: Shop) -> None:
        first = await (await shop.mission()).patched()
        paid = [
            await concluded(first, MissionOutcome.MERGED),
            await concluded(await (await shop.another(first)).begun()),
        ]
        assert (await month(first))["settled_usd"] == sum(entry.usd for entry in paid)
        assert (await own_run(first)).status == "success"

    async def test_it_is_charged_to_the_month_that_promised_it(self, shop: Shop, database_url: str) -> None:
        case = await (await shop.mission()).patched()
        async with clock_moved(database_url, "1 month"):
            entry = await concluded(case)
        row = await month(case)
        assert (row["period"], row["settled_usd"], row["reserved_usd"]) == (entry.month, entry.usd, 0)

    async def test_what_takes_longer_than_it_reserved_is_paid_and_marked(self, shop: Shop) -> None:
        case = await shop.mission()
        await running.start(case.db, case.workspace_id, case.mission_id, FIRST_RUN, Decimal(0))
        entry = await concluded(await case.patched())
        assert (entry.usd > 0, entry.overrun) == (True, True)
        assert (await month(case))["reserved_usd"] == 0

    async def test_one_that_is_closed_before_it_reserved_anything(self, shop: Shop) -> None:
        case = await shop.mission()
        async with case.db.workspace(case.workspace_id) as session:
            await compute.pay(session, case.workspace_id, case.mission_id, RunStatus.FAILED, None)
        [entry] = await case.rows(Entry)
        assert (entry.kind, entry.usd, entry.unpriced, entry.overrun) == ("settle", 0, True, False)

    async def test_one_that_is_closed_while_it_reserves(self, shop: Shop) -> None:
        case = await shop.mission()
        await cap(shop.db, shop.workspace_id, MONTH, "0.01")
        with pytest.raises(Conflict):
            await began(case)
        await cap(shop.db, shop.workspace_id, MONTH, "1")
        async with case.db.workspace(case.workspace_id) as session:
            assert await compute.reserve(session, case.workspace_id, case.mission_id, PRICE, BOT) is None
            closing = asyncio.create_task(concluded(case))
            await eventually(lambda: somebody_waits(session))
        await closing
        assert [(row["scope"], row["reserved_usd"], row["reservations"]) for row in await counters_of(case)] == [
            ("run", 0, 0),
            ("workspace_month", 0, 0),
        ]

    async def test_none_reserves_once_it_is_closed(self, shop: Shop) -> None:
        case = await shop.mission()
        await cap(shop.db, shop.workspace_id, MONTH, "0.01")
        with pytest.raises(Conflict):
            await began(case)
        await concluded(case)
        await cap(shop.db, shop.workspace_id, MONTH, "1")
        async with case.db.workspace(case.workspace_id) as session:
            refused = await compute.reserve(session, case.workspace_id, case.mission_id, PRICE, BOT)
        assert isinstance(refused, Conflict)
        assert (await month(case))["reservations"] == 0

    async def test_a_blocked_one_that_is_closed(self, shop: Shop) -> None:
        await cap(shop.db, shop.workspace_id, MONTH, "0.01")
        case = await shop.mission()
        with pytest.raises(Conflict):
            await began(case)
        entry, run = await concluded(case), await own_run(case)
        assert (run.status, run.blocked_by) == ("failed", None)
        assert entry.usd == 0
