"""The API with a stamp on every event that its tail read, and beside it a bare socket server that sends as much.

Both note in a file when an event was at hand, by the clock that all processes of a machine share.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import uvicorn

import api.sse
from api.app import create_app
from models.domain.events import Event
from models.settings import Settings
from models.store.database import Database
from models.store.events import Place
from models.store.tail import Tail

PER_SECOND = 200
PADDING = b"x" * 300
"""About as long as one of our events is on the wire."""


def stamped_tail(stamps: TextIO) -> type[Tail]:
    """Make a tail that notes when it read what it delivers."""

    class StampedTail(Tail):
        def __init__(self, db: Database, deliver: Callable[[list[tuple[Place, Event]]], None]) -> None:
            def stamp(batch: list[tuple[Place, Event]]) -> None:
                now = time.monotonic_ns()
                stamps.writelines(f"{place} {now}\n" for place, _ in batch)
                deliver(batch)

            super().__init__(db, stamp)

    return StampedTail


class BareServer:
    """Writes the same bytes to every open connection: nothing in asyncio is cheaper."""

    def __init__(self, stamps: TextIO) -> None:
        self._stamps = stamps
        self._clients: set[asyncio.StreamWriter] = set()

    async def serve(self, port: int) -> None:
        """Send `PER_SECOND` events to whoever is connected, for ever."""
        server = await asyncio.start_server(self._join, "127.0.0.1", port)
        async with server:
            await self._tick()

    async def _tick(self) -> None:
        number, began = 0, time.monotonic()
        while True:
            await asyncio.sleep(max(began + number / PER_SECOND - time.monotonic(), 0))
            number += 1
            if self._clients:
                self._send(number)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            with suppress(ConnectionError):
                await reader.read()
        finally:
            self._clients.discard(writer)
            writer.close()

    def _send(self, number: int) -> None:
        self._stamps.write(f"0-0-{number} {time.monotonic_ns()}\n")
        frame = b"id: 0-0-%d\ndata: %b\n\n" % (number, PADDING)
        for client in self._clients:
            if not client.is_closing():
                client.write(frame)


async def run(settings: Settings) -> None:
    """Serve both until SIGTERM; the bare server has the port after the API's."""
    folder: Path = settings.data_dir
    with (folder / "stamps").open("w", buffering=1) as ours, (folder / "bare_stamps").open("w", buffering=1) as bare:
        api.sse.Tail = stamped_tail(ours)  # type: ignore[attr-defined]  # the one place where the benchmark looks inside
        app = create_app(settings)
        config = uvicorn.Config(
            app, host="127.0.0.1", port=settings.api_port, http="httptools", log_config=None, access_log=False
        )
        serving = asyncio.create_task(BareServer(bare).serve(settings.api_port + 1))
        await uvicorn.Server(config).serve()
        serving.cancel()


if __name__ == "__main__":
    import uvloop

    uvloop.run(run(Settings()))
