"""Following the event stream as it grows: one connection that listens, and looks by itself when nobody calls."""

import asyncio
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
AGAIN_SECONDS = 0.25
CHUNK = 500
READY_SECONDS = 5.0

log = structlog.get_logger()

Deliver = Callable[[list[tuple[Place, Event]]], None]


class Tail:
    """Hands every event of all workspaces to `deliver`, once, in order, whatever happens to Postgres meanwhile."""

    def __init__(self, db: Database, deliver: Deliver) -> None:
        self._db, self._deliver = db, deliver
        self._place: Place | None = None
        self._found = asyncio.Event()

    @property
    def standing(self) -> Place:
        """How far it got: what is up to here was delivered, what comes later will be. Only once `ready`."""
        assert self._place is not None  # noqa: S101  # `ready` waited for it
        return self._place

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
            except (SQLAlchemyError, psycopg.Error, OSError) as error:
                log.warning("event_tail_interrupted", error=type(error).__name__)
                await asyncio.sleep(AGAIN_SECONDS)

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
            if len(found) < CHUNK:
                return
