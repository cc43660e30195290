"""What is asked at the same time is done together, and each one gets its own answer."""

import asyncio
from collections.abc import Sequence

import pytest

from api.batches import Batches

MOST = 3


class Doubling:
    """Doubles numbers, batch by batch, while its gate is open; what it was given each time."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.done: list[tuple[str, list[int]]] = []

    async def do(self, workspace_id: str, asked: Sequence[int]) -> list[int | Exception]:
        await self.gate.wait()
        self.done.append((workspace_id, list(asked)))
        if 13 in asked:
            raise RuntimeError("the whole batch is lost")
        return [KeyError(number) if number < 0 else 2 * number for number in asked]


async def asked(batches: Batches[int, int], *numbers: int, workspace_id: str = "w") -> list[asyncio.Task[int]]:
    """Ask for each, one after the other, without waiting for answers."""
    tasks = [asyncio.create_task(batches.ask(workspace_id, number)) for number in numbers]
    await asyncio.sleep(0)
    return tasks


async def test_nobody_waits_for_company_and_a_crowd_goes_together() -> None:
    doubling = Doubling()
    batches = Batches(doubling.do, MOST)
    tasks = await asked(batches, 1)
    await asyncio.sleep(0)
    tasks += await asked(batches, 2, 3, 4, 5)
    tasks += await asked(batches, 6, workspace_id="other")
    doubling.gate.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10, 12]
    assert [batch for workspace_id, batch in doubling.done if workspace_id == "w"] == [[1], [2, 3, 4], [5]]
    assert ("other", [6]) in doubling.done


async def test_of_two_with_the_same_key_the_second_waits() -> None:
    doubling = Doubling()
    doubling.gate.set()
    tasks = await asked(Batches(doubling.do, MOST, lambda number: "even" if number % 2 == 0 else ""), 2, 4, 1, 3)
    assert await asyncio.gather(*tasks) == [4, 8, 2, 6]
    assert [batch for _, batch in doubling.done] == [[2, 1, 3], [4]]


async def test_what_fails_is_raised_to_those_it_concerns() -> None:
    doubling = Doubling()
    doubling.gate.set()
    batches = Batches(doubling.do, MOST)
    one, good, *lost = await asyncio.gather(*await asked(batches, -1, 1, 1, 13, 14), return_exceptions=True)
    assert (type(one), good) == (KeyError, 2)
    assert [type(each) for each in lost] == [int, RuntimeError, RuntimeError]
    assert await batches.ask("w", 4) == 8, "the next batch goes on"


async def test_who_goes_away_takes_nobody_along() -> None:
    doubling = Doubling()
    batches = Batches(doubling.do, MOST)
    first, second = await asked(batches, 1, 2)
    await asyncio.sleep(0)
    first.cancel()
    doubling.gate.set()
    assert await second == 4
    with pytest.raises(asyncio.CancelledError):
        await first
