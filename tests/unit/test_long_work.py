"""What takes long waits for its turn, and no key has two."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from api.long_work import DONE_AT_ONCE, PIECES_AT_ONCE, LongWork
from models.domain.errors import RateLimited


async def test_a_key_has_one_at_a_time_and_all_wait_for_each_other() -> None:
    work, begun, end = LongWork(), list[str](), asyncio.Event()

    async def done(key: str) -> None:
        async with work.turn(key):
            begun.append(key)
            await end.wait()

    async with asyncio.TaskGroup() as tasks:
        for number in range(DONE_AT_ONCE + 1):
            tasks.create_task(done(f"key {number}"))
        await asyncio.sleep(0)
        assert len(begun) == DONE_AT_ONCE
        for key in ("key 0", f"key {DONE_AT_ONCE}"):
            with pytest.raises(RateLimited) as refused:
                async with work.turn(key):
                    pass
            assert (refused.value.code, refused.value.details["wait_seconds"]) == ("one_at_a_time", 5)
        end.set()
    assert len(begun) == DONE_AT_ONCE + 1
    async with work.turn("key 0"):
        pass


async def test_so_many_pieces_are_read_at_once_and_given_in_order() -> None:
    work, reading, most = LongWork(), 0, 0

    async def pieces() -> AsyncGenerator[str]:
        nonlocal reading, most
        for number in range(3):
            reading += 1
            most = max(most, reading)
            await asyncio.sleep(0)
            reading -= 1
            yield str(number)

    async def read() -> list[str]:
        return [piece async for piece in work.paced(pieces())]

    assert await asyncio.gather(*(read() for _ in range(2 * PIECES_AT_ONCE))) == 2 * PIECES_AT_ONCE * [["0", "1", "2"]]
    assert most == PIECES_AT_ONCE
