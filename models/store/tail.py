"""Following the event stream as it grows: one connection that listens, and looks by itself when nobody calls."""

import asyncio
import time
from collections.abc import Callable

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from models.domain.errors import Unavailable
from models.domain.events import Event
from models.store import events
from models.store.database import Database
from models.store.events import Place

LOOK_SECONDS = 0.25
"""A tail looks this often, for hints may be lost, and a commit may have to wait for an older one to end."""
AGAIN_SECONDS, FAULT_SECONDS = 0.25, 2.0
"""Waits before the next try: Postgres may be back at once; a fault of ours would fill the log."""
CHUNK = 500
READY_SECONDS = 5.0
SILENT_SECONDS = 10.0
"""A tail that saw nothing for longer, not even that there is nothing, does not follow."""
AWAY = (SQLAlchemyError, psycopg.Error, OSError)
"""What Postgres and the way to it fail with; anything else is a fault of ours, and its traceback is logged."""

log = structlog.get_logger()

Deliver = Callable[[list[tuple[Place, Event]]], None]


class Tail:
    """Hands every event of all workspaces to `deliver`, once, in order, whatever happens to Postgres meanwhile."""

    def __init__(self, db: Database, deliver: Deliver) -> None:
        self._db, self._deliver = db, deliver
        self._place: Place | None = None
        self._found = asyncio.Event()
        self._looked = time.monotonic()

    @property
    def standing(self) -> Place:
        """How far it got: what is up to here was delivered, what comes later will be. Only once `ready`."""
        assert self._place is not None  # noqa: S101  # `ready` waited for it
        return self._place

    @property
    def is_following(self) -> bool:
        """Whether it keeps up with the stream, as far as it can be known."""
        return time.monotonic() - self._looked < SILENT_SECONDS

    async def ready(self) -> None:
        """Wait until Postgres said where the stream stands.

        Raises:
            Unavailable: it does not answer.
        """
        try:
            await asyncio.wait_for(self._found.wait(), READY_SECONDS)
        except TimeoutError as error:
            raise Unavailable("database_unavailable", "the database does not answer; connect again soon") from error

    async def run(self) -> None:
        """Follow the stream until canceled."""
        while True:
            try:
                await self._follow()
            except Exception as error:
                is_fault = not isinstance(error, AWAY)
                log.warning("event_tail_interrupted", error=type(error).__name__, exc_info=is_fault)
                await asyncio.sleep(FAULT_SECONDS if is_fault else AGAIN_SECONDS)

    async def _follow(self) -> None:
        async with self._db.listener() as connection:
            while True:
                await self._drain()
                async for _ in connection.notifies(timeout=LOOK_SECONDS, stop_after=1):
                    pass

    async def _drain(self) -> None:
        """Deliver all that is settled by now."""
        while True:
            async with self._db.system() as session:
                if self._place is None:
                    self._place = await events.last_settled(session)
                    self._found.set()
                found = await events.settled_after(session, self._place, CHUNK)
            if found:
                self._deliver(found)
                self._place = found[-1][0]
            self._looked = time.monotonic()
            if len(found) < CHUNK:
                return
