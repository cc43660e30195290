"""The ledger does what a plain model of it does, whatever is asked in whatever order."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from models.domain.budgets import Cap, Key, Owner, Scope
from models.domain.caps import meant, owner_names
from models.domain.errors import MissionControlError
from models.store import budgets, corrections, ledger
from models.store.database import Database
from models.store.ledger import Place
from tests.fixtures.access import make_workspace
from tests.fixtures.budgets import BOT, OLGA, counters, entries, start, still_open, usd

RUNS = (("ann", "T-1"), ("ann", None), ("bob", "T-1"))
"""Whose each run is, and of which ticket."""
CAPPED = [("run", 0), ("run", 1), ("run", 2), ("ticket", "T-1"), ("agent_day", "ann"), ("agent_day", "bob")]
CAPPED.append(("workspace_month", ""))
OWNERS: dict[Any, list[tuple[str, Any]]] = {
    ("run", 0): [("run", 0), ("agent", "ann"), ("level", "intern")],
    ("run", 1): [("run", 1), ("agent", "ann"), ("level", "intern")],
    ("run", 2): [("run", 2), ("agent", "bob"), ("level", "intern")],
    ("ticket", "T-1"): [("ticket", "T-1"), ("category", "default")],
    ("agent_day", "ann"): [("agent", "ann"), ("level", "intern")],
    ("agent_day", "bob"): [("agent", "bob"), ("level", "intern")],
    ("workspace_month", ""): [("workspace", "")],
}
"""Whose cap each counter takes: the first that there is."""
LIMITS = sorted({(scope, *owner) for (scope, _), owners in OWNERS.items() for owner in owners}, key=str)
SHARED = [limit for limit in LIMITS if limit[1] in ("level", "category", "workspace")]

Counter = tuple[str, Any]
Limit = tuple[str, str, Any]
cents = st.integers(0, 40)
run, cost = st.integers(0, 2), st.integers(0, 2)
step = st.one_of(
    st.tuples(st.just("reserve"), run, cost, cents),
    st.tuples(st.just("spend"), run, cost, cents),
    st.tuples(st.just("settle"), run, cost, cents),
    st.tuples(st.just("release"), run, cost),
    st.tuples(st.just("adjust"), run, cost, st.integers(-20, 20)),
    st.tuples(st.just("cap"), st.sampled_from(LIMITS), st.integers(0, 100)),
    st.tuples(st.just("uncap"), st.sampled_from([limit for limit in LIMITS if limit not in SHARED])),
)


@dataclass
class Held:
    """What became of a cost."""

    amount: int
    kinds: set[str] = field(default_factory=lambda: {"reserve"})


class Model:
    """The rules in plain words: dictionaries of cents."""

    def __init__(self) -> None:
        self.limits: dict[Limit, int] = dict.fromkeys(SHARED, 60)
        self.caps = dict.fromkeys(CAPPED, 60)
        self.settled, self.reserved = dict.fromkeys(CAPPED, 0), dict.fromkeys(CAPPED, 0)
        self.crossed: set[Counter] = set()
        self.told: set[Counter] = set()
        self.blocked: dict[int, Counter] = {}
        self.held: dict[tuple[int, int], Held] = {}
        self.adjusted: dict[tuple[int, int], int] = {}

    def of(self, run: int) -> list[Counter]:
        agent, ticket = RUNS[run]
        of_ticket: list[Counter] = [("ticket", ticket)] if ticket else []
        return [("run", run), *of_ticket, ("agent_day", agent), ("workspace_month", "")]

    def open(self, counter: Counter) -> int:
        return sum(held.kinds == {"reserve"} and counter in self.of(run) for (run, _), held in self.held.items())

    def contain(self, run: int, counter: Counter) -> None:
        self.crossed.add(counter)
        self.told.add(counter)
        self.blocked.setdefault(run, counter)

    def reserve(self, run: int, cost: int, amount: int) -> str:
        if (run, cost) in self.held:
            return "done"
        if run in self.blocked:
            return "run_blocked"
        mine = self.of(run)
        over = [one for one in mine if one in self.crossed or self.settled[one] + amount > self.caps[one]]
        if over:
            self.contain(run, over[0])
            return "budget_exceeded"
        if any(self.settled[one] + self.reserved[one] + amount > self.caps[one] for one in mine):
            return "budget_reserved"
        self.held[run, cost] = Held(amount)
        for one in mine:
            self.reserved[one] += amount
        return "done"

    def settle(self, run: int, cost: int, amount: int, kind: str = "settle") -> str:
        held = self.held.get((run, cost))
        if held is None:
            return "reservation_not_found"
        if "settle" in held.kinds or kind in held.kinds:
            return "done"
        mine = self.of(run)
        is_overrun = amount > (held.amount if held.kinds == {"reserve"} else 0)
        beyond = [one for one in mine if self.settled[one] + amount > self.caps[one]]
        over = [one for one in beyond if is_overrun or one not in self.crossed]
        for one in mine:
            self.reserved[one] -= held.amount if held.kinds == {"reserve"} else 0
            self.settled[one] += amount
        held.kinds.add(kind)
        for one in over if kind == "settle" else ():
            self.contain(run, one)
        return "done"

    def spend(self, run: int, cost: int, amount: int) -> str:
        answer = self.reserve(run, cost, amount)
        if answer == "done":
            self.settle(run, cost, amount)
        return answer

    def release(self, run: int, cost: int) -> str:
        return self.settle(run, cost, 0, "release")

    def adjust(self, run: int, cost: int, amount: int) -> str:
        if (run, cost) in self.adjusted:
            return "done" if self.adjusted[run, cost] == amount else "cost_adjusted"
        if self.settled["run", run] + amount < 0:
            return "below_zero"
        self.adjusted[run, cost] = amount
        for one in self.of(run):
            self.settled[one] += amount
            was_spent = self.settled[one] - amount >= self.meant(one)
            if amount < 0 and one in self.crossed and was_spent and self.is_left(one):
                self.recap(one, self.meant(one), 0)
        return "done"

    def is_left(self, counter: Counter) -> bool:
        most, settled = self.meant(counter), self.settled[counter]
        return settled < most and settled + self.reserved[counter] <= most

    def meant(self, counter: Counter) -> int:
        named = [(counter[0], *owner) for owner in OWNERS[counter]]
        return next(self.limits[limit] for limit in named if limit in self.limits)

    def cap(self, limit: Limit, amount: int) -> str:
        return self.limit(self.limits | {limit: amount})

    def uncap(self, limit: Limit) -> str:
        return self.limit({each: amount for each, amount in self.limits.items() if each != limit})

    def limit(self, limits: dict[Limit, int]) -> str:
        before = {counter: self.meant(counter) for counter in CAPPED}
        self.limits = limits
        for counter, most in before.items():
            if self.meant(counter) != most:
                self.recap(counter, self.meant(counter), most)
        return "done"

    def recap(self, counter: Counter, amount: int, before: int) -> None:
        used, held = self.settled[counter] + self.reserved[counter], self.caps[counter]
        self.caps[counter] = max(amount, used)
        opens = amount > min(before, held) and amount > self.settled[counter]
        if used > amount or (counter in self.crossed and not opens):
            self.crossed.add(counter)
        elif counter in self.crossed:
            self.crossed.remove(counter)
            self.told.discard(counter)
            for run in [run for run, by in self.blocked.items() if by == counter]:
                del self.blocked[run]
                if closed := [one for one in self.of(run) if one in self.told]:
                    self.blocked[run] = closed[0]


@dataclass
class Real:
    """The same, done."""

    db: Database
    workspace: str
    runs: list[str]

    async def do(self, name: str, *values: Any) -> str:
        try:
            await getattr(self, name)(*values)
        except MissionControlError as error:
            return error.code
        return "done"

    def place(self, run: int, cost: int) -> Place:
        return Place(self.workspace, self.runs[run], str(cost))

    async def reserve(self, run: int, cost: int, amount: int) -> None:
        await ledger.reserve(self.db, self.place(run, cost), usd(f"{amount / 100}"), BOT)

    async def spend(self, run: int, cost: int, amount: int) -> None:
        await ledger.spend(self.db, self.place(run, cost), usd(f"{amount / 100}"), BOT)

    async def settle(self, run: int, cost: int, amount: int) -> None:
        await ledger.settle(self.db, self.place(run, cost), usd(f"{amount / 100}"), BOT)

    async def release(self, run: int, cost: int) -> None:
        await ledger.release(self.db, self.place(run, cost), BOT)

    async def adjust(self, run: int, cost: int, amount: int) -> None:
        async with self.db.workspace(self.workspace) as session:
            await corrections.adjust(session, self.place(run, cost), Decimal(amount) / 100, "so", OLGA)

    async def cap(self, limit: Limit, amount: int | None) -> None:
        scope, owner, name = limit
        key = Key(Scope(scope), Owner(owner), self.runs[name] if owner == "run" else name)
        async with self.db.workspace(self.workspace) as session:
            wanted = None if amount is None else Cap(Decimal(amount) / 100)
            await budgets.set_limit(session, self.workspace, key, wanted, OLGA)

    async def uncap(self, limit: Limit) -> None:
        await self.cap(limit, None)

    async def strangely_capped(self) -> list[dict[str, Any]]:
        """Open counters that have another cap than is meant for them."""
        rows = await counters(self.db, self.workspace)
        async with self.db.workspace(self.workspace) as session:
            caps = await budgets.limits(session, self.workspace, *owner_names(rows))
        held = [(row, Cap(row["cap_usd"], row["cap_tokens"])) for row in rows if not row["crossed"]]
        return [row for row, cap in held if cap != meant(caps, row)]

    async def seen(self) -> dict[Counter, tuple[int, int, int, int, bool]]:
        rows = await counters(self.db, self.workspace)
        return {
            (row["scope"], self.runs.index(row["subject"]) if row["scope"] == "run" else row["subject"]): (
                int(row["cap_usd"] * 100),
                int(row["settled_usd"] * 100),
                int(row["reserved_usd"] * 100),
                row["reservations"],
                row["crossed"],
            )
            for row in rows
        }

    async def held(self) -> set[tuple[int, int]]:
        rows = await still_open(self.db, self.workspace)
        return {(self.runs.index(row["run_id"]), int(row["cost_id"])) for row in rows}

    async def blocked(self) -> dict[int, str]:
        found = "SELECT run_id, blocked_by FROM run WHERE status IS NOT NULL"
        rows = await self.db.alone(self.workspace, found, {})
        return {self.runs.index(row["run_id"]): row["blocked_by"] for row in rows}


async def made(db: Database) -> Real:
    workspace = f"team-{uuid4().hex[:12]}"
    async with db.system() as session:
        await make_workspace(session, workspace)
    real = Real(db, workspace, [await start(db, workspace, agent_id=agent, ticket_id=ticket) for agent, ticket in RUNS])
    for limit in SHARED:
        await real.cap(limit, 60)
    return real


@given(steps=st.lists(step, min_size=10, max_size=30))
@settings(
    max_examples=50,
    deadline=None,
    phases=[Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_it_is_what_the_model_says(db: Database, steps: list[tuple[Any, ...]]) -> None:
    real, model = await made(db), Model()
    for name, *values in steps:
        assert await real.do(name, *values) == getattr(model, name)(*values), (name, values)
        seen = await real.seen()
        assert seen == {
            one: (model.caps[one], model.settled[one], model.reserved[one], model.open(one), one in model.crossed)
            for one in CAPPED
        }
        assert await real.held() == {one for one, held in model.held.items() if held.kinds == {"reserve"}}
        assert await real.blocked() == {run: scope for run, (scope, _) in model.blocked.items()}
        assert await real.strangely_capped() == []
        if any(settled + reserved > most for most, settled, reserved, *_ in seen.values()):
            assert any(row["overrun"] for row in await entries(db, real.workspace))


async def test_the_model_and_the_ledger_can_differ(db: Database) -> None:
    """The comparison can fail: a model that forgets a call is told from what was done."""
    real, model = await made(db), Model()
    await real.do("spend", 0, 0, 10)
    assert (await real.seen())["run", 0] != (model.caps["run", 0], model.settled["run", 0], 0, 0, False)
    assert await real.do("spend", 0, 1, 60) == "budget_exceeded"
