"""How many streams a key may have open, and that each place is given back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx2
import pytest

from models.settings import Settings
from models.store.database import Database
from tests.fixtures.api import Caller, Team, served
from tests.fixtures.audit import act
from tests.fixtures.missions import refusal
from tests.fixtures.waiting import eventually
from tests.fixtures.watching import watching

MOST = 3


@pytest.fixture
async def address(settings: Settings) -> AsyncIterator[str]:
    """Where an API listens that lets a key have few streams."""
    async with served(settings.model_copy(update={"streams_per_key": MOST})) as url:
        yield url


async def asked(address: str, key: str, query: str = "") -> httpx2.Response:
    """Ask for a stream, and leave with the head of its answer; the whole of a refusal."""
    async with (
        httpx2.AsyncClient(headers={"X-API-Key": key}) as client,
        client.stream("GET", f"{address}/api/v1/events{query}") as answer,
    ):
        if answer.status_code != 200:
            await answer.aread()
        return answer


async def opens(address: str, key: str, count: int = 1) -> bool:
    """Whether a key may open so many streams now."""
    async with httpx2.AsyncClient(headers={"X-API-Key": key}) as client, AsyncExitStack() as open_ones:
        streams = [client.stream("GET", f"{address}/api/v1/events") for _ in range(count)]
        return all([(await open_ones.enter_async_context(stream)).status_code == 200 for stream in streams])


async def test_one_too_many_is_refused_and_no_other_key_suffers(address: str, team: Team) -> None:
    async with AsyncExitStack() as open_ones:
        for _ in range(MOST):
            await open_ones.enter_async_context(watching(address, team.observer))
        refused = await asked(address, team.observer)
        assert refusal(refused) == (429, "too_many_streams")
        assert (refused.json()["error"]["details"]["limit"], refused.headers["retry-after"]) == (MOST, "1")
        assert f"{MOST} streams of this key are open: close one" in refused.json()["error"]["message"]
        assert await opens(address, team.operator)


async def test_an_end_gives_the_place_back(address: str, team: Team) -> None:
    async with AsyncExitStack() as open_ones:
        for _ in range(MOST - 1):
            await open_ones.enter_async_context(watching(address, team.observer))
        async with watching(address, team.observer):
            assert not await opens(address, team.observer)
        await eventually(lambda: opens(address, team.observer))


async def test_neither_a_refused_question_nor_a_client_that_runs_away_holds_a_place(address: str, team: Team) -> None:
    for _ in range(MOST + 1):
        assert refusal(await asked(address, team.observer, "?type=no.such"))[0] == 422
    host, _, port = address.removeprefix("http://").partition(":")
    for _ in range(MOST * 5):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {team.observer}\r\n\r\n".encode())
        await writer.drain()
        writer.transport.abort()
    await eventually(lambda: opens(address, team.observer, MOST), pause=0.5)
    assert not await opens(address, team.observer, MOST + 1)


async def test_a_revoked_key_s_stream_counts_no_more(address: str, team: Team) -> None:
    async with httpx2.AsyncClient(base_url=address, headers={"X-API-Key": team.admin}) as admin:
        made = (await admin.post("/api/v1/keys", json={"principal": "eve", "role": "observer"})).json()["data"]
        async with AsyncExitStack() as open_ones:
            for _ in range(MOST):
                await open_ones.enter_async_context(watching(address, made["secret"]))
            rotated = await admin.post(f"/api/v1/keys/{made['key_id']}/rotate", json={"grace_hours": 1})
            successor = rotated.json()["data"]["secret"]
            assert refusal(await asked(address, successor)) == (429, "too_many_streams"), "they count together"
            assert (await admin.delete(f"/api/v1/keys/{made['key_id']}")).status_code == 200
            await eventually(lambda: opens(address, successor))


@pytest.mark.parametrize("ended", ["key", "role"])
async def test_an_export_of_the_log_breaks_off_with_its_key(
    client: Caller, db: Database, address: str, team: Team, ended: str
) -> None:
    """However slowly it is read: what is sent by then is what lay ready."""
    admin = client(team.admin)
    for _ in range(40):
        await act(db, team.workspace_id, 10, text="x" * 100_000)
    await admin.post("/api/v1/principals", json={"name": "eve", "role": "admin"})
    key = (await admin.post("/api/v1/keys", json={"principal": "eve"})).json()["data"]
    async with (
        httpx2.AsyncClient(base_url=address, headers={"X-API-Key": key["secret"]}, timeout=10) as reader,
        reader.stream("GET", "/api/v1/audit/export") as export,
    ):
        lines = export.aiter_lines()
        assert '"kind": "log"' in await anext(lines)
        if ended == "key":
            await admin.delete(f"/api/v1/keys/{key['key_id']}")
        else:
            await admin.put(f"/api/v1/workspaces/{team.workspace_id}/members/eve", json={"role": "operator"})
        await eventually(lambda: is_refused(reader))
        rest = list[str]()
        with pytest.raises(httpx2.RemoteProtocolError):
            rest += [line async for line in lines]
        assert len(rest) < 400


async def is_refused(reader: httpx2.AsyncClient) -> bool:
    """Whether a key exports no log."""
    async with reader.stream("GET", "/api/v1/audit/export") as answer:
        return answer.is_client_error


async def test_an_export_is_one_of_the_streams(address: str, team: Team) -> None:
    async with AsyncExitStack() as open_ones:
        for _ in range(MOST):
            await open_ones.enter_async_context(watching(address, team.admin))
        async with httpx2.AsyncClient(headers={"X-API-Key": team.admin}) as api:
            assert refusal(await api.get(f"{address}/api/v1/audit/export")) == (429, "too_many_streams")
