"""The product's own client of its HTTP API."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from cli.errors import Refused, Unreachable
from models.domain.errors import Misconfigured
from models.settings import Settings
from worker.dev.state import running_up

Json = dict[str, Any]
PREFIX = "/api/v1"
PAGE = 200
"""Rows asked for at once when all are wanted."""
_KEY = re.compile(r"[A-Za-z0-9_-]+")
SILENCE_SECONDS = 45.0
"""A stream that does not even send a heartbeat for so long is dead: connect again."""


class Rows(list[Json]):
    """The rows of a list that were asked for, and whether it has more."""

    has_more = False


class Api:
    """One connection to version 1 of the API; paths are below that. Every call raises `Refused` or `Unreachable`."""

    def __init__(self, url: str, key: str | None, *, timeout: float = 30) -> None:
        self.url = url.rstrip("/")
        self._http = httpx2.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=timeout,
            # A proxy that the environment names cannot reach our own loopback.
            trust_env=httpx2.URL(self.url).host not in ("127.0.0.1", "localhost", "::1"),
        )

    def __enter__(self) -> "Api":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **params: object) -> Any:
        """The `data` of an answer; parameters that are None are left out."""
        return self._call("GET", path, params=_given(params))["data"]

    def post(self, path: str, body: Json | None = None, *, key: str | None = None) -> Any:
        """Ask for a change and return its `data`; `key` makes a repeated request harmless."""
        headers = {"Idempotency-Key": key} if key else {}
        return self._call("POST", path, json=body or {}, headers=headers)["data"]

    def put(self, path: str, body: Json) -> Any:
        """Say what something is to be, and return the `data` of the answer."""
        return self._call("PUT", path, json=body)["data"]

    def patch(self, path: str, body: Json) -> Any:
        """Change a part of something, and return the `data` of the answer."""
        return self._call("PATCH", path, json=body)["data"]

    def delete(self, path: str) -> Any:
        """Ask for an end, and return the `data` of the answer."""
        return self._call("DELETE", path)["data"]

    def content(self, link: str) -> bytes:
        """Something that is no envelope, such as a diff or a stored report; `link` is one the API gave."""
        return self._send("GET", link).content

    def rows(self, path: str, limit: int | None, **params: object) -> "Rows":
        """A list's rows, page after page, until `limit` or, when None, the end."""
        rows, cursor = Rows(), None
        while limit is None or len(rows) < limit:
            size = PAGE if limit is None else min(PAGE, limit - len(rows))
            page = self.get(path, limit=size, cursor=cursor, **params)
            rows += page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                break
        rows.has_more = bool(cursor)
        return rows

    @contextmanager
    def stream(self, path: str, **params: object) -> Iterator[Iterator[bytes]]:
        """An answer that may still be growing, as it comes."""
        with self._streaming(path, {}, params, read=None) as response:
            yield response.iter_bytes()

    @contextmanager
    def events(self, last_id: str = "", **filters: object) -> Iterator[Iterator[httpx2.ServerSentEvent]]:
        """Open the event stream, after `last_id` or from now on."""
        headers = {"Last-Event-ID": last_id} if last_id else {}
        with self._streaming("/events", headers, filters, read=SILENCE_SECONDS) as response:
            yield iter(httpx2.EventSource(response))

    @contextmanager
    def _streaming(
        self, path: str, headers: dict[str, str], params: Json, *, read: float | None
    ) -> Iterator[httpx2.Response]:
        timeout = httpx2.Timeout(30, read=read)
        with (
            self._reaching(),
            self._http.stream("GET", _place(path), params=_given(params), headers=headers, timeout=timeout) as response,
        ):
            if not response.is_success:
                response.read()
                raise _refusal(response)
            yield response

    def _call(self, method: str, path: str, **options: Any) -> Json:
        response = self._send(method, path, **options)
        try:
            answer = response.json()
            return {"data": answer["data"]}
        except (ValueError, KeyError, TypeError):
            raise _stranger(response) from None

    def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        with self._reaching():
            response = self._http.request(method, _place(path), **options)
        if not response.is_success:
            raise _refusal(response)
        return response

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx2.ConnectError as error:
            raise Unreachable(
                f"no Mission Control answers at {self.url}: start it with `mission-control up`, "
                "or say where it is with --url or MC_API_URL"
            ) from error
        except httpx2.TransportError as error:
            # What our own side cannot send is quoted in full, and the key is a part of every request.
            quotes_us = isinstance(error, httpx2.LocalProtocolError)
            why = type(error).__name__ if quotes_us else str(error) or type(error).__name__
            raise Unreachable(f"the connection to {self.url} failed ({why}); try again") from None


def _place(path: str) -> str:
    """Our own paths are below the API's version; the API's links begin with it."""
    return path if path.startswith(PREFIX) else PREFIX + path


def _given(params: dict[str, object]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _refusal(response: httpx2.Response) -> Exception:
    """Read the error envelope; what has none does not come from us."""
    try:
        error = response.json()["error"]
        return Refused(error["code"], error["message"], error["requestId"])
    except (ValueError, KeyError, TypeError):
        return _stranger(response)


def _stranger(response: httpx2.Response) -> Unreachable:
    place = f"{response.url.scheme}://{response.url.netloc.decode()}"
    return Unreachable(
        f"what answers at {place} (HTTP {response.status_code}) is not Mission Control, or a proxy before it; "
        "check --url or MC_API_URL"
    )


def connect(settings: Settings, url: str | None, key: str | None) -> Api:
    """Reach the API with what the caller gave, else the settings, else the key file of the first start.

    Raises:
        Unreachable: there is no key to be found; the message says where keys come from.
        Misconfigured: what should be a URL or a key is none.
    """
    place = url or _address(settings)
    if not _is_url(place):
        example = "http://127.0.0.1:8000"
        raise Misconfigured("wrong_url", f"{place!r} is no URL such as {example}: mend --url or MC_API_URL")
    return Api(place, _key(key, "--api-key") if key else _known_key(settings))


def _is_url(place: str) -> bool:
    try:
        url = httpx2.URL(place)
    except (httpx2.InvalidURL, UnicodeError):
        return False
    return url.scheme in ("http", "https") and bool(url.host) and (url.port or 1) < 2**16


def _address(settings: Settings) -> str:
    """Where the settings say, else where the `up` of this data folder says, for it may have found port 8000 taken."""
    state = None if "api_url" in settings.model_fields_set else running_up(settings.data_dir)
    return state.addresses.api_url or settings.api_url if state else settings.api_url


def _key(given: str, source: str) -> str:
    """Take a key without the white space around it; what cannot be one is not shown, for it may hold one."""
    if not _KEY.fullmatch(key := given.strip()):
        told = f"what {source} holds is no API key: give one key alone, of letters, digits, _ and - only"
        raise Misconfigured("wrong_key", told)
    return key


def _known_key(settings: Settings) -> str:
    if settings.api_key:
        return _key(settings.api_key.get_secret_value(), "MC_API_KEY")
    try:
        return _key(settings.key_file.read_text(encoding="utf-8", errors="replace"), f"the file {settings.key_file}")
    except OSError as error:
        raise Unreachable(
            f"no API key: set MC_API_KEY, or run as the user who can read {settings.key_file} "
            f"(the first start of Mission Control writes it; {error.strerror})"
        ) from error
