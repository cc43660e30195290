"""Long answers that nobody reads: what a key's readers may leave with us is bounded, and no other key suffers."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2
import pytest

from api import answers
from api.answers import UNCOUNTED, Unsent
from models.domain.errors import RateLimited
from models.settings import Settings
from tests.fixtures.api import Caller, Team, served
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import body, filed, refusal, repo
from tests.fixtures.waiting import eventually

__all__ = ["repo"]

SIZE = 6_000_000
"""More than the system's buffers take of an answer whose reader stands still."""
DIFF = "--- a/a.txt\n+++ b/a.txt\n@@ -0,0 +1 @@\n+" + "x" * SIZE + "\n"


@pytest.fixture
async def address(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Where an API listens that keeps two such diffs for a key's readers."""
    monkeypatch.setattr(answers, "OF_A_KEY", 2 * len(DIFF) + 50_000)
    async with served(settings.model_copy(update={"max_body_bytes": 2 * SIZE})) as url:
        yield url


@pytest.fixture
async def diff(address: str, client: Caller, team: Team, repo: Repo) -> str:
    """The path of a mission's long diff."""
    headers = {"X-API-Key": team.operator}
    async with httpx2.AsyncClient(base_url=address, headers=headers, timeout=30) as api:
        mission = await filed(api, repo, patch_candidates=[{"diff": DIFF}])
    return f"/api/v1/missions/{mission['mission_id']}/diff"


@asynccontextmanager
async def unread(address: str, key: str, path: str) -> AsyncIterator[asyncio.StreamReader]:
    """Ask for an answer, and read no more than its first bytes."""
    host, _, port = address.removeprefix("http://").partition(":")
    ours = socket.socket()
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNCOUNTED)  # by itself it may grow to take the whole answer
    await asyncio.get_running_loop().sock_connect(ours, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=ours, limit=UNCOUNTED)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    try:
        yield reader
    finally:
        writer.transport.abort()


async def test_a_key_that_reads_nothing_is_given_no_more(address: str, team: Team, diff: str) -> None:
    async with httpx2.AsyncClient(base_url=address, timeout=30) as api, AsyncExitStack() as unread_ones:
        held, other = {"X-API-Key": team.agent}, {"X-API-Key": team.observer}
        readers = [await unread_ones.enter_async_context(unread(address, team.agent, diff)) for _ in range(2)]
        refused = await api.get(diff, headers=held)
        assert (*refusal(refused), refused.headers["retry-after"]) == (429, "too_many_bytes", "1")
        assert (await api.get("/api/v1/missions", headers=held)).status_code == 200, "short ones take no room"
        assert (await api.get(diff, headers=other)).text == DIFF
        head = await readers[0].readuntil(b"\r\n\r\n")
        assert f"content-length: {len(DIFF)}\r\n".encode() in head
        assert await readers[0].readexactly(len(DIFF)) == DIFF.encode()
        assert (await api.get(diff, headers=held)).text == DIFF


async def test_many_keys_leave_no_more_than_all_may(
    address: str, team: Team, diff: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "OF_ALL", 2 * len(DIFF))
    async with httpx2.AsyncClient(base_url=address, timeout=30) as api, AsyncExitStack() as unread_ones:
        for key in (team.agent, team.observer):
            await unread_ones.enter_async_context(unread(address, key, diff))
        held = {"X-API-Key": team.operator}
        assert refusal(await api.get(diff, headers=held)) == (503, "no_room")
        assert (await api.get("/api/v1/missions", headers=held)).status_code == 200, "short ones take no room"


async def test_whoever_takes_nothing_is_given_no_more(
    address: str, team: Team, diff: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "OF_A_KEY", len(DIFF) + 50_000)
    monkeypatch.setattr(answers, "STILL_SECONDS", 0.2)
    async with (
        httpx2.AsyncClient(base_url=address, headers={"X-API-Key": team.agent}, timeout=30) as api,
        unread(address, team.agent, diff) as reader,
    ):

        async def is_given() -> bool:
            return (await api.get(diff)).status_code == 200

        await eventually(is_given)
        await reader.readuntil(b"\r\n\r\n")
        assert len(await reader.read(-1)) < len(DIFF), "it ends before its length"


async def test_what_was_done_is_told_all_the_same(address: str, team: Team, repo: Repo, diff: str) -> None:
    symptoms = [{"description": "x" * 2_000}] * 50
    headers = {"X-API-Key": team.agent}
    async with (
        httpx2.AsyncClient(base_url=address, headers=headers, timeout=30) as api,
        AsyncExitStack() as unread_ones,
    ):
        for _ in range(2):
            await unread_ones.enter_async_context(unread(address, team.agent, diff))
        mission = await filed(api, repo, symptoms=symptoms, severity="critical", assigned_to="agent")
        assert refusal(await api.get(f"/api/v1/missions/{mission['mission_id']}")) == (429, "too_many_bytes")
        given = await api.get("/api/v1/queue/next?agent_id=agent&agent_role=coding")
        assert given.json()["data"]["mission_id"] == mission["mission_id"]


def test_where_nothing_more_can_be_told_nothing_more_is_done() -> None:
    unsent = Unsent()
    with unsent.hold("k", answers.OF_A_KEY - 1, may_refuse=False):
        unsent.require_room("k")
        with unsent.hold("k", 1, may_refuse=False), pytest.raises(RateLimited):
            unsent.require_room("k")
        unsent.require_room("k")
        unsent.require_room("other")


async def test_an_act_is_refused_before_it_is_done(
    address: str, client: Caller, team: Team, repo: Repo, diff: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"X-API-Key": team.agent}
    async with httpx2.AsyncClient(base_url=address, headers=headers) as api, unread(address, team.agent, diff):
        monkeypatch.setattr(answers, "OF_A_KEY", len(DIFF))
        assert refusal(await api.post("/api/v1/missions", json=body(repo))) == (429, "too_many_bytes")
    assert len((await client(team.operator).get("/api/v1/missions")).json()["data"]["items"]) == 1


async def test_who_goes_away_holds_nothing(address: str, team: Team, diff: str) -> None:
    headers = {"X-API-Key": team.agent}
    async with httpx2.AsyncClient(base_url=address, headers=headers, timeout=30) as api:
        async with AsyncExitStack() as unread_ones:
            for _ in range(2):
                await unread_ones.enter_async_context(unread(address, team.agent, diff))
            assert (await api.get(diff)).status_code == 429

        async def is_given() -> bool:
            return (await api.get(diff)).status_code == 200

        await eventually(is_given)
