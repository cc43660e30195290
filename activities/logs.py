"""A stage's log while it grows: readable by anyone who follows it, bounded, and free of host paths."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from activities.workbench.output import CappedLog
from models.store import blobs
from models.store.database import Database

FLUSH_SECONDS = 0.2
FLUSH_BYTES = 64 * 1024
LIVE_BYTES = 4 * 1024 * 1024
"""What can be followed live; the stored log keeps its head and its tail."""


LOOK_BYTES = 4 * 1024
"""What is kept of one look at the world: its last words."""
LOOKS_KEPT = 256


class Log(Protocol):
    """Where a command's output goes; whoever runs the command says in `isolation` how it was kept apart."""

    isolation: str

    async def write(self, data: bytes) -> None:
        """Take output as it comes."""

    async def line(self, text: str) -> None:
        """Say something of our own in between."""


class LookLog:
    """Holds the last words of one look, until they are kept together with what it saw."""

    def __init__(self) -> None:
        self.isolation = ""
        self._capped = CappedLog(head=0, tail=LOOK_BYTES)

    async def write(self, data: bytes) -> None:
        """Take output as it comes."""
        self._capped.write(data)

    async def line(self, text: str) -> None:
        """Say something of our own in between."""
        await self.write(_own(text))

    def content(self) -> bytes:
        """Give the last words."""
        return self._capped.content()


class StageLog:
    """Takes a command's output, shows it in pieces while it comes, and holds the capped whole for the record."""

    def __init__(self, db: Database, workspace_id: str, log_id: str) -> None:
        self._db, self._workspace_id, self._log_id = db, workspace_id, log_id
        self.isolation = ""
        self._capped = CappedLog()
        self._pending = bytearray()
        self._seq = 0
        self._shown = 0
        self._flusher: asyncio.Task[None] | None = None

    async def write(self, data: bytes) -> None:
        """Take output as it comes."""
        self._capped.write(data)
        if self._shown + len(self._pending) < LIVE_BYTES:
            self._pending += data
        if len(self._pending) >= FLUSH_BYTES:
            await self.flush()

    async def line(self, text: str) -> None:
        """Say something of our own in between."""
        await self.write(_own(text))

    async def flush(self) -> None:
        """Show what has come. While Postgres is away nobody can follow, but the command goes on and the log is kept."""
        if not self._pending:
            return
        piece, self._pending = bytes(self._pending), bytearray()
        seq, self._seq = self._seq, self._seq + 1
        self._shown += len(piece)
        with suppress(SQLAlchemyError):
            async with self._db.workspace(self._workspace_id) as session:
                await blobs.add_chunk(session, self._workspace_id, self._log_id, seq, piece)

    def content(self) -> bytes | None:
        """Give the capped whole, or None when nothing was written."""
        return self._capped.content() if self._capped.total else None

    async def __aenter__(self) -> "StageLog":
        self._flusher = asyncio.create_task(self._flush_often())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._flusher is not None  # noqa: S101  # set on entry
        self._flusher.cancel()
        await asyncio.gather(self._flusher, return_exceptions=True)

    async def _flush_often(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()


def _own(text: str) -> bytes:
    return f"[mission-control] {text}\n".encode()
