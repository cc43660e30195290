"""What a request with an Idempotency-Key was answered (V-25), so that its repetition is answered the same."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from models.domain.errors import Conflict
from models.tables.events import Idempotency

KEPT = timedelta(hours=48)
"""Twice the least time a client may rely on (requirements 5.2)."""


@dataclass(frozen=True)
class Request:
    """A request as its repetition must be: same key, same route, same body."""

    workspace_id: str
    key: str
    route: str
    digest: str


@dataclass(frozen=True)
class Answer:
    """A stored answer: status and the body's very bytes."""

    status_code: int
    body: bytes


async def claim(session: AsyncSession, request: Request) -> Answer | None:
    """Take the key for this request; the answer if it was given before.

    A concurrent request with the key waits here until this transaction ends. None means: do it, then `settle`.

    Raises:
        Conflict: `idempotency_key_reused`, the key belongs to another request.
    """
    row = {
        "workspace_id": request.workspace_id,
        "idempotency_key": request.key,
        "route": request.route,
        "digest": request.digest,
    }
    await session.execute(insert(Idempotency).values(**row).on_conflict_do_nothing())
    known = await session.get_one(Idempotency, (request.workspace_id, request.key))
    if (known.route, known.digest) != (request.route, request.digest):
        raise Conflict(
            "idempotency_key_reused",
            f"the Idempotency-Key {request.key!r} was used for another request; take a new key for a new request",
        )
    if known.status_code is None or known.response is None:
        return None
    return Answer(known.status_code, known.response.encode())


async def settle(session: AsyncSession, request: Request, answer: Answer) -> None:
    """Keep the answer for repetitions."""
    await session.execute(
        update(Idempotency)
        .where(col(Idempotency.workspace_id) == request.workspace_id, col(Idempotency.idempotency_key) == request.key)
        .values(status_code=answer.status_code, response=answer.body.decode())
    )


async def forget_old(session: AsyncSession) -> int:
    """Remove what nobody may ask for any more (system door); return how many."""
    old = (
        delete(Idempotency).where(col(Idempotency.created_at) < func.mc_now() - KEPT).returning(col(Idempotency.route))
    )
    return len((await session.execute(old)).all())
