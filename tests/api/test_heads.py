"""What stands beside a request's body is bounded, also without a key."""

import asyncio
import json
from contextlib import suppress

import pytest

from api.heads import MAX_HEAD_BYTES
from tests.fixtures.api import address

__all__ = ["address"]
BEGUN = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
UPLOAD = b"POST /api/v1/missions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
ENDLESS = {
    "a line": b"GET /",
    "a header": BEGUN + b"X: ",
    "a size": UPLOAD + b"1;",
    "a trailer": UPLOAD + b"0\r\nX: ",
}


async def sent(address: str, *parts: bytes) -> bytes:
    """Send these, as far as the server takes them; all that it answers before it ends the connection."""
    host, _, port = address.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        with suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
        with suppress(ConnectionError):
            async with asyncio.timeout(10):
                return await reader.read()
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("begun", ENDLESS.values(), ids=ENDLESS)
async def test_what_never_ends_is_refused(address: str, begun: bytes) -> None:
    answer = await sent(address, begun, *[b"a" * 1024] * 4096)
    assert answer.startswith(b"HTTP/1.1 4") or answer == b""


async def test_long_headers_are_told_why(address: str) -> None:
    answer = await sent(address, BEGUN + b"X: " + b"a" * (MAX_HEAD_BYTES + 1))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert json.loads(body)["error"]["code"] == "head_too_long"


async def test_many_requests_of_one_connection_are_no_long_one(address: str) -> None:
    one = BEGUN + b"X: " + b"a" * (MAX_HEAD_BYTES // 2)
    last = one + b"\r\nConnection: close\r\n\r\n"
    answer = await sent(address, *[one + b"\r\n\r\n"] * 5, last)
    assert answer.count(b"HTTP/1.1 200 ") == 6
