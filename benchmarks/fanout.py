"""Fan-out: 200 watchers of 200 events a second, from tail read to client read, against a bare asyncio socket server."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.fanout_server import PER_SECOND
from benchmarks.http import request
from benchmarks.measure import Comparison, Goal, Numbers, alternate, percentile
from benchmarks.servers import FanoutServer, admin_key, serving
from models.domain.events import EventType, Subject
from models.store import events
from models.store.database import Database
from models.store.events import Actor
from models.store.keys import DEFAULT_WORKSPACE

WATCHERS = 200
GOAL = Goal("p99_ms", "lower", 3.0)
JOIN_SECONDS = 2.0
_ID = re.compile(rb"^id: (\S+)\n", re.MULTILINE)


class Reader(asyncio.Protocol):
    """Keeps what came and when; it is taken apart afterwards, so that reading costs the same on both sides."""

    def __init__(self, opening: bytes) -> None:
        self._opening = opening
        self._chunks: list[tuple[int, bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._opening)

    def data_received(self, data: bytes) -> None:
        """Note when it came."""
        self._chunks.append((time.monotonic_ns(), data))

    def arrivals(self) -> Iterator[tuple[str, int]]:
        """Each event, with the time when its first line was read."""
        rest = b""
        for at, data in self._chunks:
            text = rest + data
            end = text.rfind(b"\n\n") + 2 if b"\n\n" in text else 0
            rest = text[end:]
            yield from ((found.group(1).decode(), at) for found in _ID.finditer(text[:end]))


async def run(quick: bool) -> list[Comparison]:
    """Compare."""
    seconds, rounds = (3.0, 3) if quick else (8.0, 5)
    async with serving("postgres", "temporal") as stack, FanoutServer(stack.settings) as server:
        folder, db = stack.settings.data_dir, Database.from_settings(server.settings)
        watch = request("GET", "/api/v1/events", admin_key(server.settings))

        port, loop = server.settings.api_port, asyncio.get_running_loop()

        async def ours() -> Numbers:
            return await loop.run_in_executor(pool, measure, port, watch, folder / "stamps", seconds)

        async def bare() -> Numbers:
            return await loop.run_in_executor(pool, measure, port + 1, b"\n", folder / "bare_stamps", seconds)

        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            async with _events_flow(db):
                return [await alternate(f"fan-out, {WATCHERS} watchers", GOAL, ours, bare, rounds)]


@asynccontextmanager
async def _events_flow(db: Database) -> AsyncIterator[None]:
    """Commit `PER_SECOND` events, each on its own, whichever side is measured: the machine is equally busy."""

    async def write() -> None:
        began, number = time.monotonic(), 0
        while True:
            await asyncio.sleep(max(began + number / PER_SECOND - time.monotonic(), 0))
            number += 1
            async with db.workspace(DEFAULT_WORKSPACE) as session:
                subject, actor = Subject(kind="subsystem", id="search"), Actor("bench", "bench")
                data = {"message": "the index was rebuilt", "documents": number}
                await events.append(session, DEFAULT_WORKSPACE, EventType.SUBSYSTEM_REPORT, subject, actor, data)

    writing = asyncio.create_task(write())
    try:
        yield
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await db.close()


def measure(port: int, opening: bytes, stamps: Path, seconds: float) -> Numbers:
    """Let all watchers read for so long; then see how late each event was. Runs in a process of its own."""
    readers, began = uvloop.run(_read_all(port, opening, seconds))
    at_hand = {place: int(at) for place, _, at in (line.partition(" ") for line in stamps.read_text().splitlines())}
    late = [
        (at - at_hand[place]) / 1e6
        for reader in readers
        for place, at in reader.arrivals()
        if at_hand.get(place, 0) > began
    ]
    assert late, f"nothing arrived at port {port}: {len(at_hand)} events were at hand"
    return {
        "p50_ms": percentile(late, 0.5),
        "p99_ms": percentile(late, 0.99),
        "deliveries_per_second": len(late) / seconds,
    }


async def _read_all(port: int, opening: bytes, seconds: float) -> tuple[list[Reader], int]:
    loop = asyncio.get_running_loop()
    with _opened() as readers:
        for _ in range(WATCHERS):
            _, reader = await loop.create_connection(lambda: Reader(opening), "127.0.0.1", port)
            readers.append(reader)
        await asyncio.sleep(JOIN_SECONDS)
        began = time.monotonic_ns()
        await asyncio.sleep(seconds)
        return readers, began


@contextmanager
def _opened() -> Iterator[list[Reader]]:
    readers: list[Reader] = []
    try:
        yield readers
    finally:
        for reader in readers:
            reader.transport.abort()
