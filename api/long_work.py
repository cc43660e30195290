"""Work that takes seconds of a connection or of a thread: it must leave others theirs."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from models.domain.errors import RateLimited

DONE_AT_ONCE = 2
PIECES_AT_ONCE = 4
"""Pieces of the log that are read at the same time, of all exports and verifications; each takes a connection."""


class LongWork:
    """What takes long in this process."""

    def __init__(self) -> None:
        self._turns, self._pieces = asyncio.Semaphore(DONE_AT_ONCE), asyncio.Semaphore(PIECES_AT_ONCE)
        self._asking = set[str]()

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """Wait for one's turn.

        Raises:
            RateLimited: `one_at_a_time`, the key waits for something of the kind already.
        """
        if key in self._asking:
            told = "something that takes long is being done for this key already: wait for that answer"
            raise RateLimited("one_at_a_time", told, wait_seconds=5)
        self._asking.add(key)
        try:
            async with self._turns:
                yield
        finally:
            self._asking.discard(key)

    async def paced(self, pieces: AsyncGenerator[str]) -> AsyncGenerator[str]:
        """Give each piece of the log in its turn."""
        async with aclosing(pieces):
            while True:
                async with self._pieces:
                    piece = await anext(pieces, None)
                if piece is None:
                    return
                yield piece
