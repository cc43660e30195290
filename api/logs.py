"""A request's id, log line and numbers; and the last net under every failure."""

import re
import time
from uuid import uuid4

import structlog
from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

from api.errors import internal_error
from models.domain.rates import SECOND, Allowance
from models.observability import without_secrets

log = structlog.get_logger()

_SOUND_ID = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
"""An id goes into headers, logs and events; others are replaced, not refused."""
_QUIET = ("/healthz", "/readyz", "/metrics")

REQUESTS = Counter("mission_control_requests", "Requests answered.", ["method", "route", "status"])
SECONDS = Histogram("mission_control_request_seconds", "Time until an answer began.", ["method", "route"])


class RequestScope:
    """Middleware around everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give the request its id, and note how it was answered."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        exchange = _Exchange(scope, send)
        clear_contextvars()
        bind_contextvars(request_id=exchange.request_id)
        try:
            await self._app(scope, receive, exchange.send)
        except Exception as error:
            log.exception("request_failed", error=type(error).__name__)
            if exchange.status:
                raise  # the answer has begun: only a broken connection can tell the client
            await internal_error(exchange.request_id)(scope, receive, exchange.send)
        finally:
            exchange.note()


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, send: Send) -> None:
        asked = Headers(scope=scope).get("x-request-id", "")
        is_sound = _SOUND_ID.fullmatch(asked) and without_secrets(asked) == asked
        self.request_id = asked if is_sound else f"req_{uuid4().hex}"
        self.status = 0
        self._scope, self._send = scope, send
        self._began = self._answered = time.perf_counter()
        scope.setdefault("state", {})["request_id"] = self.request_id

    async def send(self, message: Message) -> None:
        """Pass a message on; the first one gets the id's header."""
        if message["type"] == "http.response.start":
            self.status, self._answered = message["status"], time.perf_counter()
            MutableHeaders(scope=message)["X-Request-Id"] = self.request_id
            if allowance := self._scope["state"].get("allowance"):
                message["headers"] += _told(allowance)
        await self._send(message)

    def note(self) -> None:
        """Write the log line and the numbers. Routes by their pattern: paths would be endless."""
        method = self._scope["method"] if self._scope["method"] in _METHODS else "other"
        route = getattr(self._scope.get("route"), "path", "unmatched")
        REQUESTS.labels(method, route, str(self.status)).inc()
        SECONDS.labels(method, route).observe(self._answered - self._began)
        say = log.debug if self._scope["path"] in _QUIET else log.info
        took = round((self._answered - self._began) * 1000, 1)
        say("request", method=method, path=self._scope["path"], route=route, status=self.status, milliseconds=took)


def _told(allowance: Allowance) -> list[tuple[bytes, bytes]]:
    """Say in headers how many requests are left, and in how many seconds all will be there again (V-41)."""
    return [
        (b"x-ratelimit-limit", b"%d" % allowance.limit),
        (b"x-ratelimit-remaining", b"%d" % allowance.remaining),
        (b"x-ratelimit-reset", b"%d" % -(-allowance.reset // SECOND)),
    ]


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
