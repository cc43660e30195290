"""Reserving and settling a call, over 50 workspaces and on one hot cap, against two bare INSERT transactions.

Both sides are this process, with as many connections and as many callers at once. The bare transactions are
SQLAlchemy's; over 50 workspaces those of psycopg alone are measured, too.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from itertools import count

from psycopg_pool import AsyncConnectionPool
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.bare_api import pool_of
from benchmarks.measure import Comparison, Goal, Meter, Numbers, Side, alternate, percentile
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
UNJUDGED = Goal("calls_per_second", "higher", None)
CALLERS = 50
ACTOR = Actor("bench", "bench")
CALL = Charge(Usage(model="m", tokens_in=900, tokens_out=100), Decimal("0.0042"))
PAID = Charge(Usage(model="m", tokens_in=800, tokens_out=90), Decimal("0.0037"))

_TABLE = """
CREATE TABLE bare_entry (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, workspace_id text, run_id text, model text,
    tokens_in bigint, tokens_out bigint, usd numeric, at timestamptz DEFAULT now())
"""
_COLUMNS = ("workspace_id", "run_id", "model", "tokens_in", "tokens_out", "usd")


def _insert(value: str) -> str:
    values = ", ".join(value.format(name) for name in _COLUMNS)
    return f"INSERT INTO bare_entry ({', '.join(_COLUMNS)}) VALUES ({values}) RETURNING id"  # noqa: S608  # constants


_BY_SQLALCHEMY, _BY_PSYCOPG = text(_insert(":{}")), _insert("%({})s")
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

        def side(spend: Spend) -> Side:
            return lambda: _measure(spend, seconds, postgres)

        pool, found = pool_of(url), list[Comparison]()
        await pool.open()
        for name, goal, workspaces, bare in (
            ("ledger, 50 workspaces", GOAL, CALLERS, _bare(engine)),
            ("the same, bare psycopg", UNJUDGED, CALLERS, _plain(pool)),
            ("ledger, one hot cap", UNJUDGED, 1, _bare(engine)),
        ):
            places = [await _place(db, f"w{workspaces}-{number % workspaces}", number) for number in range(CALLERS)]
            async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                await connection.execute(text("ANALYZE"))  # as autovacuum does within a minute
            found.append(await alternate(name, goal, side(_ours(db, places)), side(bare), rounds))
        await pool.close()
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
        for charge in (CALL, PAID):
            async with engine.begin() as connection:
                (await connection.execute(_BY_SQLALCHEMY, _row(number, charge))).scalar_one()

    return spend


def _plain(pool: AsyncConnectionPool) -> Spend:
    async def spend(number: int) -> None:
        for charge in (CALL, PAID):
            async with pool.connection() as connection:
                await (await connection.execute(_BY_PSYCOPG, _row(number, charge))).fetchone()

    return spend


def _row(number: int, charge: Charge) -> dict[str, object]:
    tokens = {"tokens_in": charge.usage.tokens_in, "tokens_out": charge.usage.tokens_out}
    return {"workspace_id": f"w-{number}", "run_id": f"run-{number}", "model": "m", "usd": charge.usd, **tokens}


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
