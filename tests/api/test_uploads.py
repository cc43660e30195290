"""Bodies that come slowly, or many at once: what an API process holds of them ends, and is bounded."""

import asyncio
import gc
import json
import tempfile
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
import structlog

from api import bodies
from api.bodies import MIB, UNCOUNTED
from api.routing import WireRequest
from models.domain import uploads
from models.schemas.envelope import Bounds
from models.settings import Settings
from models.store.connections import plain
from tests.fixtures.api import Team, served
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import DIFF, body, refusal, repo
from tests.fixtures.waiting import eventually, somebody_waits, until

__all__ = ["repo"]

SHORT, LONG = Bounds.bytes, 3 * MIB
"""The longest that is no patch, and the longest here."""


@pytest.fixture
async def address(settings: Settings) -> AsyncIterator[str]:
    """Where an API listens that takes bodies of that length."""
    async with served(settings.model_copy(update={"max_body_bytes": LONG})) as url:
        yield url


class Upload:
    """A request that is sent by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def is_read(self) -> None:
        """Wait until the server asks for the body."""
        assert await self._reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> httpx2.Response:
        """Read an answer."""
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        content = await self._reader.readexactly(int(headers["content-length"]))
        return httpx2.Response(int(lines[0].split()[1]), headers=headers, content=content)

    async def status(self) -> int:
        """Read an answer's head; what follows is lost where a drop of ours reaches a connection that is closed."""
        return int((await self._reader.readuntil(b"\r\n\r\n")).split()[1])

    async def ends(self) -> bool:
        """Whether the server closes the connection, and says no more."""
        return await self._reader.read() == b""


@asynccontextmanager
async def upload(
    address: str, key: str | None, size: int | None, path: str = "/api/v1/missions"
) -> AsyncIterator[Upload]:
    """Announce a body of a size, or one that does not say how long it is."""
    host, _, port = address.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    length = "Transfer-Encoding: chunked" if size is None else f"Content-Length: {size}"
    head = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", "Expect: 100-continue", length]
    writer.write("\r\n".join([*head, *([f"X-API-Key: {key}"] if key else []), "", ""]).encode())
    await writer.drain()
    try:
        yield Upload(reader, writer)
    finally:
        writer.transport.abort()


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for any longer than a moment."""
    monkeypatch.setattr(uploads, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(bodies, "ROOM_SECONDS", 0.2)


@pytest.mark.usefixtures("hurry")
class TestSlowBodies:
    """One that stays away is given up."""

    @pytest.mark.parametrize("size", [100, LONG, None], ids=["small", "long", "unsaid"])
    async def test_who_stops_in_the_middle_is_told_so(self, address: str, team: Team, size: int | None) -> None:
        async with upload(address, team.agent, size) as silent:
            await silent.send(b"5\r\n[    \r\n" if size is None else b"[    ")
            await silent.is_read()
            refused = await silent.answer()
            assert refusal(refused) == (408, "body_timeout")
            assert refused.json()["error"]["details"] == {"received_bytes": 5}
            assert await silent.ends()

    async def test_who_goes_away_is_no_fault_of_ours(self, address: str, team: Team) -> None:
        with structlog.testing.capture_logs() as logs:
            async with upload(address, team.agent, LONG) as broken:
                await broken.is_read()
            await until(lambda: bool(logs))
        assert [(line["event"], line["status"]) for line in logs] == [("request", 408)]

    async def test_also_a_stranger(self, address: str) -> None:
        async with upload(address, None, 100, "/api/v1/agents") as silent:
            await silent.is_read()
            assert refusal(await silent.answer()) == (408, "body_timeout")

    async def test_drops_are_not_enough(self, address: str, team: Team) -> None:
        async with upload(address, team.agent, LONG) as dripping:
            await dripping.is_read()
            status = asyncio.create_task(dripping.status())
            while not status.done():
                await dripping.send(b" ")
                await asyncio.wait({status}, timeout=0.01)
            assert await status == 408


class TestRoomOnDisk:
    """Bodies that come wait for those before them."""

    @pytest.fixture(autouse=True)
    def _small_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bodies, "COMING", (LONG, 2 * LONG))

    @pytest.mark.parametrize("size", [SHORT, LONG, None], ids=["short", "long", "unsaid"])
    async def test_a_key_s_next_one_waits_until_the_one_before_has_come(
        self, address: str, team: Team, size: int | None
    ) -> None:
        async with upload(address, team.agent, LONG) as first:
            await first.is_read()
            async with upload(address, team.agent, size) as second:
                asked = asyncio.create_task(second.is_read())
                await self.passes(address, team.operator, size)
                assert not asked.done()
                await first.send(b"]" * LONG)
                assert refusal(await first.answer()) == (422, "malformed_json")
                await asked

    async def passes(self, address: str, key: str, size: int | None) -> None:
        """See that another key's body of that size, and so a small one of any, are asked for."""
        async with upload(address, key, size) as other:
            await other.is_read()

    @pytest.mark.usefixtures("hurry")
    async def test_a_key_that_holds_too_much_is_refused(
        self, address: str, team: Team, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uploads, "SILENCE_SECONDS", 30)
        async with upload(address, team.agent, LONG) as first:
            await first.is_read()
            async with upload(address, team.agent, SHORT) as second:
                refused = await second.answer()
            assert refusal(refused) == (429, "too_many_bytes")
            assert (refused.json()["error"]["details"]["limit_bytes"], refused.headers["retry-after"]) == (LONG, "1")
            async with upload(address, team.agent, UNCOUNTED) as small:
                await small.is_read()

    @pytest.mark.usefixtures("hurry")
    async def test_all_keys_together_hold_no_more_either(
        self, address: str, team: Team, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uploads, "SILENCE_SECONDS", 30)
        async with upload(address, team.agent, LONG) as first, upload(address, team.operator, LONG) as second:
            await first.is_read()
            await second.is_read()
            async with upload(address, team.service, LONG) as third:
                refused = await third.answer()
            assert (*refusal(refused), refused.headers["retry-after"]) == (503, "no_room", "1")
            await self.passes(address, team.service, UNCOUNTED)

    async def test_who_leaves_gives_the_room_back_and_who_waited_longest_gets_it(
        self, address: str, team: Team
    ) -> None:
        async with upload(address, team.agent, 2 * MIB) as held:
            await held.is_read()
            async with upload(address, team.agent, LONG) as gone:
                del gone
            async with upload(address, team.agent, LONG) as next_one:
                asked = asyncio.create_task(next_one.is_read())
                await self.passes(address, team.operator, LONG)
                async with upload(address, team.agent, 2 * MIB) as last:
                    waits = asyncio.create_task(last.is_read())
                    await self.passes(address, team.operator, LONG)
                    await held.send(b"]" * 2 * MIB)
                    await asked
                    assert not waits.done()
                    await next_one.send(b"]" * LONG)
                    await waits

    async def test_a_disk_that_takes_no_more_is_told_of(
        self, address: str, team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        for size, told in ((UNCOUNTED, (422, "malformed_json")), (UNCOUNTED + 1, (503, "no_room"))):
            async with upload(address, team.agent, size) as body:
                await body.send(b"]" * size)
                await body.is_read()
                assert refusal(await body.answer()) == told

    async def test_what_is_too_long_waits_for_nothing(self, address: str, team: Team) -> None:
        async with upload(address, team.agent, LONG) as first:
            await first.is_read()
            async with upload(address, team.agent, LONG + 1) as longer:
                assert refusal(await longer.answer()) == (413, "body_too_large")


class TestRoomInMemory:
    """Only what is all there, and not yet answered, takes memory."""

    @pytest.fixture(autouse=True)
    def _one_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bodies, "SHORT", (SHORT, SHORT))
        monkeypatch.setattr(bodies, "LONG", (LONG, LONG))

    @pytest.mark.parametrize("size", [SHORT, LONG])
    async def test_who_hardly_sends_keeps_nobody_out(self, address: str, team: Team, size: int) -> None:
        async with upload(address, team.agent, size) as first, upload(address, team.operator, size) as second:
            await first.is_read()
            await second.is_read()
            await first.send(b"]" * (size - 1))
            async with upload(address, team.service, size) as third:
                await third.send(b"]" * size)
                await third.is_read()
                assert refusal(await third.answer()) == (422, "malformed_json")

    @pytest.mark.parametrize("size", [SHORT, LONG])
    async def test_who_waits_for_an_answer_keeps_others_waiting(
        self, address: str, team: Team, database_url: str, repo: Repo, size: int
    ) -> None:
        async with (
            busy(address, team.operator, database_url, repo, size) as holding,
            upload(address, team.agent, size) as second,
            upload(address, team.agent, UNCOUNTED) as small,
        ):
            await second.send(b"]" * size)
            await second.is_read()
            answer = asyncio.create_task(second.answer())
            await small.send(b"]" * UNCOUNTED)
            await small.is_read()
            assert refusal(await small.answer()) == (422, "malformed_json")
            assert not answer.done()
            await holding.rollback()
            assert refusal(await answer) == (422, "malformed_json")

    @pytest.mark.usefixtures("hurry")
    async def test_who_waits_too_long_is_told(
        self, address: str, team: Team, database_url: str, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uploads, "SILENCE_SECONDS", 30)
        async with busy(address, team.operator, database_url, repo, LONG):
            for key, told in ((team.operator, (429, "too_many_bytes")), (team.agent, (503, "no_room"))):
                async with upload(address, key, LONG) as second:
                    await second.send(b"]" * LONG)
                    await second.is_read()
                    assert refusal(await second.answer()) == told


@asynccontextmanager
async def busy(
    address: str, key: str, database_url: str, repo: Repo, size: int
) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Have a mission of that size filed, which waits for the connection given."""
    async with (
        await psycopg.AsyncConnection.connect(plain(database_url)) as holding,
        upload(address, key, size) as sent,
    ):
        await holding.execute("LOCK TABLE mission")
        await sent.send(json.dumps(body(repo)).encode().ljust(size))
        await sent.is_read()
        await eventually(lambda: somebody_waits(holding))
        yield holding
        await holding.rollback()
        assert (await sent.answer()).status_code == 201


@pytest.mark.parametrize(("diff", "status"), [(DIFF, 201), ("no diff", 422)])
async def test_what_was_sent_goes_with_its_answer(
    api: httpx2.AsyncClient, repo: Repo, monkeypatch: pytest.MonkeyPatch, diff: str, status: int
) -> None:
    """And not when the collector of cycles comes, which does so rarely where a body is one text."""
    requests = []

    def noting(self: WireRequest, *given: Any) -> None:
        requests.append(weakref.ref(self))
        load(self, *given)

    load = WireRequest.load
    monkeypatch.setattr(WireRequest, "load", noting)
    gc.disable()
    try:
        answer = await api.post("/api/v1/missions", json=body(repo, patch_candidates=[{"diff": diff}]))
        assert (answer.status_code, requests[0]()) == (status, None)
    finally:
        gc.enable()
