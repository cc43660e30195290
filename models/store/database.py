"""Connections to Postgres: as the app (one workspace at a time) or as the system (all of them)."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection as PooledConnection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from models.settings import Settings
from models.store.connections import Connections, as_elsewhere, plain

EVENT_CHANNEL = "mission_control_event"
HINT_DELAY = 0.01
"""Seconds within which a commit with events is announced: NOTIFY inside the transaction would serialise commits."""

_SESSION_KEY = "events_appended"
_CLOCK_KEY = "clock"
log = structlog.get_logger()

Rows = list[dict[str, Any]]
Ask = Callable[[str, Mapping[str, Any]], Awaitable[Rows]]
"""Runs a statement in psycopg's own form (`%(name)s`) and gives its rows."""
Step = tuple[str, Mapping[str, Any]]
"""A statement in that form, and its values."""


@dataclass(frozen=True)
class Clock:
    """The database's time as it was read once, carried on from there by this process's own."""

    read: datetime
    at: float

    @classmethod
    def just_read(cls, read: datetime) -> "Clock":
        """Carry on from a time that the database has told now."""
        return cls(read, time.monotonic())

    @property
    def age(self) -> float:
        """Seconds since it was read: two clocks that are far apart in time may be apart in what they show."""
        return time.monotonic() - self.at

    @property
    def now(self) -> datetime:
        """The database's time of this moment."""
        return self.read + timedelta(seconds=self.age)


class Database:
    """The product's doors to Postgres: as the app for one workspace, as the system for all. One per process and loop.

    Each door has two pools: sessions of SQLAlchemy, and bare connections for what every stage or request does. Close it
    at the end.
    """

    def __init__(self, app_url: str, system_url: str, *, pool_size: int = 20) -> None:
        self._app = _engine(app_url, "mission_control_app", pool_size)
        self._alone = Connections(plain(app_url), pool_size, _options("mission_control_app"))
        self._system = _engine(system_url, "mission_control_system", pool_size)
        self._looking = Connections(plain(system_url), pool_size, _options("mission_control_system"))
        self._hint: asyncio.Task[None] | None = None
        self._clock: Clock | None = None

    @classmethod
    def from_settings(cls, settings: Settings, *, pool_size: int = 20) -> "Database":
        """Connect as settings say; raises `Misconfigured` when they say nothing."""
        return cls(*settings.database_doors(), pool_size=pool_size)

    @classmethod
    @asynccontextmanager
    async def briefly(cls, settings: Settings) -> "AsyncIterator[Database]":
        """Connect for a look of a command's own, and let go afterwards; raises `Misconfigured`."""
        database = cls.from_settings(settings, pool_size=1)
        try:
            yield database
        finally:
            await database.close()

    @asynccontextmanager
    async def workspace(self, workspace_id: str) -> AsyncIterator[AsyncSession]:
        """Open a transaction that sees and writes one workspace; commits at the end, rolls back on an error."""
        async with AsyncSession(self._app, expire_on_commit=False, autoflush=False) as session, session.begin():
            [opened] = await within(session)(_OPEN_WORKSPACE, {"workspace": workspace_id})
            self._clock = Clock.just_read(opened["clock"])
            set_clock(session, self._clock)
            yield session
        if session.info.get(_SESSION_KEY):
            self.announce()

    async def now(self, workspace_id: str) -> datetime:
        """Tell the database's time without asking: carried on from when any transaction of ours began last."""
        if self._clock is None:
            async with self.workspace(workspace_id) as session:
                return clock(session).now
        return self._clock.now

    async def alone(
        self, workspace_id: str, statement: str, values: Mapping[str, Any], *, has_events: bool = False
    ) -> Rows:
        """Do one statement as a transaction of its own that sees and writes one workspace, and give its rows."""
        [rows] = await self.together(workspace_id, (statement, values), has_events=has_events)
        return rows

    async def together(self, workspace_id: str, *steps: Step, has_events: bool = False) -> list[Rows]:
        """Do statements as one transaction that sees and writes one workspace, and give the rows of each.

        It costs a third of what `workspace` does, and one exchange with the server instead of four: for what every
        stage does. An error, or being cancelled, leaves nothing behind, or all of it where it had been done.
        """
        async with self._alone.borrow("; ".join(statement for statement, _ in steps)) as raw:
            rows = await _at_once(raw, workspace_id, steps)
        if has_events:
            self.announce()
        return rows

    @asynccontextmanager
    async def system(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction over all workspaces: for key look-up, the tail and the reconciler only."""
        async with AsyncSession(self._system, expire_on_commit=False, autoflush=False) as session, session.begin():
            yield session
        if session.info.get(_SESSION_KEY):
            self.announce()

    async def look(self, statement: str, values: Mapping[str, Any]) -> Rows:
        """Read by one statement over all workspaces, in one exchange: for key look-up.

        A server that was restarted has cut idle connections off: what only reads is asked once more on a new one.
        """
        try:
            return await self._look_once(statement, values)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            return await self._look_once(statement, values)

    async def _look_once(self, statement: str, values: Mapping[str, Any]) -> Rows:
        async with self._looking.borrow(statement) as raw, raw.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(statement, values)
            return await cursor.fetchall()

    @asynccontextmanager
    async def listener(self) -> AsyncIterator[AsyncConnection]:
        """A connection of its own that hears `EVENT_CHANNEL`: the hints that other processes send."""
        async with self._system.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            raw = await _driver(connection)
            try:
                await raw.execute(f"LISTEN {EVENT_CHANNEL}")
                yield raw
            finally:
                await connection.invalidate()  # the pool must not hand out a connection that listens

    async def close(self) -> None:
        """Give all connections back."""
        if self._hint is not None:
            await asyncio.gather(self._hint, return_exceptions=True)
        await asyncio.gather(self._alone.close(), self._looking.close())
        await self._app.dispose()
        await self._system.dispose()

    def announce(self) -> None:
        """Tell the tails of a commit with events: one hint for all commits of the next few milliseconds."""
        if self._hint is None or self._hint.done():
            self._hint = asyncio.get_running_loop().create_task(self._send_hint())

    async def _send_hint(self) -> None:
        await asyncio.sleep(HINT_DELAY)
        # A lost hint costs a tail at most one interval of its own polling.
        with suppress(SQLAlchemyError, OSError):
            async with self._alone.borrow(_NOTIFY) as raw:
                await raw.execute(_NOTIFY)


def mark_events(session: AsyncSession) -> None:
    """Note that this transaction wrote events, so that its commit is announced."""
    session.info[_SESSION_KEY] = True


def clock(session: AsyncSession) -> Clock:
    """Tell the database's time: read when a workspace's transaction began, and carried on from there."""
    read: Clock = session.info[_CLOCK_KEY]
    return read


def set_clock(session: AsyncSession, read: Clock) -> None:
    """Carry on from a newer reading: what a transaction writes next is never earlier than what it has just seen."""
    session.info[_CLOCK_KEY] = read


def within(session: AsyncSession) -> Ask:
    """Run statements in psycopg's own form as parts of a session's transaction."""

    async def ask(statement: str, values: Mapping[str, Any]) -> Rows:
        connection = await session.connection()
        raw = await _driver(connection)
        try:
            async with raw.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(statement, values)
                return await cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            await _note_loss(connection, raw)
            raise as_elsewhere(statement, error) from error

    return ask


_OPEN_WORKSPACE = "SELECT set_config('app.workspace', %(workspace)s, true), clock_timestamp() AS clock"
_ENTER_WORKSPACE = "SELECT set_config('app.workspace', %(workspace)s, true)"
_NOTIFY = f"NOTIFY {EVENT_CHANNEL}"


def _options(role: str) -> dict[str, Any]:
    """Days are those of UTC, wherever the server stands."""
    limits = "-c transaction_timeout=5s -c idle_in_transaction_session_timeout=5s"
    options = f"-c role={role} -c timezone=UTC {limits} -c jit=off"
    return {"options": options, "connect_timeout": 5, "application_name": role}


def _engine(url: str, role: str, pool_size: int) -> AsyncEngine:
    return create_async_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,  # overflow connections are closed after each use: under load that is one per request
        pool_timeout=10,
        pool_use_lifo=True,  # the connection used last has its statements prepared and its caches warm
        pool_pre_ping=False,
        hide_parameters=True,  # they hold patches, logs and digests of keys; errors travel to histories and logs
        connect_args=_options(role),
    )


async def _driver(connection: PooledConnection) -> AsyncConnection:
    raw = (await connection.get_raw_connection()).driver_connection
    assert isinstance(raw, AsyncConnection)  # noqa: S101  # the driver is psycopg
    return raw


async def _at_once(raw: AsyncConnection, workspace_id: str, steps: Sequence[Step]) -> list[Rows]:
    """Send all of a transaction before reading: what stands between two syncs of a pipeline commits, or fails, whole.

    Were they ever torn apart, the statements would see no workspace at all. Several say themselves when they are all
    there: one whose values cannot be sent must not leave those before it behind.
    """
    cursors = [raw.cursor(row_factory=dict_row) for _ in steps]
    async with raw.pipeline():
        if len(steps) > 1:
            await raw.execute("BEGIN")
        await raw.execute(_ENTER_WORKSPACE, {"workspace": workspace_id})
        for cursor, (statement, values) in zip(cursors, steps, strict=True):
            await cursor.execute(statement, values)
        if len(steps) > 1:
            await raw.execute("COMMIT")
    return [await cursor.fetchall() for cursor in cursors]


async def _note_loss(connection: PooledConnection, raw: AsyncConnection) -> None:
    """Let SQLAlchemy see for itself that the server has cut us off: its pool lets go of all such connections then."""
    if raw.closed:
        await connection.exec_driver_sql("SELECT")
