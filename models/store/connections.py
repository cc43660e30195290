"""Plain connections to Postgres that are kept open between uses, beside SQLAlchemy's.

psycopg's own pool waits for a server that is away, and asks it ever more rarely; here the one who asks must know at
once. SQLAlchemy's pool takes as long for one use as the server does for a short statement.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnection

WAIT_SECONDS = 10
"""How long one waits while all connections are in use."""


class Connections:
    """At most `limit` at a time; the one used last is used next, because its statements are prepared."""

    def __init__(self, conninfo: str, limit: int, options: dict[str, Any]) -> None:
        self._conninfo, self._options = conninfo, options
        self._free = asyncio.Semaphore(limit)
        self._idle: list[AsyncConnection] = []
        self._opening: set[asyncio.Future[AsyncConnection]] = set()
        self._is_closed = False

    @asynccontextmanager
    async def borrow(self, about: str) -> AsyncIterator[AsyncConnection]:
        """Lend a connection that commits each exchange by itself; what fails on it is raised in SQLAlchemy's form.

        After any failure the connection is closed: it may be in the middle of something, or believe in statements that
        were never prepared.

        Raises:
            DBAPIError: of the driver, with `about` as its statement; never with values.
            NoConnection: all were in use for too long.
        """
        await self._enter()
        raw: AsyncConnection | None = None
        try:
            raw = self._idle.pop() if self._idle else await self._connect()
            yield raw
        except BaseException as error:
            await self._drop(raw)
            if isinstance(error, psycopg.Error):
                raise as_elsewhere(about, error, is_lost=raw is None or raw.broken) from error
            raise
        else:
            await self._give_back(raw)
        finally:
            self._free.release()

    async def close(self) -> None:
        """Close what is idle, and whatever comes back later."""
        self._is_closed = True
        if self._opening:  # `wait`, which cancels none of them: they are others'
            await asyncio.wait(self._opening)
        await self._close_idle()

    async def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for raw in idle:
            await raw.close()

    async def _give_back(self, raw: AsyncConnection) -> None:
        if self._is_closed:
            await raw.close()
        else:
            self._idle.append(raw)

    async def _enter(self) -> None:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError as error:
            raise NoConnection(f"all connections were in use for {WAIT_SECONDS} s") from error

    async def _connect(self) -> AsyncConnection:
        """Connect; where the one who asks is cancelled meanwhile, what was opened is closed by itself."""
        opening = asyncio.ensure_future(AsyncConnection.connect(self._conninfo, autocommit=True, **self._options))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
            raise

    async def _drop(self, raw: AsyncConnection | None) -> None:
        """Close a connection; when the server has cut it off, it has cut off those that are idle, too."""
        if raw is not None:
            if raw.broken:
                await self._close_idle()
            await raw.close()


def plain(url: str) -> str:
    """The same URL as libpq and psycopg's own `connect` take it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _close_unwanted(opening: asyncio.Future[AsyncConnection]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().pgconn.finish()


def as_elsewhere(statement: str, error: psycopg.Error, *, is_lost: bool = False) -> BaseException:
    """Give a driver's error the form in which SQLAlchemy raises it."""
    return DBAPIError.instance(
        statement, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=is_lost
    )
