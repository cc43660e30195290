"""Answers on their way out: how many bytes of them the readers of one key, and of all, may leave with us."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from fastapi import Response
from starlette.types import Message, Receive, Scope, Send

from models.domain.errors import RateLimited, Unavailable

UNCOUNTED = 64 * 1024
"""An answer of so many bytes takes no room: the system holds as much of each connection anyway."""
PIECE = 256 * 1024
"""What is sent at once: the server takes the next piece only when its reader has taken most of this one."""
OF_A_KEY = 64 * 1024 * 1024
"""Bytes of long answers that one key's readers have not taken: a few of the longest diffs."""
OF_ALL = 1024 * 1024 * 1024
"""Of all keys together, of which an admin makes as many as they like."""
STILL_SECONDS = 300.0
"""Whoever takes nothing of an answer for so long is given no more of it. The system tells of what was taken only when a
good part of its own buffer is free: a reader on a slow line seems to stand still for minutes."""


class Unsent:
    """The long answers of this process that are being sent."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()

    def require_room(self, key: str) -> None:
        """Refuse a request before anything is done for it, where no answer to it could be held.

        Raises:
            RateLimited: `too_many_bytes`.
        """
        if self._held[key] >= OF_A_KEY:
            raise self._full(key)

    @contextmanager
    def hold(self, key: str, size: int, *, may_refuse: bool) -> Iterator[None]:
        """Count an answer as long as it is sent; what was done is told whatever its reader left.

        Raises:
            RateLimited: `too_many_bytes`. The key's others are not taken.
            Unavailable: `no_room`. Those of all keys are not.
        """
        if may_refuse and self._held[key] and self._held[key] + size > OF_A_KEY:
            raise self._full(key)
        if may_refuse and self._held and self._held.total() + size > OF_ALL:
            raise Unavailable("no_room", "long answers to other keys are not taken yet, and fill the room; try again")
        self._held[key] += size
        try:
            yield
        finally:
            self._held[key] -= size
            if not self._held[key]:
                del self._held[key]

    def _full(self, key: str) -> RateLimited:
        told = f"answers of {self._held[key]} bytes to this key are not taken yet, of {OF_A_KEY}: read them first"
        return RateLimited("too_many_bytes", told, limit_bytes=OF_A_KEY, wait_seconds=1)


class LongAnswer(Response):
    """Sends an answer piece by piece, and counts it meanwhile."""

    def __init__(self, answer: Response, held: AbstractContextManager[None]) -> None:
        super().__init__()
        self._answer, self._held = answer, held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; raises as `Unsent.hold` does before it begins."""

        async def send_pieces(message: Message) -> None:
            for piece in _pieces(message):
                async with asyncio.timeout(STILL_SECONDS):
                    await send(piece)

        with self._held, suppress(TimeoutError):  # the server then ends the connection, before the answer's end
            await self._answer(scope, receive, send_pieces)


def _pieces(message: Message) -> Iterator[Message]:
    body = message.get("body", b"")
    if len(body) <= PIECE:
        yield message
        return
    for start in range(0, len(body), PIECE):
        goes_on = message.get("more_body", False) or start + PIECE < len(body)
        yield {**message, "body": body[start : start + PIECE], "more_body": goes_on}


def bounded(answer: Response, key: str, unsent: Unsent, *, may_refuse: bool) -> Response:
    """Count an answer that is long; a stream, which has no body of its own, bounds itself."""
    size = len(getattr(answer, "body", b""))
    if size <= UNCOUNTED:
        return answer
    return LongAnswer(answer, unsent.hold(key, size, may_refuse=may_refuse))
