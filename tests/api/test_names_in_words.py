"""A name that is spelt wrong is refused in words: people who type one need no regular expression."""

import httpx2
import pytest

from models.domain import spellings


@pytest.mark.parametrize(
    ("method", "path", "body", "pattern"),
    [
        ("POST", "repositories", {"url": "/srv/app", "name": " my app"}, spellings.REPOSITORY),
        ("POST", "repositories", {"url": "/srv/app", "env": "my env"}, spellings.ENVIRONMENT),
        ("POST", "workspaces", {"slug": "my team", "name": "t"}, spellings.SLUG),
        ("POST", "memory", {"kind": "playbook_note", "title": "t", "body": "b", "tags": ["a b"]}, spellings.TAG),
    ],
)
async def test_of_bodies(
    api: httpx2.AsyncClient, method: str, path: str, body: dict[str, object], pattern: str
) -> None:
    answer = await api.request(method, f"/api/v1/{path}", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "invalid_input")
    assert error["message"].endswith(f": {spellings.WORDS[pattern]}"), error
    assert pattern not in answer.text


async def test_of_a_header(api: httpx2.AsyncClient) -> None:
    body = {"title": "t", "cause": "c", "severity": "low"}
    answer = await api.post("/api/v1/capa", json=body, headers={"Idempotency-Key": "my key"})
    assert answer.status_code == 422
    assert spellings.WORDS[spellings.IDEMPOTENCY_KEY] in answer.json()["error"]["message"]
