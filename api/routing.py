"""The route class of every route: it knows the caller before the body, and refuses what the route does not declare."""

from collections.abc import Callable, Coroutine
from dataclasses import replace
from email.message import Message
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from structlog.contextvars import bind_contextvars

from api.answers import bounded
from api.auth import Call, Caller, changes
from api.bodies import UNCOUNTED, announced
from api.services import services
from api.strangers import Public
from api.wire import parse_json, require_few_values, require_text, snake_query
from models.domain.errors import InvalidInput
from models.domain.money import ROUNDED
from models.schemas.envelope import VARIANT, Bounds, Failure

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
STRANGERS_BODY_BYTES = UNCOUNTED
"""The longest body of a request without a key; an agent's registration has a third of it."""


class Route(APIRoute):
    """Order of refusals: 401 and 403, then the query, then the body, then what FastAPI validates."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.declaration, Public):
            self.openapi_extra = {"security": []}

    @property
    def declaration(self) -> Caller | Public:
        """The route's declaration of who may call it; one without cannot be made."""
        for dependency in self.dependant.dependencies:
            if isinstance(dependency.call, Caller | Public):
                return dependency.call
        raise TypeError(f"{self.methods} {self.path} does not declare who may call it: see api.deps")

    @property
    def caller(self) -> Caller | None:
        """Who may call, where a key is asked for."""
        return self.declaration if isinstance(self.declaration, Caller) else None

    @property
    def query_names(self) -> frozenset[str]:
        """The query parameters that the route and its dependencies declare."""
        fields = get_flat_params(self.dependant)
        return frozenset(field.alias for field in fields if isinstance(field.field_info, params.Query))

    def get_route_handler(self) -> Handler:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()
        declared, known = self.declaration, self.query_names
        kind = self.body_field.field_info.annotation if self.body_field else None
        body = TypeAdapter[Any](kind or Any) if self.body_field else None
        bounds = getattr(kind, "bounds", Bounds())

        async def guarded(request: Request) -> Response:
            request = WireRequest(
                {**request.scope, "query_string": snake_query(request.scope["query_string"])}, request.receive
            )
            if isinstance(declared, Caller):
                noun = str(self.tags[0])
                request.state.call = await declared.identify(request, noun)
                services(request).unsent.require_room(_key(request))
                request.state.admits = partial(declared.admits, noun=noun)
                request.state.look_again = partial(declared.look_again, noun=noun)
            else:
                declared.count(request)
            require_known_query(request, known)
            bind_contextvars(**request.path_params)
            if body is None:
                return _bounded(await handle(request), request)
            most = replace(bounds, bytes=_longest(request, bounds))
            size = announced(request, most.bytes)
            async with services(request).rooms.take(request, _key(request), size, most.bytes) as sent:
                request.load(sent, most, body)
                return _bounded(await handle(request), request)

        return guarded


class WireRequest(Request):
    """A request whose body was checked before anything looks at it."""

    def load(self, sent: bytes, most: Bounds, body: TypeAdapter[Any]) -> None:
        """Parse and validate the body; FastAPI then finds the model made, and `sent` is the plain JSON.

        FastAPI's own validation is for Python's values, and takes "5" for a number and "yes" for a bool.

        Raises:
            InvalidInput: it holds more values than `most`, or is not JSON that we can keep.
            RequestValidationError: it is not what the route takes.
        """
        self._body = sent
        if self._body:
            self._require_json()
            require_few_values(self._body, most.values)
            rounded: set[float] = set()
            self.sent = parse_json(self._body, rounded)
            self._json = _strict(self._body, body, {ROUNDED: rounded})

    def _require_json(self) -> None:
        header = Message()
        header["content-type"] = self.headers.get("content-type", "")
        if header.get_content_subtype() != "json" and not header.get_content_subtype().endswith("+json"):
            raise InvalidInput("not_json", "send the body with `Content-Type: application/json`")


def _strict(body: bytes, model: TypeAdapter[Any], context: dict[str, Any]) -> Any:
    """Validate by JSON's types: a number is no text and no bool, an integer is a number, a time is a text."""
    try:
        return model.validate_json(body, strict=True, context=context)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
    if problems[0]["type"] == "json_invalid":  # the two parsers differ
        raise InvalidInput("malformed_json", "the body is not JSON in UTF-8, or nests deeper than 200 levels")
    raise RequestValidationError([{**problem, "loc": ("body", *_fields(problem["loc"]))} for problem in problems])


def _fields(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    return tuple(part for part in location if not str(part).startswith(VARIANT))


def require_known_query(request: Request, known: frozenset[str]) -> None:
    """Refuse parameters nobody declared: a filter with a typo would answer with everything."""
    for name, value in request.query_params.multi_items():
        if name not in known:
            options = ", ".join(sorted(known)) or "none"
            raise InvalidInput("unknown_parameter", f"unknown query parameter {name!r}; this route knows: {options}")
        require_text(value, f"query parameter {name!r}")
        if len(request.query_params.getlist(name)) > 1:
            raise InvalidInput("repeated_parameter", f"query parameter {name!r} is given twice")
    for name, value in request.path_params.items():
        require_text(str(value), f"the {name} in the path")


def router(tag: str) -> APIRouter:
    """Make the router of a noun; every route module starts with one."""
    return APIRouter(tags=[tag], route_class=Route, responses=_FAILURES)


def unwrapped(media_type: str) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a route with `response_class=Response` whose answer has no envelope (C-06)."""
    return {200: {"content": {media_type: {}}}}


_FAILURES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Failure, "description": "Refused; the message says what to do next"},
    "5XX": {"model": Failure, "description": "Our fault, or a part we need is away; try again"},
}


def _bounded(answer: Response, request: Request) -> Response:
    """Bound what a key's readers leave; strangers and our own machines get what is the same for all."""
    if getattr(request.state, "call", None) is None:
        return answer
    return bounded(answer, _key(request), services(request).unsent, may_refuse=not changes(request))


def _key(request: Request) -> str:
    """Name whose body it is: a key's, with those that it was rotated from."""
    call: Call | None = getattr(request.state, "call", None)
    return call.principal.lineage if call else ""


def _longest(request: Request, bounds: Bounds) -> int:
    """Bound a body's bytes: strangers have little to say."""
    most = min(services(request).settings.max_body_bytes, bounds.bytes)
    return most if getattr(request.state, "call", None) else min(most, STRANGERS_BODY_BYTES)
