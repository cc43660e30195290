"""Declarations of the routes that also, or only, serve who has no key."""

from fastapi import Request

from api.auth import Call, Caller, bearer_of, secret_of
from api.services import services
from models.domain.agents import require_unspent
from models.domain.errors import Unauthenticated
from models.domain.keys import REGISTRATION_PREFIX
from models.domain.principals import Kind, Principal
from models.store import keys, registrations


class CallerOrStranger(Caller):
    """Declares a route that serves who has a key, as `Caller` does, and who has none: then `call` is None."""

    async def identify(self, request: Request, noun: str) -> Call | None:
        """Find the caller, if a key was sent."""
        try:
            secret_of(request)
        except Unauthenticated:
            services(request).limiter.count_address(request)
            return None
        return await super().identify(request, noun)

    async def look_again(self, request: Request, noun: str) -> None:
        """Ask once more who sent a key."""
        if request.state.call is not None:
            await super().look_again(request, noun)


class CallerOrRegistrant(Caller):
    """Declares a route that serves who has a key, as `Caller` does, and a registration by its token (V-47)."""

    async def identify(self, request: Request, noun: str) -> Call | None:
        """Find the caller, or the registration."""
        secret = bearer_of(request)
        if not secret.startswith(REGISTRATION_PREFIX):
            return await super().identify(request, noun)
        services(request).limiter.count_address(request)
        async with services(request).db.system() as session:
            agent = await registrations.registrant(session, keys.digest(secret))
        if agent is None:
            raise Unauthenticated("invalid_registration_token", "this registration token is unknown; register again")
        require_unspent(agent.name, agent.registration, agent.key_fetched_at)
        principal = Principal(agent.workspace_id, agent.name, Kind.AGENT, None, key_id="")
        return Call(principal, request.state.request_id, agent.agent_id)


class Public:
    """A route's declaration that it takes no key. `is_inside`: only our own machines reach it, and are not counted."""

    def __init__(self, *, is_inside: bool = False) -> None:
        self.is_inside = is_inside

    async def __call__(self) -> None:
        """There is nobody to hand out."""

    def count(self, request: Request) -> None:
        """Count the request of whoever it is."""
        if not self.is_inside:
            services(request).limiter.count_address(request)
