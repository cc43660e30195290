"""Answers that no route of ours gives, as to an unknown path or method: counted all the same, with headers."""

from fastapi import Request, Response
from starlette.exceptions import HTTPException

from api import errors
from api.auth import credential_of
from api.routing import Route
from api.services import services
from api.strangers import Public
from models.domain.errors import RateLimited


async def answer(request: Request, error: Exception) -> Response:
    """Refuse as `errors` does, or for the number of requests."""
    assert isinstance(error, HTTPException)  # noqa: S101  # what it is installed for
    try:
        if getattr(request.state, "allowance", None) is None:
            _count(request)
    except RateLimited as refusal:
        return await errors.ours(request, refusal)
    return await errors.http(request, error)


def _count(request: Request) -> None:
    """Count it for a key that was good a moment ago, which costs no look-up, else for its address.

    That of a path which has other methods is counted as theirs: what is inside, not at all.
    """
    shared, route = services(request), request.scope.get("route")
    if isinstance(route, Route) and isinstance(route.declaration, Public):
        return route.declaration.count(request)
    if known := shared.keys.lately(credential_of(request)):
        return shared.limiter.count(request, known)
    return shared.limiter.count_address(request)
