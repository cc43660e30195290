"""Storing the events that clients post: those that come at the same time share one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic_core import to_json

from api.batches import Batches
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

    @property
    def key(self) -> str:
        """Its idempotency key; empty where it has none."""
        return self.request.key if self.request else ""


class Ingest:
    """Writes events; one transaction per workspace at a time."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._batches = Batches[_Post, Outcome](self._store, MAX_BATCH, lambda post: post.key)

    async def write(self, workspace_id: str, event: NewEvent, request: idempotency.Request | None) -> Outcome:
        """Store an event, at most once per key; it is committed when this returns.

        Raises:
            Conflict: `idempotency_key_reused`.
        """
        return await self._batches.ask(workspace_id, _Post(event, request))

    async def _store(self, workspace_id: str, batch: Sequence[_Post]) -> Sequence[Outcome | Conflict]:
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
