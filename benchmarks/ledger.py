"""Reserving and settling a call, over 50 workspaces and on one hot cap, against two bare INSERT transactions.

Both sides are this process, with as many connections and as many callers at once.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from itertools import count

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.measure import Comparison, Goal, Meter, Numbers, alternate, percentile
from benchmarks.servers import serving
from models.domain.budgets import Cap, Key, Owner, Scope
from models.domain.prices import Charge, Usage
from models.schemas.runs import RunCreate
from models.settings import Settings
from models.store import budgets, ledger, runs
from models.store.database import Database
from models.store.events import Actor
from models.store.ledger import Place
from models.store.migrate import migrate
from tests.fixtures.access import make_workspace

GOAL = Goal("calls_per_second", "higher", 0.5)
HOT = Goal("calls_per_second", "higher", None)
CALLERS = 50
ACTOR = Actor("bench", "bench")
CALL = Charge(Usage(model="m", tokens_in=900, tokens_out=100), Decimal("0.0042"))
PAID = Charge(Usage(model="m", tokens_in=800, tokens_out=90), Decimal("0.0037"))

_TABLE = """
CREATE TABLE bare_entry (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, workspace_id text, run_id text, model text,
    tokens_in bigint, tokens_out bigint, usd numeric, at timestamptz DEFAULT now())
"""
_INSERT = text(
    "INSERT INTO bare_entry (workspace_id, run_id, model, tokens_in, tokens_out, usd)"
    " VALUES (:workspace_id, :run_id, :model, :tokens_in, :tokens_out, :usd) RETURNING id"
)
_MONTH = Key(Scope.WORKSPACE_MONTH, Owner.WORKSPACE)

Spend = Callable[[int], Awaitable[None]]


async def run(quick: bool) -> list[Comparison]:
    """Compare."""
    seconds, rounds = (2.0, 3) if quick else (6.0, 5)
    async with serving("postgres") as stack:
        assert stack.settings.database_url is not None
        url = stack.settings.database_url.get_secret_value()
        await asyncio.to_thread(migrate, url)
        db, engine = Database.from_settings(Settings(DATABASE_URL=url)), _engine(url)
        postgres = stack.pid("postgres")
        async with engine.begin() as connection:
            await connection.execute(text(_TABLE))

        async def bare() -> Numbers:
            return await _measure(_bare(engine), seconds, postgres)

        found = []
        for name, goal, workspaces in (("ledger, 50 workspaces", GOAL, CALLERS), ("ledger, one hot cap", HOT, 1)):
            places = [await _place(db, f"w{workspaces}-{number % workspaces}", number) for number in range(CALLERS)]

            async def ours(places: list[Place] = places) -> Numbers:
                return await _measure(_ours(db, places), seconds, postgres)

            async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                await connection.execute(text("ANALYZE"))  # as autovacuum does within a minute
            found.append(await alternate(name, goal, ours, bare, rounds))
        await db.close()
        await engine.dispose()
        return found


async def _measure(spend: Spend, seconds: float, postgres: int | None) -> Numbers:
    """Let all callers spend, each one call after another; how many were paid, and how long each took."""
    meter, until = Meter(postgres=postgres), time.perf_counter() + seconds
    took: list[float] = []

    async def caller(number: int) -> None:
        while (began := time.perf_counter()) < until:
            await spend(number)
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    found = {"calls_per_second": len(took) / meter.seconds, "p95_milliseconds": percentile(took, 0.95) * 1000}
    return {**found, **meter.cpu(per=len(took) / 1000)}


def _ours(db: Database, places: list[Place]) -> Spend:
    numbers = count(int(time.time() * 1000))

    async def spend(number: int) -> None:
        place = Place(places[number].workspace_id, places[number].run_id, str(next(numbers)))
        await ledger.reserve(db, place, CALL, ACTOR)
        await ledger.settle(db, place, PAID, ACTOR)

    return spend


def _bare(engine: AsyncEngine) -> Spend:
    async def spend(number: int) -> None:
        row = {"workspace_id": f"w-{number}", "run_id": f"run-{number}", "model": "m"}
        for charge in (CALL, PAID):
            values = {"tokens_in": charge.usage.tokens_in, "tokens_out": charge.usage.tokens_out, "usd": charge.usd}
            async with engine.begin() as connection:
                (await connection.execute(_INSERT, row | values)).scalar_one()

    return spend


async def _place(db: Database, workspace_id: str, number: int) -> Place:
    """Start a run that all four limits hold, each far enough away."""
    async with db.system() as session:
        await make_workspace(session, workspace_id)
    agent, ticket = f"bot-{number}", f"T-{number}"
    far = Cap(Decimal(10**8), 10**15)
    async with db.workspace(workspace_id) as session:
        for key in (
            _MONTH,
            Key(Scope.RUN, Owner.AGENT, agent),
            Key(Scope.AGENT_DAY, Owner.AGENT, agent),
            Key(Scope.TICKET, Owner.TICKET, ticket),
        ):
            await budgets.set_limit(session, workspace_id, key, far, ACTOR)
        new = RunCreate(agent_id=agent, ticket_id=ticket)
        return Place(workspace_id, await runs.start(session, workspace_id, new, ACTOR), "")


def _engine(url: str) -> AsyncEngine:
    return create_async_engine(
        make_url(url).set(drivername="postgresql+psycopg"), pool_size=20, max_overflow=0, pool_pre_ping=False
    )
