"""The event stream: each event is encoded once and its bytes are shared by all who watch its workspace."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

from models.domain.events import Event, EventType
from models.schemas.events import ReplayGap
from models.store import events
from models.store.database import Database
from models.store.events import Place
from models.store.tail import Tail

MAX_WAITING, MAX_WAITING_BYTES = 2000, 4 * 1024 * 1024
"""Events a watcher may be behind, and their bytes, before it goes back to replay from the table."""
PIECE_BYTES = 256 * 1024
"""What is joined to be sent at once: whoever reads slowly holds no more of it, and shares the rest with all others."""
ASK_SECONDS = 1.0
"""How often a stream asks whether its key still opens the door; a revoked one ends it about this soon."""
MayWatch = Callable[[], Awaitable[bool]]
Show = Callable[[Sequence["Frame"]], Awaitable[Sequence["Frame"]]]
"""Leaves out what a watcher may not see."""

_OPENING = b": open\n\n"
_HEARTBEAT = b": heartbeat\n\n"


async def always() -> bool:
    """Let a stream that nobody guards go on."""
    return True


async def whole(frames: Sequence["Frame"]) -> Sequence["Frame"]:
    """Let a watcher see all that it wants."""
    return frames


@dataclass(frozen=True)
class Wanted:
    """What a watcher asked for; None is all."""

    types: frozenset[EventType] | None = None
    subject_id: str | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing is filtered away."""
        return self.types is None and self.subject_id is None

    def includes(self, event: Event) -> bool:
        """Whether the watcher wants this event."""
        return (self.types is None or event.type in self.types) and self.subject_id in (None, event.subject.id)


@dataclass(frozen=True)
class Frame:
    """An event as it goes over the wire."""

    place: Place
    event: Event
    data: bytes

    @classmethod
    def of(cls, place: Place, event: Event) -> "Frame":
        """Encode an event."""
        head = f"id: {place}\nevent: {event.type.value}\ndata: ".encode()
        return cls(place, event, head + event.model_dump_json().encode() + b"\n\n")


class Watcher:
    """One stream's inbox. When it is full it is emptied and marked `behind`: slow readers cost no memory."""

    def __init__(self, wanted: Wanted) -> None:
        self.behind = False
        self._wanted = wanted
        self._frames: list[Frame] = []
        self._bytes = 0
        self._woken = asyncio.Event()

    def offer(self, frames: list[Frame]) -> None:
        """Take what the watcher wants of the next frames."""
        if not self._wanted.everything:
            frames = [frame for frame in frames if self._wanted.includes(frame.event)]
        if not frames or self.behind:
            return
        self._bytes += sum(len(frame.data) for frame in frames)
        self.behind = len(self._frames) + len(frames) > MAX_WAITING or self._bytes > MAX_WAITING_BYTES
        self._frames = [] if self.behind else self._frames + frames
        self._woken.set()

    def wake(self) -> None:
        """End the wait without frames: for a heartbeat, or because the feed closes."""
        self._woken.set()

    async def take(self) -> list[Frame]:
        """Wait, and hand out all that came; nothing is a heartbeat."""
        await self._woken.wait()
        self._woken.clear()
        frames, self._frames, self._bytes = self._frames, [], 0
        return frames


class Feed:
    """The process's one tail, and its watchers by workspace."""

    def __init__(self, db: Database, heartbeat: float) -> None:
        self.db = db
        self.closed = False
        self._heartbeat = heartbeat
        self._tail = Tail(db, self._fan_out)
        self._watchers: dict[str, set[Watcher]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def watching(self) -> int:
        """How many streams are open."""
        return sum(len(watchers) for watchers in self._watchers.values())

    @property
    def standing(self) -> Place:
        """How far the stream was delivered; only once `ready`."""
        return self._tail.standing

    @property
    def is_following(self) -> bool:
        """Whether what happens reaches the streams."""
        return self._tail.is_following

    def open(self) -> None:
        """Begin to follow the stream."""
        self._tasks = [asyncio.create_task(self._tail.run()), asyncio.create_task(self._beat())]

    def end_streams(self) -> None:
        """Let all streams end, so that a server that stops need not wait for its clients."""
        self.closed = True
        self._wake_all()

    async def close(self) -> None:
        """Stop following."""
        self.end_streams()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextmanager
    def joined(self, workspace_id: str, watcher: Watcher) -> Iterator[Place]:
        """Watch from the place that is handed out: all before it is in the table, all after it is offered."""
        group = self._watchers.setdefault(workspace_id, set())
        group.add(watcher)
        try:
            yield self.standing
        finally:
            group.discard(watcher)
            if not group:
                self._watchers.pop(workspace_id, None)

    async def ready(self) -> None:
        """Wait until the tail knows where the stream stands; raises `Unavailable` when Postgres is away."""
        await self._tail.ready()

    def _fan_out(self, batch: list[tuple[Place, Event]]) -> None:
        for workspace_id, group in groupby(batch, lambda item: item[1].workspace_id):
            if watchers := self._watchers.get(workspace_id):
                frames = [Frame.of(place, event) for place, event in group]
                for watcher in watchers:
                    watcher.offer(frames)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat)
            self._wake_all()

    def _wake_all(self) -> None:
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.wake()


class Stream:
    """One client's stream: replay from its last place, then live, and back to replay whenever it falls behind.

    It ends when its client `may_watch` no longer, which is asked every second.
    """

    def __init__(
        self,
        feed: Feed,
        workspace_id: str,
        wanted: Wanted,
        after: Place | None,
        may_watch: MayWatch = always,
        show: Show = whole,
    ) -> None:
        self._feed, self._workspace_id, self._wanted = feed, workspace_id, wanted
        self._may_watch, self._show = may_watch, show
        self._watcher = Watcher(wanted)
        self._is_over = False
        # From the request on, not from the first byte read: a client looks at the state as soon as the answer begins.
        self._place = feed.standing if after is None else after

    async def chunks(self) -> AsyncGenerator[bytes]:
        """What goes over the wire."""
        guard = asyncio.create_task(self._end_when_shut_out())
        try:
            yield _OPENING
            while not (self._feed.closed or self._is_over):
                self._watcher = Watcher(self._wanted)
                with self._feed.joined(self._workspace_id, self._watcher) as standing:
                    async for chunk in self._following(standing):
                        yield chunk
                        if self._feed.closed or self._is_over:  # its reader may have taken it very slowly
                            return
        finally:
            guard.cancel()

    async def _following(self, standing: Place) -> AsyncIterator[bytes]:
        async for chunk in self._replay(standing):
            yield chunk
        async for chunk in self._live(self._watcher):
            yield chunk

    async def _end_when_shut_out(self) -> None:
        while await self._may_watch():  # noqa: ASYNC110  # a key is revoked in Postgres, which wakes nobody
            await asyncio.sleep(ASK_SECONDS)
        self._is_over = True
        self._watcher.wake()

    async def _replay(self, upto: Place) -> AsyncIterator[bytes]:
        """Send from the table what lies between the client's place and where the feed was joined."""
        if gap := await self._skip_what_is_too_old(self._place, upto):
            yield gap
        while self._place < upto:
            async with self._feed.db.workspace(self._workspace_id) as session:
                found = await events.between(
                    session, self._workspace_id, self._place, upto, self._wanted.types, self._wanted.subject_id
                )
            for piece in _pieces(await self._show([Frame.of(place, event) for place, event in found])):
                yield piece
            self._place = found[-1][0] if len(found) == events.REPLAY_CHUNK else upto

    async def _skip_what_is_too_old(self, after: Place, upto: Place) -> bytes | None:
        async with self._feed.db.system() as session:
            resumed = await events.replayable_after(session, self._workspace_id, after, upto)
        if resumed is None:
            return None
        self._place = resumed
        gap = ReplayGap(
            asked_after=str(after),
            resumed_after=str(resumed),
            reason="what lies between is too old to replay: read the present state and go on from here",
        )
        return f"id: {resumed}\nevent: {gap.type}\ndata: {gap.model_dump_json()}\n\n".encode()

    async def _live(self, watcher: Watcher) -> AsyncIterator[bytes]:
        while not (watcher.behind or self._feed.closed or self._is_over):
            frames = await watcher.take()
            if self._is_over:
                return
            # A client may come from another process whose tail was ahead of ours.
            if frames and frames[0].place <= self._place:
                frames = [frame for frame in frames if frame.place > self._place]
            if frames:
                self._place = frames[-1].place
            shown = await self._show(frames)
            for piece in _pieces(shown):
                yield piece
            if not shown:
                yield _HEARTBEAT


def _pieces(frames: Sequence[Frame]) -> Iterator[bytes]:
    """Join frames to pieces that are sent at once."""
    piece: list[bytes] = []
    size = 0
    for frame in frames:
        piece.append(frame.data)
        size += len(frame.data)
        if size >= PIECE_BYTES:
            yield b"".join(piece)
            piece, size = [], 0
    if piece:
        yield b"".join(piece)
