"""How much a request's body may hold: nobody is held up for long by what somebody else sends."""

import json
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from api.app import create_app
from api.wire import require_few_values
from models.domain.errors import InvalidInput
from models.schemas.envelope import Bounds
from models.settings import Settings
from tests.fixtures.api import Team, running

JSON = {"Content-Type": "application/json"}
RESOLVE = "/api/v1/decisions/d/resolve"
MOST = Bounds()


def error_of(answer: httpx2.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


@pytest.fixture
async def wide(settings: Settings, team: Team) -> Any:
    """The API as it is shipped, for an agent."""
    app: FastAPI = create_app(settings.model_copy(update={"max_body_bytes": 64 * 1024 * 1024}))
    transport = httpx2.ASGITransport(app)
    headers = {"X-API-Key": team.agent}
    async with running(app), httpx2.AsyncClient(transport=transport, base_url="http://test", headers=headers) as api:
        yield api


async def test_a_body_is_short_where_nothing_long_is_told(wide: httpx2.AsyncClient) -> None:
    answer = await wide.post(RESOLVE, content=b'"' + b"x" * MOST.bytes + b'"', headers=JSON)
    assert error_of(answer, 413)["details"] == {"limit_bytes": MOST.bytes}


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": [' + b"[]," * MOST.values + b"1]}",
        b'{"a": [' + b'"",' * MOST.values + b"1]}",
        b'{"a": [' + b"1," * MOST.values + b"1]}",
        b"{" + b",".join(b'"%d":1' % number for number in range(MOST.values)) + b"}",
    ],
    ids=["arrays", "texts", "numbers", "keys"],
)
async def test_a_body_of_very_many_values_is_not_read(wide: httpx2.AsyncClient, body: bytes) -> None:
    answer = await wide.post(RESOLVE, content=body, headers=JSON)
    assert error_of(answer, 422)["code"] == "too_many_values"


async def test_all_that_is_wrong_is_counted_and_some_of_it_told(wide: httpx2.AsyncClient) -> None:
    answer = await wide.post(RESOLVE, json={f"k{number}": 1 for number in range(400)})
    error = error_of(answer, 422)
    assert (len(error["details"]["fields"]), error["message"].endswith("and 399 more")) == (50, True)


values = st.recursive(
    st.none() | st.integers() | st.text('a,:[{}]"\\\n', max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text('a,"\\', max_size=5), inner, max_size=5),
    max_leaves=30,
)


def marks(value: Any) -> int:
    """How many of a value's commas, colons and openings no text holds."""
    if isinstance(value, list):
        return max(len(value), 1) + sum(map(marks, value))
    if isinstance(value, dict):
        return max(len(value), 1) + len(value) + sum(map(marks, value.values()))
    return 0


@given(value=values, most=st.integers(0, 60))
def test_what_texts_hold_is_not_counted(value: Any, most: int) -> None:
    body = json.dumps(value).encode()
    if marks(value) <= most:
        require_few_values(body, most)
    else:
        with pytest.raises(InvalidInput):
            require_few_values(body, most)


@pytest.mark.parametrize("body", [b'"' + b'\\"' * 1_000_000, b'["' + b"\\" * 1_000_001, b'"a' + b",[" * 1_000_000])
def test_a_text_without_an_end_is_looked_through_once(body: bytes) -> None:
    require_few_values(body, 10)
