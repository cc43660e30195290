"""Bodies of requests on their way in: how long they may take, and how many bytes of them are held at once.

A body comes into a file, where slow ones are nobody's burden; it takes memory once all of it is there. That is held
until its request is answered, for by then we have read it into values of the same size and more.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO

from starlette.requests import ClientDisconnect, Request

from models.domain import uploads
from models.domain.errors import RateLimited, TooLarge, TooSlow, Unavailable
from models.schemas.envelope import Bounds

MIB = 1024 * 1024
UNCOUNTED = 64 * 1024
"""A body of so many bytes takes no room: the server holds as much of each before we ask for it."""
COMING = (128 * MIB, 2048 * MIB)
"""Of a key, and altogether, on disk: the longest body twice, for each of sixteen keys."""
SHORT, LONG = (16 * MIB, 64 * MIB), (64 * MIB, 128 * MIB)
"""Of a key, and altogether, in memory: sixteen batches of samples, or the longest body, for each of several keys."""
ROOM_SECONDS = 20.0
"""How long a body waits for room: less than our own client waits for an answer, so that it hears of it."""


class Room:
    """So many bytes at once, of each key and altogether. Who finds no room waits for it, in the order of coming."""

    def __init__(self, per_key: int, altogether: int) -> None:
        self._per_key, self._altogether = per_key, altogether
        self._held: Counter[str] = Counter()
        self._waiting: list[_Place] = []

    @asynccontextmanager
    async def hold(self, key: str, size: int) -> AsyncIterator[None]:
        """Hold so many bytes of a key.

        Raises:
            RateLimited: `too_many_bytes`. The key's other bodies left no room for this one in time.
            Unavailable: `no_room`. Those of all keys did.
        """
        place = _Place(key, size)
        self._waiting.append(place)
        try:
            self._let_in()
            if not place.is_held.is_set():
                await self._wait(place)
            yield
        finally:
            self._leave(place)

    async def _wait(self, place: "_Place") -> None:
        try:
            async with asyncio.timeout(ROOM_SECONDS):
                await place.is_held.wait()
        except TimeoutError:
            if self._has_room(place):
                raise Unavailable("no_room", "bodies of other requests fill the room for them; try again") from None
            told = f"bodies of this key hold {self._held[place.key]} of {self._per_key} bytes: wait for their answers"
            raise RateLimited("too_many_bytes", told, limit_bytes=self._per_key, wait_seconds=1) from None

    def _let_in(self) -> None:
        """Give room to who waited longest. Who waits for others of the same key lets other keys pass."""
        passed = set[str]()
        for place in tuple(self._waiting):
            if place.key in passed or not self._has_room(place):
                passed.add(place.key)
            elif self._held.total() + place.size <= self._altogether:
                self._waiting.remove(place)
                self._held[place.key] += place.size
                place.is_held.set()
            else:
                return

    def _has_room(self, place: "_Place") -> bool:
        return self._held[place.key] + place.size <= self._per_key

    def _leave(self, place: "_Place") -> None:
        if not place.is_held.is_set():
            self._waiting.remove(place)
        else:
            self._held[place.key] -= place.size
            if not self._held[place.key]:
                del self._held[place.key]
        self._let_in()


@dataclass(eq=False)
class _Place:
    """One body's bytes, held or waited for."""

    key: str
    size: int
    is_held: asyncio.Event = field(default_factory=asyncio.Event)


class Rooms:
    """The process's room for bodies. Long ones, which are patches, have memory of their own: all else passes by."""

    def __init__(self) -> None:
        self._coming, self._short, self._long = Room(*COMING), Room(*SHORT), Room(*LONG)

    @asynccontextmanager
    async def take(self, request: Request, key: str, announced: int, limit: int) -> AsyncIterator[bytes]:
        """Give the body of a key's request, and hold its memory until the request is answered.

        Raises:
            TooLarge, TooSlow: as `receive` does.
            RateLimited, Unavailable: as `Room.hold` does, before it comes, or once it is there.
        """
        async with AsyncExitStack() as held:
            with SpooledTemporaryFile(UNCOUNTED) as file:
                async with _counted(self._coming, key, announced):
                    size = await receive(request, announced, limit, file)
                    await held.enter_async_context(_counted(self._memory(size), key, size))
                    file.seek(0)
                    body = file.read()
            yield body

    def _memory(self, size: int) -> Room:
        return self._short if size <= Bounds.bytes else self._long


def _counted(room: Room, key: str, size: int) -> AbstractAsyncContextManager[None]:
    """Hold the bytes of a key's body, if there are enough to count. Strangers may not send so many."""
    return nullcontext() if size <= UNCOUNTED else room.hold(key, size)


def announced(request: Request, limit: int) -> int:
    """How long a request's body says it is; one that does not say may be as long as any.

    Raises:
        TooLarge: more than it may be.
    """
    said = request.headers.get("content-length")
    if said is None:
        return limit if "transfer-encoding" in request.headers else 0
    if int(said) > limit:
        raise _too_large(limit)
    return int(said)


async def receive(request: Request, announced: int, limit: int, file: IO[bytes]) -> int:
    """Write a request's body into a file, and tell how many bytes came.

    Raises:
        TooLarge: more came than it may have.
        TooSlow: its client stopped sending it, hardly does, or went away.
        Unavailable: `no_room`. The disk is full, or the folder is not there.
    """
    received, began = 0, (clock := asyncio.get_running_loop().time)()
    try:
        async with asyncio.timeout(uploads.SILENCE_SECONDS) as patience:
            async for chunk in request.stream():
                received += len(chunk)
                if received > limit:
                    raise _too_large(limit)
                file.write(chunk)
                if chunk and received < announced:
                    patience.reschedule(uploads.give_up_at(began, clock(), received))
    except TimeoutError:
        raise _too_slow(received) from None
    except ClientDisconnect:
        raise TooSlow("body_incomplete", f"its client went away after {received} bytes of the body") from None
    except OSError as error:
        told = f"our temporary folder takes no long bodies ({error.strerror}); an operator must make room there"
        raise Unavailable("no_room", told) from error
    return received


def _too_large(limit: int) -> TooLarge:
    return TooLarge("body_too_large", f"the body is over the limit of {limit} bytes", limit_bytes=limit)


def _too_slow(size: int) -> TooSlow:
    told = (
        f"{size} bytes of the body came, then none for {uploads.SILENCE_SECONDS:g} s, or less than"
        f" {uploads.BYTES_PER_SECOND // 1024} KiB a second: send it again, all at once"
    )
    return TooSlow("body_timeout", told, received_bytes=size)
