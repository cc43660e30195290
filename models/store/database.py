"""Connections to Postgres: as the app (one workspace at a time) or as the system (all of them)."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

import structlog
from psycopg import AsyncConnection
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from models.settings import Settings

EVENT_CHANNEL = "mission_control_event"
HINT_DELAY = 0.01
"""Seconds within which a commit with events is announced: NOTIFY inside the transaction would serialise commits."""

_SESSION_KEY = "events_appended"
_CLOCK_KEY = "clock"
log = structlog.get_logger()


class Database:
    """The product's two doors to Postgres. Make one per process, inside its event loop; close it at the end."""

    def __init__(self, app_url: str, system_url: str, *, pool_size: int = 20) -> None:
        self._app = _engine(app_url, "mission_control_app", pool_size)
        self._system = _engine(system_url, "mission_control_system", pool_size)
        self._hint: asyncio.Task[None] | None = None

    @classmethod
    def from_settings(cls, settings: Settings, *, pool_size: int = 20) -> "Database":
        """Connect as settings say; raises `Misconfigured` when they say nothing."""
        return cls(*settings.database_doors(), pool_size=pool_size)

    @asynccontextmanager
    async def workspace(self, workspace_id: str) -> AsyncIterator[AsyncSession]:
        """Open a transaction that sees and writes one workspace; commits at the end, rolls back on an error."""
        async with AsyncSession(self._app, expire_on_commit=False, autoflush=False) as session, session.begin():
            opened = await session.execute(_SET_WORKSPACE, {"workspace": workspace_id})
            session.info[_CLOCK_KEY] = (opened.one().clock, time.monotonic())
            yield session
        self._announce(session)

    @asynccontextmanager
    async def system(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction over all workspaces: for key look-up, the tail and the reconciler only."""
        async with AsyncSession(self._system, expire_on_commit=False, autoflush=False) as session, session.begin():
            yield session
        self._announce(session)

    @asynccontextmanager
    async def listener(self) -> AsyncIterator[AsyncConnection]:
        """A connection of its own that hears `EVENT_CHANNEL`: the hints that other processes send."""
        async with self._system.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            raw = (await connection.get_raw_connection()).driver_connection
            assert isinstance(raw, AsyncConnection)  # noqa: S101  # the driver is psycopg
            try:
                await raw.execute(f"LISTEN {EVENT_CHANNEL}")
                yield raw
            finally:
                await connection.invalidate()  # the pool must not hand out a connection that listens

    async def close(self) -> None:
        """Give all connections back."""
        if self._hint is not None:
            await asyncio.gather(self._hint, return_exceptions=True)
        await self._app.dispose()
        await self._system.dispose()

    def _announce(self, session: AsyncSession) -> None:
        """Tell the tails that there is something new: one hint for all commits of the next few milliseconds."""
        if session.info.get(_SESSION_KEY) and (self._hint is None or self._hint.done()):
            self._hint = asyncio.get_running_loop().create_task(self._send_hint())

    async def _send_hint(self) -> None:
        await asyncio.sleep(HINT_DELAY)
        # A lost hint costs a tail at most one interval of its own polling.
        with suppress(DBAPIError, OSError):
            async with self._system.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(_NOTIFY)


def mark_events(session: AsyncSession) -> None:
    """Note that this transaction wrote events, so that its commit is announced."""
    session.info[_SESSION_KEY] = True


def clock(session: AsyncSession) -> datetime:
    """Tell the database's time of this moment: read when a workspace's transaction began, and carried on from there."""
    read, at = session.info[_CLOCK_KEY]
    now: datetime = read + timedelta(seconds=time.monotonic() - at)
    return now


_SET_WORKSPACE = text("SELECT set_config('app.workspace', :workspace, true), clock_timestamp() AS clock")
_NOTIFY = text(f"NOTIFY {EVENT_CHANNEL}")


def _engine(url: str, role: str, pool_size: int) -> AsyncEngine:
    options = f"-c role={role} -c transaction_timeout=5s -c idle_in_transaction_session_timeout=5s -c jit=off"
    return create_async_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,  # overflow connections are closed after each use: under load that is one per request
        pool_timeout=10,
        pool_use_lifo=True,  # the connection used last has its statements prepared and its caches warm
        pool_pre_ping=False,
        hide_parameters=True,  # they hold patches, logs and digests of keys; errors travel to histories and logs
        connect_args={"options": options, "connect_timeout": 5, "application_name": role},
    )
