"""A load generator that costs little: prepared requests over a fixed number of open connections."""

import asyncio
import time
from collections.abc import Sequence

from benchmarks.measure import Numbers, percentile

CONNECTIONS = 32


def request(method: str, path: str, key: str = "", body: bytes = b"") -> bytes:
    """Spell a request out."""
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    head += [f"Authorization: Bearer {key}"] if key else []
    head += ["Content-Type: application/json"] if body else []
    return "\r\n".join([*head, "", ""]).encode() + body


async def load(port: int, requests: Sequence[bytes], seconds: float, status: int) -> Numbers:
    """Send the requests in turn, again and again, over `CONNECTIONS` connections, for so long."""
    latencies: list[float] = []
    ends = time.perf_counter() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = number * len(requests) // CONNECTIONS
        while (began := time.perf_counter()) < ends:
            writer.write(requests[turn % len(requests)])
            await answer(reader, status)
            latencies.append(time.perf_counter() - began)
            turn += 1
        writer.close()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(CONNECTIONS):
            group.create_task(client(number))
    return {
        "answers_per_second": len(latencies) / (time.perf_counter() - began),
        "p50_ms": 1000 * percentile(latencies, 0.5),
        "p99_ms": 1000 * percentile(latencies, 0.99),
    }


async def answer(reader: asyncio.StreamReader, *statuses: int) -> bytes:
    """Read an answer of one of these statuses; its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    length = int(lower.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    body = await reader.readexactly(length)
    assert int(head.split(b" ", 2)[1]) in statuses, head + body
    return body
