"""Reporting an event: stored once, in the caller's name, and only of the types that clients may report."""

import asyncio
import json
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from models.store.database import Database
from tests.fixtures.api import Caller, Team
from tests.fixtures.waiting import eventually

EVENT: dict[str, Any] = {
    "type": "subsystem.error",
    "subject": {"kind": "subsystem", "id": "billing"},
    "data": {"message": "queue is full"},
}


async def stored(db: Database, team: Team) -> list[Any]:
    """The team's events."""
    async with db.workspace(team.workspace_id) as session:
        return list(await session.execute(text("SELECT * FROM event ORDER BY epoch, xid, id")))


async def test_it_is_stored_when_the_answer_comes(client: Caller, team: Team, db: Database) -> None:
    answer = await client(team.service).post("/api/v1/events", json=EVENT, headers={"X-Request-Id": "chain-7"})
    (row,) = await stored(db, team)
    assert answer.status_code == 202
    assert answer.json()["data"] == {"id": f"{row.epoch}-{row.xid}-{row.id}", "deduped": False}
    assert (row.type, row.subject_id, row.actor, row.correlation_id) == (
        "subsystem.error",
        "billing",
        "service",
        "chain-7",
    )
    assert row.data == EVENT["data"]


@pytest.mark.parametrize("where", ["header", "idempotencyKey", "idempotency_key"])
async def test_twice_under_a_key_is_one_event(client: Caller, team: Team, db: Database, where: str) -> None:
    agent = client(team.agent)
    body, headers = (EVENT, {"Idempotency-Key": "k"}) if where == "header" else ({**EVENT, where: "k"}, {})
    first = await agent.post("/api/v1/events", json=body, headers=headers)
    again = await agent.post("/api/v1/events", json=body, headers=headers)
    assert first.json()["data"] == {"id": again.json()["data"]["id"], "deduped": False}
    assert again.json()["data"]["deduped"] is True
    assert again.headers["idempotency-replayed"] == "true"
    assert again.status_code == first.status_code == 202
    assert len(await stored(db, team)) == 1


async def test_another_body_under_the_key(client: Caller, team: Team) -> None:
    agent = client(team.agent)
    await agent.post("/api/v1/events", json={**EVENT, "idempotencyKey": "k"})
    other = await agent.post("/api/v1/events", json={**EVENT, "data": {}, "idempotencyKey": "k"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "mission.merged"},
        {"type": "nothing.known"},
        {"subject": {"kind": "", "id": "x"}},
        {"subject": {"kind": "k", "id": "x", "more": 1}},
        {"subject": None},
        {"data": []},
        {"more": 1},
        {"idempotencyKey": ""},
    ],
)
async def test_wrong_bodies(api: httpx2.AsyncClient, db: Database, team: Team, wrong: dict[str, Any]) -> None:
    answer = await api.post("/api/v1/events", json=EVENT | wrong)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_input")
    assert await stored(db, team) == []


async def test_two_keys(api: httpx2.AsyncClient) -> None:
    answer = await api.post("/api/v1/events", json={**EVENT, "idempotencyKey": "a"}, headers={"Idempotency-Key": "b"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "two_idempotency_keys")


async def test_too_much_data(api: httpx2.AsyncClient) -> None:
    answer = await api.post("/api/v1/events", json={**EVENT, "data": {"log": "x" * 70_000}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "event_too_large")


async def test_a_burst_of_new_repeated_and_wrong_ones(client: Caller, team: Team, db: Database) -> None:
    service = client(team.service)
    await service.post("/api/v1/events", json={**EVENT, "idempotencyKey": "old"})
    bodies: list[dict[str, Any]] = [
        {**EVENT, "idempotencyKey": key, "data": {"n": n}} if key else {**EVENT, "data": {"n": n}}
        for n in range(10)
        for key in ("", f"own {n}".replace(" ", "-"), "shared", "old")
    ]
    answers = await asyncio.gather(*(service.post("/api/v1/events", json=body) for body in bodies))
    found: dict[str, list[int]] = {"": [], "own": [], "shared": [], "old": []}
    for body, answer in zip(bodies, answers, strict=True):
        found[body.get("idempotencyKey", "").split("-")[0]].append(answer.status_code)
    assert found[""] == found["own"] == [202] * 10
    assert sorted(found["shared"]) == [202] + [409] * 9, "the bodies differ: one is first"
    assert found["old"] == [409] * 10
    rows = await stored(db, team)
    assert len(rows) == 1 + 10 + 10 + 1
    ids = {answer.json()["data"]["id"]: body for body, answer in zip(bodies, answers, strict=True) if answer.is_success}
    for row in rows[1:]:
        assert ids[f"{row.epoch}-{row.xid}-{row.id}"]["data"] == row.data, "each is told the place of its own event"


async def test_deep_data(api: httpx2.AsyncClient, db: Database, team: Team) -> None:
    deep: dict[str, Any] = {}
    for _ in range(150):
        deep = {"in": deep}
    assert (await api.post("/api/v1/events", json={**EVENT, "data": deep})).status_code == 202
    assert (await stored(db, team))[0].data == deep


async def test_whose_key_ends_while_the_body_comes_reports_nothing(
    address: str, client: Caller, team: Team, db: Database
) -> None:
    admin, content = client(team.admin), json.dumps(EVENT).encode()
    key = (await admin.post("/api/v1/keys", json={"principal": "late", "kind": "agent"})).json()["data"]
    host, _, port = address.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {key['secret']}\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n".encode())
    writer.write(b"Expect: 100-continue\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100"), "it knows whose it is, and waits"
    assert (await admin.delete(f"/api/v1/keys/{key['key_id']}")).status_code == 200

    async with httpx2.AsyncClient(base_url=address, headers={"X-API-Key": key["secret"]}) as late:

        async def is_refused() -> bool:
            return (await late.get("/api/v1/missions")).status_code == 401

        await eventually(is_refused)
    writer.write(content)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 401")
    assert "late" not in {row.actor for row in await stored(db, team)}
