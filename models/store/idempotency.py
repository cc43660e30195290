"""What a request with an Idempotency-Key was answered (V-25), so that its repetition is answered the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.errors import Conflict
from models.tables.events import Idempotency

KEPT = timedelta(hours=48)
"""Twice the least time a client may rely on (requirements 5.2)."""
OF_STRANGERS = "stranger "
"""Before the keys of those who have none of ours, with a space, which no key has: they cannot use up a member's."""
FORGOTTEN_AT_ONCE = 50_000
"""A pass of the reconciler removes as many: in its ten seconds more than come in them."""


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


@dataclass(frozen=True)
class Claim:
    """What a key was taken for: a new request, or one that was made before, with its answer if it got one."""

    is_new: bool
    answer: Answer | None = None


async def claim(session: AsyncSession, request: Request) -> Claim:
    """Take the key for this request, for good; without an answer: do it, then `settle`.

    A concurrent request with the key waits here until this transaction ends.

    Raises:
        Conflict: `idempotency_key_reused`, the key belongs to another request.
    """
    claimed = await hold(session, request)
    if claimed.is_new and not await _take(session, [request]):
        return await hold(session, request)  # one of several, as `claim_all` takes them, came first
    return claimed


async def hold(session: AsyncSession, request: Request) -> Claim:
    """Take the key until this transaction ends, and write nothing; without an answer: do it, then `settle`.

    Who writes nothing gets no transaction id: it is still to come when the change locks what it is about, and so
    events about one thing stand in the stream in the order of its changes (ADR 3).

    Raises:
        Conflict: `idempotency_key_reused`, the key belongs to another request.
    """
    row = (await session.scalars(_HOLD, {"workspace_id": request.workspace_id, "key": request.key})).one_or_none()
    known = _known(request, row) if row else None
    if isinstance(known, Conflict):
        raise known
    return Claim(is_new=row is None, answer=known)


async def claim_all(session: AsyncSession, requests: Sequence[Request]) -> dict[str, Answer | Conflict]:
    """Take the keys of several requests of one workspace, each key once; what those get that were known before."""
    taken = await _take(session, requests)
    others = {request.key: request for request in requests if request.key not in taken}
    return await _find(session, others) if others else {}


_HOLD = select(Idempotency).from_statement(text("SELECT * FROM mc_hold_request(:workspace_id, :key)"))


async def _take(session: AsyncSession, requests: Sequence[Request]) -> set[str]:
    return set(await session.scalars(_CLAIM, _columns(requests)))


async def _find(session: AsyncSession, others: dict[str, Request]) -> dict[str, Answer | Conflict]:
    workspace_id = next(iter(others.values())).workspace_id
    rows = await session.scalars(
        select(Idempotency).where(
            Idempotency.workspace_id == workspace_id, col(Idempotency.idempotency_key).in_(others)
        )
    )
    found = {row.idempotency_key: _known(others[row.idempotency_key], row) for row in rows}
    return {key: known for key, known in found.items() if known}


async def settle(session: AsyncSession, request: Request, answer: Answer) -> None:
    """Keep the answer for repetitions.

    Raises:
        Conflict: `idempotency_key_reused`, another request took the key in this very moment.
    """
    values = {**_columns([request]), "code": answer.status_code, "body": answer.body.decode()}
    if (await session.execute(_SETTLE_ONE, values)).first() is None:
        raise _reused(request)


async def settle_all(session: AsyncSession, answers: Sequence[tuple[Request, Answer]]) -> None:
    """Keep the answers of several requests of one workspace."""
    values = {
        "workspace_id": answers[0][0].workspace_id,
        "keys": [request.key for request, _ in answers],
        "codes": [answer.status_code for _, answer in answers],
        "bodies": [answer.body.decode() for _, answer in answers],
    }
    await session.execute(_SETTLE, values)


# In the order of keys: two that claim the same ones wait for each other, and never in a circle.
_CLAIM = text(
    "INSERT INTO idempotency (workspace_id, idempotency_key, route, digest)"
    " SELECT :workspace_id, key, route, digest"
    " FROM unnest(CAST(:keys AS text[]), CAST(:routes AS text[]), CAST(:digests AS text[])) AS t (key, route, digest)"
    " ORDER BY key ON CONFLICT DO NOTHING RETURNING idempotency_key"
)
_SETTLE_ONE = text(
    "INSERT INTO idempotency (workspace_id, idempotency_key, route, digest, status_code, response)"
    " SELECT :workspace_id, key, route, digest, :code, :body"
    " FROM unnest(CAST(:keys AS text[]), CAST(:routes AS text[]), CAST(:digests AS text[])) AS t (key, route, digest)"
    " ON CONFLICT (workspace_id, idempotency_key)"
    " DO UPDATE SET status_code = EXCLUDED.status_code, response = EXCLUDED.response"
    " WHERE (idempotency.route, idempotency.digest) = (EXCLUDED.route, EXCLUDED.digest) RETURNING 1"
)
_SETTLE = text(
    "UPDATE idempotency SET status_code = t.code, response = t.body"
    " FROM unnest(CAST(:keys AS text[]), CAST(:codes AS integer[]), CAST(:bodies AS text[])) AS t (key, code, body)"
    " WHERE workspace_id = :workspace_id AND idempotency_key = t.key"
)


def _columns(requests: Sequence[Request]) -> dict[str, Any]:
    return {
        "workspace_id": requests[0].workspace_id,
        "keys": [request.key for request in requests],
        "routes": [request.route for request in requests],
        "digests": [request.digest for request in requests],
    }


def _known(request: Request, row: Idempotency) -> Answer | Conflict | None:
    """What a known key answers; None when its first request never came to an end."""
    if (row.route, row.digest) != (request.route, request.digest):
        return _reused(request)
    if row.status_code is None or row.response is None:
        return None
    return Answer(row.status_code, row.response.encode())


def _reused(request: Request) -> Conflict:
    sent = request.key.removeprefix(OF_STRANGERS)
    return Conflict(
        "idempotency_key_reused",
        f"the Idempotency-Key {sent!r} was used for another request; take a new key for a new request",
    )


async def forget_old(session: AsyncSession) -> None:
    """Remove what nobody may ask for any more, some of it where it is much (system door)."""
    await session.execute(_FORGET, {"kept": KEPT, "limit": FORGOTTEN_AT_ONCE})


_FORGET = text(
    "DELETE FROM idempotency WHERE ctid = ANY(ARRAY("
    "SELECT ctid FROM idempotency WHERE created_at < mc_now() - :kept LIMIT :limit))"
)
