"""Answers that go on for as long as their client listens."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import Receive, Scope, Send

from api.services import services
from models.domain.errors import Conflict, NotFound, NotPermitted, Unauthenticated

Piece = TypeVar("Piece", bytes, str)


class ShutOut(Exception):
    """A stream's caller may no longer have it."""


def guard(request: Request) -> Callable[[], Awaitable[bool]]:
    """Give the question whether this caller may still have what the route gives: a stream outlives its request."""

    async def may_look() -> bool:
        try:
            await request.state.admits(request)
        except (Unauthenticated, NotPermitted, NotFound, Conflict):
            return False
        except (SQLAlchemyError, OSError):
            return True  # while Postgres is away, nobody can tell that they may not
        return True

    return may_look


async def guarded(request: Request, pieces: AsyncIterable[Piece]) -> AsyncIterator[Piece]:
    """Ask the same before each piece of what has an end.

    Raises:
        ShutOut: no further piece may be given: it is broken off, so that nobody takes what came for all of it.
    """
    may_look = guard(request)
    async for piece in pieces:
        if not await may_look():
            raise ShutOut
        yield piece


class HeldStream(StreamingResponse):
    """A stream that takes one of those that its caller's key may have open, and gives it back however it ends.

    Where the key has none left, the answer is 429 `too_many_streams` instead.
    """

    def __init__(
        self,
        request: Request,
        pieces: AsyncIterable[bytes] | AsyncIterable[str],
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(pieces, media_type=media_type, headers={"Cache-Control": "no-store", **(headers or {})})
        self._place = services(request).limiter.stream(request.state.call.principal)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it: the place is taken only now, so that what is never sent holds none.

        What is broken off ends with the connection, and without the last chunk.
        """
        with self._place, suppress(ShutOut):
            await super().__call__(scope, receive, send)
