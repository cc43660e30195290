"""Who calls: keys in `Authorization: Bearer` or `X-API-Key`, or a browser's session cookie (C-08)."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Request

from api.services import services
from models.domain.agents import Latitude, require_latitude
from models.domain.errors import Conflict, NotPermitted, Unauthenticated
from models.domain.principals import Callers, Principal, within
from models.domain.refusals import no_workspace
from models.store import workspaces
from models.store.events import Actor

COOKIE = "mission_control_session"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods of requests that change nothing."""
OWN_SESSION = "auth"
"""The noun of what a key may always do, whatever it is narrowed to: end its session."""


@dataclass(frozen=True)
class Call:
    """Who asks for what is happening now, in which request."""

    principal: Principal
    request_id: str
    agent_id: str | None = None
    """The registration whose token is the key; only a route that says so takes one."""

    @property
    def workspace_id(self) -> str:
        """The one workspace this call may see."""
        return self.principal.workspace_id

    @property
    def actor(self) -> Actor:
        """How events name the caller."""
        return Actor(self.principal.known_as, self.request_id)

    def require_change(self, noun: str) -> None:
        """Hold a GET that changes something to the scopes that other methods take; raises `NotPermitted`."""
        _require_scope(self.principal, noun, reads=False)


class Caller:
    """A route's declaration of who may call it: `Annotated[Call, Depends(Caller(Callers(…)))]`.

    It `goes` as far as it says: an agent that is held may not go so far everywhere.
    `api.routing.Route` asks before it reads the body, so that strangers cannot make us hold one.
    """

    def __init__(self, callers: Callers, goes: Latitude = Latitude.BEGIN) -> None:
        self.callers, self.goes = callers, goes

    async def __call__(self, request: Request) -> Call | None:
        """Hand out what `identify` found."""
        call: Call | None = request.state.call
        return call

    async def identify(self, request: Request, noun: str) -> Call | None:
        """Find the caller of a route that is about a noun, and count the request.

        Raises:
            Unauthenticated: no key, or none that is good.
            RateLimited: too many requests of this key, or from this address without a good one.
            NotPermitted: known, but not one whom this route serves, or with a key that is narrowed to other things.
            Conflict: an agent that is held and may not go so far.
            NotFound: the path or `X-Workspace` names a workspace that the key does not open.
        """
        shared = services(request)
        with shared.limiter.guess(request) as may_ask:
            principal = await shared.keys.open(secret_of(request), at_once=may_ask)
        shared.limiter.count(request, principal)
        return Call(await self._admit(request, principal, noun), request.state.request_id)

    async def admits(self, request: Request, noun: str) -> Principal:
        """Find the caller as it is now; raises as `identify` does where the route would refuse it now."""
        return await self._admit(request, await services(request).keys.open(secret_of(request)), noun)

    async def look_again(self, request: Request, noun: str) -> None:
        """Ask once more, as a change begins and before it is kept: the caller may have waited.

        Raises:
            Conflict: `role_changed`, so that it would be done in a role that the caller has lost; and as `identify`.
        """
        asked: Principal = request.state.call.principal
        found = await self.admits(request, noun)
        if (found.role, found.scopes) != (asked.role, asked.scopes):
            told = f"{asked.name!r} was given another role while this waited; nothing was changed: ask again"
            raise Conflict("role_changed", told)

    async def _admit(self, request: Request, principal: Principal, noun: str) -> Principal:
        _require_scope(principal, noun, reads=request.method in SAFE)
        if not self.callers.admit(principal):
            raise NotPermitted("not_permitted", f"{principal.name!r} may not do this: it takes {self.callers}")
        require_latitude(principal.name, principal.status, self.goes)
        wanted = request.path_params.get("workspace_id") or request.headers.get("x-workspace")
        if wanted is not None and wanted != principal.workspace_id:
            return await _entering(request, principal, wanted)
        return principal


def _require_scope(principal: Principal, noun: str, *, reads: bool) -> None:
    if noun != OWN_SESSION and not within(principal.scopes, noun, reads=reads):
        raise NotPermitted("out_of_scope", f"this key is only for: {', '.join(principal.scopes)}")


async def _entering(request: Request, principal: Principal, wanted: str) -> Principal:
    """Let a platform admin into another workspace; to everybody else it is not there."""
    if principal.opens(wanted):
        await workspaces.require_known(services(request).db, wanted)
        return principal.visiting(wanted)
    raise no_workspace(wanted)


def bearer_of(request: Request) -> str:
    """Find what a request carries in its headers; empty where that is nothing."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.headers.get("x-api-key", "")


def credential_of(request: Request) -> str:
    """Find the key or cookie that a request carries, whatever it is for; empty where there is none."""
    return bearer_of(request) or request.cookies.get(COOKIE, "")


def secret_of(request: Request) -> str:
    """Find the key or cookie that a request carries; raises `Unauthenticated` where there is none."""
    if key := bearer_of(request):
        return key
    if cookie := request.cookies.get(COOKIE):
        _require_same_origin(request)
        return cookie
    raise Unauthenticated("api_key_required", "send an API key as `Authorization: Bearer …` or `X-API-Key: …`")


def _require_same_origin(request: Request) -> None:
    """Browsers send cookies to every port of a host: a page of another port must not act with ours."""
    if request.method not in SAFE and request.headers.get("origin") and not _is_from_own_page(request):
        raise _cross_origin()


def require_own_page(request: Request) -> None:
    """Hold a GET that changes something to our own pages where a cookie opens it, and note that it changes something.

    Of a picture's address, say, browsers tell no origin, but to whom it belongs.

    Raises:
        NotPermitted: `cross_origin`.
    """
    request.state.is_change = True
    is_own = request.headers.get("sec-fetch-site") == "same-origin" or _is_from_own_page(request)
    if not (bearer_of(request) or is_own):
        raise _cross_origin()


def changes(request: Request) -> bool:
    """Whether a request may have changed something."""
    return request.method not in SAFE or getattr(request.state, "is_change", False)


def _is_from_own_page(request: Request) -> bool:
    origin = request.headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc == request.headers.get("host")


def _cross_origin() -> NotPermitted:
    told = "a session cookie acts only from our own pages; other programs send a key"
    return NotPermitted("cross_origin", told)
