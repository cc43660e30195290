"""Every failure as the one envelope of API-02."""

from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from psycopg.errors import DeadlockDetected, SerializationFailure, TransactionTimeout
from pydantic_core import to_json
from sqlalchemy.exc import DataError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import Match

from models.domain.errors import InvalidInput, MissionControlError, RateLimited, TooSlow, Unavailable
from models.domain.wording import plain, shortened
from models.observability import without_secrets

log = structlog.get_logger()

MAX_PATH = 300
"""Characters of a field's path, which may hold keys of any length that somebody sent."""

MAX_FIELDS = 50
"""Of a body that are told to be wrong; more are counted."""
RETRY_AFTER = {"Retry-After": "1"}
_HTTP_CODES = {404: "route_not_found", 405: "method_not_allowed"}
_HTTP_MESSAGES = {
    404: "there is no such route; /api-docs lists all",
    405: "this route does not take that method; the Allow header lists those it does",
}


def install(app: FastAPI) -> None:
    """Answer every failure that a route or a dependency raises; for the router's there is `api.unrouted`."""
    app.add_exception_handler(MissionControlError, ours)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(DataError, _data)
    for away in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(away, _database_away)
    app.add_exception_handler(InternalError, _took_too_long)


def failure(request_id: str, status: int, code: str, message: str, details: dict[str, Any] | None = None) -> Response:
    """Make the envelope of a failure."""
    error: dict[str, Any] = {"code": code, "message": without_secrets(message), "requestId": request_id}
    if details:
        error["details"] = details
    body = to_json({"success": False, "error": error}, inf_nan_mode="null", fallback=str)
    return Response(body, status, media_type="application/json")


def internal_error(request_id: str) -> Response:
    """What anybody sees of a bug of ours: that it is in the log."""
    message = "something failed inside Mission Control; its log tells more under this requestId"
    return failure(request_id, 500, "internal_error", message)


async def ours(request: Request, error: Exception) -> Response:
    """Answer a failure that we named."""
    assert isinstance(error, MissionControlError)  # noqa: S101  # what it is installed for
    if error.status >= 500 and not isinstance(error, Unavailable):
        log.error("request_failed", code=error.code, exc_info=error)
        return internal_error(request.state.request_id)
    response = failure(request.state.request_id, error.status, error.code, error.message, error.details)
    if isinstance(error, Unavailable):
        response.headers.update(RETRY_AFTER)
    if isinstance(error, RateLimited):
        response.headers["Retry-After"] = str(error.details["wait_seconds"])
    if isinstance(error, TooSlow):
        response.headers["Connection"] = "close"  # what may come of its body yet is no request
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


async def _validation(request: Request, error: Exception) -> Response:
    """Name the fields by path, and never echo what was sent: it may be a secret."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  # what it is installed for
    all_ = error.errors()
    found = [item for item in all_ if not _is_of_parts(item, all_)]
    fields = [
        {"path": without_secrets(_path(item["loc"])), "message": plain(item["msg"])} for item in found[:MAX_FIELDS]
    ]
    told = "; ".join(f"{field['path']}: {field['message']}" for field in fields[:3])
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    return await ours(request, InvalidInput("invalid_input", told + more, fields=fields))


def _is_of_parts(item: Any, others: Sequence[Any]) -> bool:
    """Whether an array counts as too short only because its items are wrong, each of which is told by itself."""
    place = item["loc"]
    below = (other["loc"] for other in others if len(other["loc"]) > len(place))
    return item["type"] == "too_short" and any(path[: len(place)] == place for path in below)


def _path(location: Sequence[str | int]) -> str:
    """Write `("body", "symptoms", 0, "metric_id")` as `body.symptoms[0].metric_id`."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return shortened(path.removeprefix("."), MAX_PATH)


async def http(request: Request, error: HTTPException) -> Response:
    """Answer what the router refuses."""
    code = _HTTP_CODES.get(error.status_code, "http_error")
    message = _HTTP_MESSAGES.get(error.status_code, error.detail)
    response = failure(request.state.request_id, error.status_code, code, message)
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["Allow"] = ", ".join(_methods_here(request))
    return response


def _methods_here(request: Request) -> list[str]:
    """The methods that the path takes; the router names only those of the first route it meets there."""
    routes = request.app.router.routes
    return [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


async def _data(request: Request, error: Exception) -> Response:
    """Postgres says a value fits no column: the caller's, for all of ours do."""
    log.info("value_refused_by_database", exc_info=error)
    return await ours(request, InvalidInput("invalid_input", "a value is too large or of a form we cannot keep"))


_GAVE_WAY = (DeadlockDetected, SerializationFailure)
"""What Postgres says to one of several, so that the others can go on."""


async def _took_too_long(request: Request, error: Exception) -> Response:
    if isinstance(error, InternalError) and isinstance(error.orig, TransactionTimeout):
        return await _database_away(request, error)
    raise error


async def _database_away(request: Request, error: Exception) -> Response:
    if isinstance(getattr(error, "orig", None), _GAVE_WAY):
        log.warning("request_gave_way", exc_info=error)
        told = "others changed the same at the same moment, and this gave way to them: nothing was changed; try again"
        return await ours(request, Unavailable("gave_way", told))
    log.warning("database_unavailable", error=type(error).__name__)
    return await ours(request, Unavailable("database_unavailable", "the database does not answer; try again soon"))
