"""Every refusal has the one envelope, says what is wrong, and tells nothing of our insides."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Literal

import httpx2
import pytest
from fastapi import Depends, FastAPI
from psycopg.errors import DeadlockDetected, SerializationFailure, TransactionTimeout
from pydantic import AfterValidator, AwareDatetime, Field
from sqlalchemy.exc import InternalError, OperationalError

from api import auth
from api.app import create_app
from api.registry import VERSIONS
from api.routing import STRANGERS_BODY_BYTES, router
from models.domain.errors import MissionControlError, Unavailable
from models.domain.events import EventType
from models.domain.principals import Callers, Role
from models.domain.states import Severity
from models.schemas.envelope import Body, Success
from models.settings import Settings
from tests.fixtures.api import running
from tests.fixtures.logs import Lines

routes = router("trial")
routes.dependencies.append(Depends(auth.Caller(Callers(Role.OBSERVER))))


def _yes(value: str) -> str:
    if value != "yes":
        raise ValueError("must be yes")
    return value


class Inner(Body):
    """A part of a body."""

    metric_id: str
    rolling_window: int = Field(default=1, ge=1)


class Trial(Body):
    """A body with all that a body may have."""

    subsystem_id: str
    inner_parts: Annotated[tuple[Inner, ...], Field(min_length=1)] = ()
    word: Annotated[str, AfterValidator(_yes)] = "yes"
    free_form: dict[str, Any] = Field(default_factory=dict)
    share: float = 0
    is_set: bool = False
    severity: Severity = Severity.LOW
    kind: Literal[EventType.SUBSYSTEM_ERROR] | None = None
    at: AwareDatetime | None = None


@routes.post("/trial")
async def post_trial(body: Trial) -> Success[Trial]:
    """Say what came."""
    return Success(data=body)


@routes.get("/trial/{trial_id}")
async def get_trial(trial_id: str, sub_system: str | None = None) -> Success[str]:
    """Say what was asked for."""
    return Success(data=f"{trial_id} {sub_system}")


@routes.get("/fails")
async def get_fails(how: str) -> Success[str]:
    """Fail."""
    raise {
        "bug": RuntimeError("the password is hunter2"),
        "ours": MissionControlError("broken_record", "the password is hunter2"),
        "away": Unavailable("temporal_unavailable", "try again"),
        "ring": OperationalError("UPDATE", {}, DeadlockDetected("hunter2")),
        "order": OperationalError("UPDATE", {}, SerializationFailure("hunter2")),
        "slow": InternalError("UPDATE", {}, TransactionTimeout("hunter2")),
        "odd": InternalError("UPDATE", {}, RuntimeError("hunter2")),
    }[how]


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    """The application with the routes of this module beside its own."""
    application = create_app(settings, {"v1": (routes, *VERSIONS["v1"])})
    async with running(application):
        yield application


def error(answer: httpx2.Response, status: int) -> dict[str, Any]:
    """The error of an answer, whose envelope must be right."""
    assert answer.status_code == status, answer.text
    envelope = answer.json()
    assert set(envelope) == {"success", "error"}
    assert envelope["success"] is False
    assert set(envelope["error"]) - {"details"} == {"code", "message", "requestId"}
    assert envelope["error"]["requestId"] == answer.headers["x-request-id"]
    found: dict[str, Any] = envelope["error"]
    return found


class TestEnvelope:
    async def test_unknown_route(self, api: httpx2.AsyncClient) -> None:
        assert error(await api.get("/api/v1/nothing"), 404)["code"] == "route_not_found"

    async def test_wrong_method(self, api: httpx2.AsyncClient) -> None:
        answer = await api.delete("/api/v1/events")
        assert error(answer, 405)["code"] == "method_not_allowed"
        assert answer.headers["allow"] == "GET, POST"

    async def test_no_key(self, app: FastAPI) -> None:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as stranger:
            assert error(await stranger.post("/api/v1/events"), 401)["code"] == "api_key_required"

    async def test_a_transaction_that_took_too_long(self, api: httpx2.AsyncClient) -> None:
        answer = await api.get("/api/v1/fails?how=slow")
        assert (error(answer, 503)["code"], "hunter2" in answer.text) == ("database_unavailable", False)

    @pytest.mark.parametrize("how", ["ring", "order"])
    async def test_what_gave_way_to_others(self, api: httpx2.AsyncClient, how: str) -> None:
        answer = await api.get(f"/api/v1/fails?how={how}")
        assert (error(answer, 503)["code"], answer.headers["retry-after"]) == ("gave_way", "1")
        assert "others changed the same" in answer.text
        assert "hunter2" not in answer.text

    @pytest.mark.parametrize("how", ["bug", "ours", "odd"])
    async def test_a_bug_tells_nothing(self, api: httpx2.AsyncClient, how: str, logged: Callable[[], Lines]) -> None:
        lines = logged()
        answer = await api.get(f"/api/v1/fails?how={how}", headers={"X-Request-Id": "find-me"})
        assert "hunter2" not in answer.text
        assert error(answer, 500)["code"] == "internal_error"
        assert next(line for line in lines() if line["event"] == "request_failed")["request_id"] == "find-me"

    async def test_away(self, api: httpx2.AsyncClient) -> None:
        answer = await api.get("/api/v1/fails?how=away")
        assert error(answer, 503)["code"] == "temporal_unavailable"
        assert answer.headers["retry-after"] == "1"


class TestRequestId:
    async def test_ours_where_none_came(self, api: httpx2.AsyncClient) -> None:
        ids = {(await api.get("/healthz")).headers["x-request-id"] for _ in range(3)}
        assert len(ids) == 3

    @pytest.mark.parametrize("asked", ["a b", "x" * 200, 'a"b', ""])
    async def test_unsound_ones_are_replaced(self, api: httpx2.AsyncClient, asked: str) -> None:
        given = (await api.get("/healthz", headers={"X-Request-Id": asked})).headers["x-request-id"]
        assert given.startswith("req_")

    async def test_it_is_in_the_log(self, api: httpx2.AsyncClient, logged: Callable[[], Lines]) -> None:
        lines = logged()
        await api.get("/api/v1/trial/mission_1", headers={"X-Request-Id": "look/here:1"})
        line = lines()[-1]
        assert (line["request_id"], line["status"], line["trial_id"]) == ("look/here:1", 200, "mission_1")


class TestBody:
    async def test_either_case(self, api: httpx2.AsyncClient) -> None:
        sent = {"subsystemId": "s", "innerParts": [{"metricId": "m", "rolling_window": 2}], "free_form": {"someKey": 1}}
        answer = await api.post("/api/v1/trial", json=sent)
        found = answer.json()["data"]
        assert found["subsystem_id"] == "s"
        assert found["inner_parts"] == [{"metric_id": "m", "rolling_window": 2}]
        assert found["free_form"] == {"someKey": 1}

    @pytest.mark.parametrize(
        ("body", "path"),
        [
            ({}, "body.subsystem_id"),
            ({"subsystem_id": 1}, "body.subsystem_id"),
            ({"subsystem_id": "s", "nonsense": 1}, "body.nonsense"),
            ({"subsystem_id": "s", "subsystemId": "t"}, "body.subsystemId"),
            ({"subsystem_id": "s", "inner_parts": [{}]}, "body.inner_parts[0].metric_id"),
            ({"subsystem_id": "s", "inner_parts": [{"metric_id": "m", "other": 1}]}, "body.inner_parts[0].other"),
            ([], "body"),
        ],
    )
    async def test_fields_are_named(self, api: httpx2.AsyncClient, body: Any, path: str) -> None:
        told = error(await api.post("/api/v1/trial", json=body), 422)
        assert told["code"] == "invalid_input"
        assert path in [field["path"] for field in told["details"]["fields"]]
        assert path in told["message"]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("share", "0.5"),
            ("share", True),
            ("is_set", "yes"),
            ("is_set", 1),
            ("inner_parts", [{"metric_id": "m", "rolling_window": "2"}]),
            ("inner_parts", [{"metric_id": "m", "rolling_window": 2.0}]),
            ("inner_parts", {}),
            ("severity", 1),
            ("at", 1700000000),
        ],
    )
    async def test_a_value_of_another_type_is_refused(self, api: httpx2.AsyncClient, field: str, value: Any) -> None:
        answer = await api.post("/api/v1/trial", json={"subsystem_id": "s", field: value})
        assert error(answer, 422)["message"].startswith(f"body.{field}")

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"kind": "mission.merged"}, "body.kind: Input should be 'subsystem.error'"),
            ({"inner_parts": {}}, "body.inner_parts: Input should be a valid array"),
            ({"inner_parts": []}, "body.inner_parts: Array should have at least 1 item, not 0"),
            ({"inner_parts": [{"metric_id": "m"}, 3]}, "body.inner_parts[1]: Input should be an object"),
            ({"word": "no"}, "body.word: must be yes"),
        ],
    )
    async def test_messages_are_in_the_words_of_json(
        self, api: httpx2.AsyncClient, given: dict[str, Any], message: str
    ) -> None:
        told = error(await api.post("/api/v1/trial", json={"subsystem_id": "s", **given}), 422)
        assert told["message"] == message
        assert [field["message"] for field in told["details"]["fields"]] == [message.partition(": ")[2]]

    @pytest.mark.parametrize(
        ("field", "value"),
        [("share", 1), ("severity", "high"), ("kind", "subsystem.error"), ("at", "2025-01-10T12:00:00Z")],
    )
    async def test_what_json_has_no_type_for_is_read(self, api: httpx2.AsyncClient, field: str, value: Any) -> None:
        answer = await api.post("/api/v1/trial", json={"subsystem_id": "s", field: value})
        assert answer.json()["data"][field] == value

    async def test_what_was_sent_is_not_echoed(self, api: httpx2.AsyncClient) -> None:
        answer = await api.post("/api/v1/trial", json={"subsystem_id": ["hunter2"]})
        assert error(answer, 422)
        assert "hunter2" not in answer.text

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b'{"subsystem_id": "s"', "malformed_json"),
            (b"\xff\xfe\x00", "malformed_json"),
            (b"[" * 5_000, "malformed_json"),
            (b"[" * 100_000, "too_many_values"),
            (b'{"subsystem_id": ' + b"9" * 10_000 + b"}", "malformed_json"),
            (b'{"subsystem_id": "s", "free_form": {"x": NaN}}', "invalid_input"),
            (b'{"subsystem_id": "s", "free_form": {"x": -Infinity}}', "invalid_input"),
            (b'{"subsystem_id": "s", "free_form": {"x": 1e999}}', "invalid_input"),
            (b'{"subsystem_id": "s\\u0000"}', "invalid_input"),
            (b'{"subsystem_id": "s", "free_form": {"a\\u0000": [1]}}', "invalid_input"),
            (b'{"subsystem_id": "s", "free_form": {"x": ["\\ud800"]}}', "invalid_input"),
            (b'{"subsystem_id": "s", "subsystem_id": "s"}', "repeated_key"),
            (b'{"subsystem_id": "s", "free_form": {"x": [{"a": 1, "a": 2}]}}', "repeated_key"),
            (b'{"subsystem_id": "s", "free_form": {"x": ' + b"[" * 500 + b"]" * 500 + b"}}", "malformed_json"),
            ('{"subsystem_id": "s"}'.encode("utf-16"), "malformed_json"),
            (b"", "invalid_input"),
            (b"null", "invalid_input"),
        ],
    )
    async def test_what_no_row_can_hold(self, api: httpx2.AsyncClient, body: bytes, code: str) -> None:
        answer = await api.post("/api/v1/trial", content=body, headers={"Content-Type": "application/json"})
        assert error(answer, 422)["code"] == code

    async def test_a_whole_surrogate_pair_is_a_character(self, api: httpx2.AsyncClient) -> None:
        sent = b'{"subsystem_id": "\\ud83d\\ude00 \\\\u0000"}'
        answer = await api.post("/api/v1/trial", content=sent, headers={"Content-Type": "application/json"})
        assert answer.json()["data"]["subsystem_id"] == "\U0001f600 \\u0000"

    async def test_not_json(self, api: httpx2.AsyncClient) -> None:
        answer = await api.post("/api/v1/trial", content=b"a=b", headers={"Content-Type": "text/plain"})
        assert error(answer, 422)["code"] == "not_json"

    async def test_too_large_by_its_header(self, api: httpx2.AsyncClient, settings: Settings) -> None:
        body = b'"' + b"x" * settings.max_body_bytes + b'"'
        answer = await api.post("/api/v1/trial", content=body, headers={"Content-Type": "application/json"})
        assert error(answer, 413)["code"] == "body_too_large"
        assert error(answer, 413)["details"] == {"limit_bytes": settings.max_body_bytes}

    async def test_a_stranger_has_little_to_say(self, app: FastAPI) -> None:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as stranger:
            answer = await stranger.post("/api/v1/agents", json={"name": "x" * STRANGERS_BODY_BYTES})
        assert error(answer, 413)["code"] == "body_too_large"

    async def test_too_large_while_it_comes(self, api: httpx2.AsyncClient) -> None:
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            while sent < 10_000_000:
                sent += 100_000
                yield b"x" * 100_000
                await asyncio.sleep(0)

        answer = await api.post("/api/v1/trial", content=endless(), headers={"Content-Type": "application/json"})
        assert error(answer, 413)["code"] == "body_too_large"
        assert sent < 2_000_000


class TestQuery:
    async def test_either_case(self, api: httpx2.AsyncClient) -> None:
        assert (await api.get("/api/v1/trial/a?subSystem=B%20c")).json()["data"] == "a B c"
        assert (await api.get("/api/v1/trial/a?sub_system=B")).json()["data"] == "a B"

    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ("subsystem=x", "unknown_parameter"),
            ("sub_system=a&subSystem=b", "repeated_parameter"),
            ("sub_system=a%00b", "invalid_input"),
            ("sub_system=%ff%fe", None),
            ("%ff=1", "unknown_parameter"),
        ],
    )
    async def test_refused(self, api: httpx2.AsyncClient, query: str, code: str | None) -> None:
        answer = await api.get(f"/api/v1/trial/a?{query}")
        assert answer.status_code == 200 if code is None else error(answer, 422)["code"] == code

    async def test_nul_in_the_path(self, api: httpx2.AsyncClient) -> None:
        assert error(await api.get("/api/v1/trial/a%00b"), 422)["code"] == "invalid_input"
