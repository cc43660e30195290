"""Doing a request at most once per Idempotency-Key (V-25), in two lines per route."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Annotated, Any
from uuid import uuid4

from fastapi import Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth import Call
from api.errors import failure
from api.services import services
from models.domain.canonical import digest_of
from models.domain.errors import MissionControlError
from models.schemas.idempotency import IdempotencyKey
from models.store import api_keys, idempotency
from models.store.idempotency import Answer

KeyHeader = Annotated[
    IdempotencyKey | None,
    Header(
        alias="Idempotency-Key",
        description="Makes a repeated request harmless: it gets the first one's answer. Without `/`; not `.` or `..`.",
    ),
]


Door = Callable[[], AbstractAsyncContextManager[AsyncSession]]
"""Opens the transaction of the change: over one workspace, or over all."""


Take = Callable[[AsyncSession, idempotency.Request], Awaitable[idempotency.Claim]]
"""Takes a request's key: for good, or until the transaction ends."""


class Once:
    """One changing request. Refusals are not kept: they changed nothing, and may be tried again."""

    def __init__(
        self,
        door: Door,
        status: int,
        request: idempotency.Request | None,
        request_id: str,
        look_again: Callable[[], Awaitable[None]],
    ) -> None:
        self._door, self._status, self._request, self._request_id = door, status, request, request_id
        self._look_again = look_again
        self.key = request.key if request else uuid4().hex
        """Under what id to do it where things are done under one: a repetition's is the same."""
        self.is_repeated = False
        """Whether the same request was made before and, because we died or refused, got no answer that was kept."""

    async def commit(
        self, change: Callable[[AsyncSession], Awaitable[Any]], *, shown_once: str | None = None
    ) -> Response:
        """Make a change of rows; `change` gets the session and returns the answer's `data`.

        Key, change and answer are one transaction: a concurrent repetition waits for it and gets its answer. The field
        `shown_once` is a secret: it is in this answer, and not in the one that is kept for repetitions. A refusal that
        `change` returns, where it would raise others, is kept with what it wrote. Whose key was ended while they waited
        for their turn changes nothing.
        """
        async with self._door() as session:
            await self._look_again()
            if known := await self._claim(session, idempotency.hold):
                return replay(known)
            data = await change(session)
            await self._look_again()  # it may have waited for others, one of whom has ended the caller's key
            if isinstance(data, MissionControlError):
                refused = failure(self._request_id, data.status, data.code, data.message, data.details)
                await self._settle(session, Answer(data.status, bytes(refused.body)))
                return refused
            kept = data.model_copy(update={shown_once: None}) if shown_once else data
            await self._settle(session, Answer(self._status, envelope(kept)))
        return _response(Answer(self._status, envelope(data)))

    async def command(self, act: Callable[[str], Awaitable[Any]]) -> Response:
        """Say something to a workflow; `act` gets an id to say it under and returns the answer's `data`.

        No transaction spans the call. A repetition after a crash says it again under the same id, which is harmless.
        """
        async with self._door() as session:
            await self._look_again()
            if known := await self._claim(session, idempotency.claim):
                return replay(known)
        answer = Answer(self._status, envelope(await act(self.key)))
        async with self._door() as session:
            await self._settle(session, answer)
        return _response(answer)

    async def _claim(self, session: AsyncSession, take: Take) -> Answer | None:
        if self._request is None:
            return None
        claim = await take(session, self._request)
        self.is_repeated = not claim.is_new
        return claim.answer

    async def _settle(self, session: AsyncSession, answer: Answer) -> None:
        if self._request:
            await idempotency.settle(session, self._request, answer)


async def once(request: Request, key: KeyHeader = None) -> Once:
    """Dependency of the routes that change what is the caller's workspace's."""
    call: Call = request.state.call
    return once_in(request, call.workspace_id, key)


async def once_on_access(request: Request, key: KeyHeader = None) -> Once:
    """Dependency of the routes that change who may do what: one after the other, each as those before have left it.

    This process lets nobody act on what was before.
    """
    call: Call = request.state.call
    found = services(request)

    @asynccontextmanager
    async def in_turn() -> AsyncIterator[AsyncSession]:
        async with found.db.workspace(call.workspace_id) as session:
            await api_keys.take_turn(session, call.workspace_id)
            found.keys.forget_all()  # whoever had the turn before may have ended the caller's key
            yield session
        found.keys.forget_all()

    return Once(in_turn, *_asked(request, call.workspace_id, key))


async def once_everywhere(request: Request, key: KeyHeader = None) -> Once:
    """Dependency of a route that changes what is no workspace's (system door)."""
    call: Call = request.state.call
    return Once(services(request).db.system, *_asked(request, call.workspace_id, key))


def once_in(request: Request, workspace_id: str, key: str | None) -> Once:
    """Do a request at most once in a workspace."""
    db = services(request).db
    return Once(lambda: db.workspace(workspace_id), *_asked(request, workspace_id, key))


def _asked(
    request: Request, workspace_id: str, key: str | None
) -> tuple[int, idempotency.Request | None, str, Callable[[], Awaitable[None]]]:
    """Find the status of the answer, what a repetition must be equal to, the request's id, and how to look again."""
    status: int = request.scope["route"].status_code or 200
    asked = identified_by(request, workspace_id, key) if key else None
    return status, asked, request.state.request_id, partial(request.state.look_again, request)


def identified_by(request: Request, workspace_id: str, key: str) -> idempotency.Request:
    """Say what a repetition under the key must be equal to; JSON is compared by value, not by spelling.

    It is of the same caller, too: nobody gets the answer to what another one did, and takes it for their own.
    """
    body = getattr(request, "sent", {})  # none means an empty one
    route = f"{request.method} {request.url.path}"
    return idempotency.Request(workspace_id, key, route, digest_of({"by": _caller(request), "body": body}))


def _caller(request: Request) -> str | None:
    """Name who asks; all that have no key, to register an agent, are one."""
    call: Call | None = getattr(request.state, "call", None)
    return call.principal.known_as if call else None


def envelope(data: Any) -> bytes:
    """Encode an answer in the envelope of API-03."""
    return to_json({"success": True, "data": data}, inf_nan_mode="null")


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status_code, media_type=JSONResponse.media_type)


def replay(answer: Answer) -> Response:
    """Answer a repetition, and say that it is one."""
    response = _response(answer)
    response.headers["Idempotency-Replayed"] = "true"
    return response
