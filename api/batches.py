"""What is asked of one workspace, or by one agent of it, at the same time is done in one transaction.

Nobody waits for company. While one batch is being done, the next one gathers; each is answered after the commit that
holds what it asked for.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Do = Callable[[str, Sequence[Asked]], Awaitable[Sequence[Answer | Exception]]]
"""Does what is asked of a workspace, whole or not at all, and gives the answers in the same order."""


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Asked, Answer]):
    asked: Asked
    answered: asyncio.Future[Answer]


class Batches(Generic[Asked, Answer]):
    """Gathers, for each workspace, up to `most` while it does what was asked before.

    Of two with the same `key`, other than an empty one, the second waits for the next batch.
    """

    def __init__(self, do: Do[Asked, Answer], most: int, key: Callable[[Asked], str] = lambda _: "") -> None:
        self._do, self._most, self._key = do, most, key
        self._waiting: defaultdict[str, list[_Waiting[Asked, Answer]]] = defaultdict(list)
        self._working: dict[str, asyncio.Task[None]] = {}

    async def ask(self, workspace_id: str, asked: Asked) -> Answer:
        """Ask, and wait for the answer; what fails for a batch is raised to each of it."""
        waiting = _Waiting[Asked, Answer](asked, asyncio.get_running_loop().create_future())
        self._waiting[workspace_id].append(waiting)
        if workspace_id not in self._working:
            self._working[workspace_id] = asyncio.create_task(self._work(workspace_id))
        return await waiting.answered

    async def _work(self, workspace_id: str) -> None:
        try:
            while batch := self._next_batch(workspace_id):
                await self._answer(workspace_id, batch)
        finally:
            del self._working[workspace_id]

    def _next_batch(self, workspace_id: str) -> list[_Waiting[Asked, Answer]]:
        batch: list[_Waiting[Asked, Answer]] = []
        later: list[_Waiting[Asked, Answer]] = []
        keys: set[str] = set()
        for waiting in self._waiting.pop(workspace_id, []):
            key = self._key(waiting.asked)
            if len(batch) == self._most or (key and key in keys):
                later.append(waiting)
            else:
                batch.append(waiting)
                keys.add(key)
        if later:
            self._waiting[workspace_id] = later
        return batch

    async def _answer(self, workspace_id: str, batch: list[_Waiting[Asked, Answer]]) -> None:
        answers: Sequence[Answer | Exception]
        try:
            answers = await self._do(workspace_id, [waiting.asked for waiting in batch])
        except Exception as error:
            answers = [error] * len(batch)
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.answered.done():  # its client is gone
                continue
            if isinstance(answer, Exception):
                waiting.answered.set_exception(answer)
            else:
                waiting.answered.set_result(answer)
