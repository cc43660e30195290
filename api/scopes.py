"""What the scopes of a key open: one that opens nothing to its owner is a mistake, and told when the key is made."""

from collections.abc import Collection

from fastapi import Request

from api.auth import SAFE
from api.routing import Route
from models.domain.errors import InvalidInput
from models.domain.principals import Principal, within


def require_use(request: Request, owner: Principal, scopes: Collection[str]) -> None:
    """Refuse scopes that open none of the API's routes to the owner of the key.

    Raises:
        InvalidInput: `scope_opens_nothing`.
    """
    served = [route for route in request.app.state.routes if route.caller and route.caller.callers.admit(owner)]
    for scope in scopes:
        if not any(_opens(scope, route) for route in served):
            whom = owner.role.value if owner.role else owner.kind.value
            told = f"the scope `{scope}` opens nothing to a key of {whom}: leave it out, or give another"
            raise InvalidInput("scope_opens_nothing", told)


def _opens(scope: str, route: Route) -> bool:
    return within((scope,), str(route.tags[0]), reads=not SAFE.isdisjoint(route.methods or ()))
