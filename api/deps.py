"""The dependencies that routes declare: who may call, what is shared, which page is meant."""

from typing import Annotated

from fastapi import Depends, Query, Request
from pydantic.alias_generators import to_snake

from api.auth import Call, Caller
from api.gateway import Gateway
from api.idempotency import Once, once, once_everywhere, once_on_access
from api.services import services
from api.strangers import CallerOrRegistrant, CallerOrStranger, Public
from models.domain.agents import Latitude
from models.domain.errors import InvalidInput
from models.domain.principals import Callers, Role
from models.schemas.pagination import DEFAULT_LIMIT, MAX_LIMIT, MAX_OFFSET, PageRequest, Sort, read_cursor
from models.settings import Settings
from models.store.database import Database
from models.store.policies import PolicyBook

Reader = Annotated[Call, Depends(Caller(Callers(Role.OBSERVER, agents=True), Latitude.LOOK))]
"""Requirements section 3 "R": everyone of the workspace."""
Operator = Annotated[Call, Depends(Caller(Callers(Role.OPERATOR)))]
"""O, D."""
Admin = Annotated[Call, Depends(Caller(Callers(Role.ADMIN)))]
"""D."""
PlatformAdmin = Annotated[Call, Depends(Caller(Callers(Role.PLATFORM_ADMIN)))]
"""P."""
Human = Annotated[Call, Depends(Caller(Callers(Role.OBSERVER)))]
"""B, M, O, D."""
LivingAgent = Annotated[Call, Depends(Caller(Callers(agents=True), Latitude.LIVE))]
"""A, whatever holds it."""
AgentOrService = Annotated[Call, Depends(Caller(Callers(agents=True, services=True)))]
"""A, S."""
AgentOrAdmin = Annotated[Call, Depends(Caller(Callers(Role.ADMIN, agents=True)))]
"""A, D."""
Registrar = Annotated[Call | None, Depends(CallerOrStranger(Callers(Role.ADMIN, agents=True)))]
"""A, D, and None for whoever has no key."""
ReaderOrRegistrant = Annotated[Call, Depends(CallerOrRegistrant(Callers(Role.OBSERVER, agents=True), Latitude.LOOK))]
"""R, and who registered the agent in question."""
PUBLIC = Depends(Public())
"""For `dependencies=[PUBLIC]`: no key, so many requests an address."""
INSIDE = Depends(Public(is_inside=True))
"""No key, and no limit: for what only our own machines can reach."""
Anybody = Annotated[Call, Depends(Caller(Callers(Role.OBSERVER, agents=True, services=True)))]
"""Whoever has a key: for what one may do to one's own."""
Leaver = Annotated[Call, Depends(Caller(Callers(Role.OBSERVER, agents=True, services=True), Latitude.NOTHING))]
"""The same, whatever holds an agent."""
AgentOrOperator = Annotated[Call, Depends(Caller(Callers(Role.OPERATOR, agents=True)))]
"""A, O, D."""
Assignee = Annotated[Call, Depends(Caller(Callers(Role.OPERATOR, agents=True), Latitude.FINISH))]
"""The same, for what an agent was given before it was held."""
Asker = Annotated[Call, Depends(Caller(Callers(Role.OPERATOR, agents=True), Latitude.LOOK))]
"""The same, where SQL tells a held agent why it gets nothing."""
ServiceOrOperator = Annotated[Call, Depends(Caller(Callers(Role.OPERATOR, services=True)))]
"""S, O, D."""
AnyWriter = Annotated[Call, Depends(Caller(Callers(Role.MEMBER, agents=True, services=True), Latitude.FINISH))]
"""A, M, O, D, S."""
AnyActor = Annotated[Call, Depends(Caller(Callers(Role.OPERATOR, agents=True, services=True)))]
"""A, O, D, S."""
_REPORTERS = Callers(Role.ADMIN, agents=True, services=True)
Reporter = Annotated[Call, Depends(Caller(_REPORTERS))]
"""S, A; and D, whose key is the only one until more are made."""
Spender = Annotated[Call, Depends(Caller(_REPORTERS, Latitude.FINISH))]
"""The same, for what has begun."""
Settler = Annotated[Call, Depends(Caller(_REPORTERS, Latitude.REPORT))]
"""The same, for what is over."""


async def _settings(request: Request) -> Settings:
    return services(request).settings


async def _database(request: Request) -> Database:
    return services(request).db


async def _gateway(request: Request) -> Gateway:
    return services(request).gateway


async def _book(request: Request) -> PolicyBook:
    return services(request).book


AppSettings = Annotated[Settings, Depends(_settings)]
Db = Annotated[Database, Depends(_database)]
Workflows = Annotated[Gateway, Depends(_gateway)]
Policies = Annotated[PolicyBook, Depends(_book)]
OnlyOnce = Annotated[Once, Depends(once)]
"""For what changes something: `return await once.commit(lambda session: …)`, or `once.command(lambda key: …)`."""
OnAccess = Annotated[Once, Depends(once_on_access)]
"""The same, where keys end, or their owners may do something else afterwards."""
OnlyOnceEverywhere = Annotated[Once, Depends(once_everywhere)]
"""The same, where the change is no single workspace's."""


class Pagination:
    """A list's page, for `Annotated[PageRequest, Depends(Pagination("created_at", default="-created_at"))]`.

    `fields` may be sorted by; name only columns that are never null.
    """

    def __init__(self, *fields: str, default: str) -> None:
        self._fields, self._default = fields, default

    async def __call__(
        self,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
        offset: Annotated[int, Query(ge=0, le=MAX_OFFSET, description="For short lists; else use `cursor`.")] = 0,
        cursor: Annotated[str | None, Query(max_length=2000, description="`next_cursor` of the page before.")] = None,
        sort: Annotated[str | None, Query(max_length=100, description="A field; `-` before it: descending.")] = None,
    ) -> PageRequest:
        """Read the page's query parameters."""
        order = Sort.parse(sort or self._default)
        order = Sort(to_snake(order.field), order.descending)
        if order.field not in self._fields:
            raise InvalidInput("unknown_sort", f"cannot sort by {order.field!r}; known: {', '.join(self._fields)}")
        if cursor and offset:
            raise InvalidInput("cursor_and_offset", "give cursor or offset, not both")
        return PageRequest(limit, order, offset, read_cursor(cursor, order) if cursor else None)


Newest = Annotated[PageRequest, Depends(Pagination("created_at", default="-created_at"))]
"""The page of most lists: what was made last comes first."""
