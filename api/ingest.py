"""Storing the events that clients post: those that come at the same time share one transaction.

Nobody waits for company. While one batch is being committed, the next one gathers; each request is answered after the
commit that holds its event.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass

from pydantic_core import to_json

from models.domain.errors import Conflict
from models.store import events, idempotency
from models.store.database import Database
from models.store.events import NewEvent, Place
from models.store.idempotency import Answer

MAX_BATCH = 200
"""Events per transaction: larger ones gain nothing and make the tail wait."""

Outcome = Place | Answer
"""Where an event now stands, or what its repetition is answered."""


@dataclass(frozen=True, eq=False)
class _Post:
    event: NewEvent
    request: idempotency.Request | None
    stored: asyncio.Future[Outcome]

    @property
    def key(self) -> str:
        """Its idempotency key; empty where it has none."""
        return self.request.key if self.request else ""


class Ingest:
    """Writes events; one transaction per workspace at a time."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting: defaultdict[str, list[_Post]] = defaultdict(list)
        self._writers: dict[str, asyncio.Task[None]] = {}

    async def write(self, workspace_id: str, event: NewEvent, request: idempotency.Request | None) -> Outcome:
        """Store an event, at most once per key; it is committed when this returns.

        Raises:
            Conflict: `idempotency_key_reused`.
        """
        post = _Post(event, request, asyncio.get_running_loop().create_future())
        self._waiting[workspace_id].append(post)
        if workspace_id not in self._writers:
            self._writers[workspace_id] = asyncio.create_task(self._write_all(workspace_id))
        return await post.stored

    async def _write_all(self, workspace_id: str) -> None:
        try:
            while batch := self._next_batch(workspace_id):
                await self._commit(workspace_id, batch)
        finally:
            del self._writers[workspace_id]

    def _next_batch(self, workspace_id: str) -> list[_Post]:
        """Take what waits; of two with the same key the second waits for the first."""
        batch: list[_Post] = []
        later: list[_Post] = []
        keys: set[str] = set()
        for post in self._waiting.pop(workspace_id, []):
            if len(batch) == MAX_BATCH or (post.key and post.key in keys):
                later.append(post)
            else:
                batch.append(post)
                keys.add(post.key)
        if later:
            self._waiting[workspace_id] = later
        return batch

    async def _commit(self, workspace_id: str, batch: list[_Post]) -> None:
        try:
            outcomes = await self._store(workspace_id, batch)
        except Exception as error:
            for post in batch:
                _answer(post, error)
        else:
            for post, outcome in zip(batch, outcomes, strict=True):
                _answer(post, outcome)

    async def _store(self, workspace_id: str, batch: list[_Post]) -> list[Outcome | Conflict]:
        async with self._db.workspace(workspace_id) as session:
            requests = [post.request for post in batch if post.request]
            known = await idempotency.claim_all(session, requests) if requests else {}
            fresh = [post for post in batch if post.key not in known]
            places = await events.append_all(session, workspace_id, [post.event for post in fresh]) if fresh else []
            stored = dict(zip(fresh, places, strict=True))
            settled = [(post.request, _repeated(place)) for post, place in stored.items() if post.request]
            if settled:
                await idempotency.settle_all(session, settled)
        return [stored.get(post) or known[post.key] for post in batch]


def _repeated(place: Place) -> Answer:
    return Answer(202, to_json({"success": True, "data": {"id": str(place), "deduped": True}}))


def _answer(post: _Post, outcome: Outcome | Exception) -> None:
    if post.stored.done():  # its client is gone
        return
    if isinstance(outcome, Exception):
        post.stored.set_exception(outcome)
    else:
        post.stored.set_result(outcome)
