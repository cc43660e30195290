"""A repeated request is answered the same, a different one under the same key is refused."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from fastapi import FastAPI, Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.app import create_app
from api.deps import OnlyOnce, Operator
from api.registry import VERSIONS
from api.routing import router
from models.domain.errors import Conflict
from models.domain.events import EventType, Subject
from models.schemas.envelope import Body, Success
from models.settings import Settings
from models.store import events, idempotency
from models.store.database import Database
from tests.fixtures.api import Caller, Team, running

routes = router("trial")
said: list[str] = []


class Note(Body):
    """What to remember."""

    text: str


class Answer(Body):
    """What was remembered."""

    text: str
    place: str


@routes.post("/notes", status_code=201, response_model=Success[Answer])
async def post_note(body: Note, call: Operator, once: OnlyOnce) -> Response:
    """Change a row, the way every route of ours does."""

    async def change(session: AsyncSession) -> Answer:
        if body.text == "refused":
            raise Conflict("refused", "not now")
        subject = Subject(kind="note", id=body.text)
        place = await events.append(session, call.workspace_id, EventType.SUBSYSTEM_REPORT, subject, call.actor)
        return Answer(text=body.text, place=str(place))

    return await once.commit(change)


@routes.post("/commands", response_model=Success[Any])
async def post_command(body: Note, call: Operator, once: OnlyOnce) -> Response:
    """Tell something that is not a row, under an id."""

    async def act(key: str) -> Any:
        said.append(key)
        return {"text": body.text}

    return await once.command(act)


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    """The application with the routes of this module beside its own."""
    application = create_app(settings, {"v1": (routes, *VERSIONS["v1"])})
    async with running(application):
        yield application


def keyed(key: str) -> dict[str, str]:
    """The header of a key."""
    return {"Idempotency-Key": key}


async def count_events(db: Database, team: Team) -> int:
    """How many events the team has."""
    async with db.workspace(team.workspace_id) as session:
        return int((await session.execute(text("SELECT count(*) FROM event"))).scalar_one())


class TestCommit:
    async def test_the_same_answer_again(self, api: httpx2.AsyncClient, db: Database, team: Team) -> None:
        first = await api.post("/api/v1/notes", json={"text": "a"}, headers=keyed("k"))
        again = await api.post("/api/v1/notes", json={"text": "a"}, headers=keyed("k"))
        assert (first.status_code, again.status_code) == (201, 201)
        assert again.content == first.content
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        assert again.headers["content-type"] == first.headers["content-type"]
        assert await count_events(db, team) == 1

    async def test_json_is_compared_by_value(self, api: httpx2.AsyncClient) -> None:
        await api.post("/api/v1/commands", content=b'{"text":"a"}', headers={**keyed("k"), **JSON})
        again = await api.post("/api/v1/commands", content=b'{ "text" : "a" }', headers={**keyed("k"), **JSON})
        assert again.headers["idempotency-replayed"] == "true"

    @pytest.mark.parametrize(("path", "body"), [("/api/v1/notes", "b"), ("/api/v1/commands", "a")])
    async def test_another_request_under_the_key(self, api: httpx2.AsyncClient, path: str, body: str) -> None:
        await api.post("/api/v1/notes", json={"text": "a"}, headers=keyed("k"))
        other = await api.post(path, json={"text": body}, headers=keyed("k"))
        assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")

    async def test_a_key_belongs_to_its_workspace(
        self, client: Caller, team: Team, other_team: Team, db: Database
    ) -> None:
        await client(team.admin).post("/api/v1/notes", json={"text": "a"}, headers=keyed("k"))
        other = await client(other_team.admin).post("/api/v1/notes", json={"text": "b"}, headers=keyed("k"))
        assert other.status_code == 201
        assert await count_events(db, other_team) == 1

    async def test_twenty_at_once_do_it_once(self, api: httpx2.AsyncClient, db: Database, team: Team) -> None:
        calls = [api.post("/api/v1/notes", json={"text": "a"}, headers=keyed("k")) for _ in range(20)]
        answers = await asyncio.gather(*calls)
        assert {answer.content for answer in answers} == {answers[0].content}
        assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
        assert await count_events(db, team) == 1

    async def test_a_refusal_is_not_kept(self, api: httpx2.AsyncClient) -> None:
        refused = await api.post("/api/v1/notes", json={"text": "refused"}, headers=keyed("k"))
        assert refused.status_code == 409
        assert (await api.post("/api/v1/notes", json={"text": "b"}, headers=keyed("k"))).status_code == 201

    @pytest.mark.parametrize("key", ["call/1", "/", ".", ".."])
    async def test_a_key_that_no_path_could_name(self, client: Caller, team: Team, key: str) -> None:
        agent = client(team.agent)
        run = (await agent.post("/api/v1/runs", json={})).json()["data"]["run_id"]
        refused = await agent.post(f"/api/v1/runs/{run}/reservations", json={"usd": "0.01"}, headers=keyed(key))
        told = await agent.post("/api/v1/events", json=REPORT | {"idempotency_key": key})
        for answer in (refused, told):
            assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_input")
            assert "holds no '/', and is neither '.' nor '..'" in answer.json()["error"]["message"]
        assert (await agent.get(f"/api/v1/runs/{run}")).json()["data"]["reserved_usd"] == "0"

    async def test_every_other_key_names_what_it_made(self, address: str, team: Team) -> None:
        allowed = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "/")
        async with httpx2.AsyncClient(base_url=address, headers={"X-API-Key": team.agent}) as agent:
            runs = "/api/v1/runs"
            run = (await agent.post(runs, json={})).json()["data"]["run_id"]
            for key in (allowed, *allowed.replace(".", ""), "...", "%2F", "%2e"):
                held = await agent.post(f"{runs}/{run}/reservations", json={"usd": "0.0001"}, headers=keyed(key))
                assert held.json()["data"]["cost_id"] == key
                place = f"{runs}/{run}/reservations/{quote(key, safe='')}/settle"
                assert (await agent.post(place, json={"usd": "0.0001"})).status_code == 200, key

    @pytest.mark.parametrize("key", [b"a b", b"x" * 300, "\u00e9".encode()])
    async def test_unsound_keys(self, api: httpx2.AsyncClient, key: bytes) -> None:
        answer = await api.post("/api/v1/notes", json={"text": "a"}, headers={b"Idempotency-Key": key})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_input")

    async def test_old_ones_are_forgotten(self, api: httpx2.AsyncClient, db: Database, team: Team) -> None:
        await api.post("/api/v1/notes", json={"text": "a"}, headers=keyed("old"))
        await api.post("/api/v1/notes", json={"text": "a"}, headers=keyed("new"))
        async with db.system() as session:
            await session.execute(
                text("UPDATE idempotency SET created_at = now() - interval '49 hours' WHERE idempotency_key = 'old'")
            )
            await idempotency.forget_old(session)
        answers = [await api.post("/api/v1/notes", json={"text": "a"}, headers=keyed(key)) for key in ("old", "new")]
        assert ["idempotency-replayed" in answer.headers for answer in answers] == [False, True]

    async def test_a_pass_forgets_so_many(self, db: Database, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(idempotency, "FORGOTTEN_AT_ONCE", 2)
        fill = (
            "INSERT INTO idempotency (workspace_id, idempotency_key, route, digest, created_at)"
            " SELECT :workspace, 'key ' || n, 'r', 'd', now() - interval '49 hours' FROM generate_series(1, 5) n"
        )
        left = text("SELECT count(*) FROM idempotency WHERE workspace_id = :workspace")
        counts = []
        async with db.system() as session:
            await session.execute(text(fill), {"workspace": team.workspace_id})
            for _ in range(3):
                await idempotency.forget_old(session)
                counts.append(await session.scalar(left, {"workspace": team.workspace_id}))
        assert counts == [3, 1, 0]


JSON = {"Content-Type": "application/json"}
REPORT = {"type": "subsystem.report", "subject": {"kind": "subsystem", "id": "x"}}


class TestCommand:
    async def test_said_once_and_remembered(self, api: httpx2.AsyncClient) -> None:
        said.clear()
        answers = [await api.post("/api/v1/commands", json={"text": "a"}, headers=keyed("once")) for _ in range(2)]
        assert answers[0].content == answers[1].content
        assert said == ["once"]

    async def test_said_again_under_the_same_id_after_a_crash(
        self, api: httpx2.AsyncClient, db: Database, team: Team
    ) -> None:
        said.clear()
        await api.post("/api/v1/commands", json={"text": "a"}, headers=keyed("crash"))
        async with db.workspace(team.workspace_id) as session:  # as if we had died before the answer was stored
            await session.execute(text("UPDATE idempotency SET status_code = NULL, response = NULL"))
        assert (await api.post("/api/v1/commands", json={"text": "a"}, headers=keyed("crash"))).status_code == 200
        assert said == ["crash", "crash"]

    async def test_without_a_key_each_gets_an_id(self, api: httpx2.AsyncClient) -> None:
        said.clear()
        for _ in range(2):
            await api.post("/api/v1/commands", json={"text": "a"})
        assert len(set(said)) == 2


async def test_nobody_gets_the_answer_to_what_another_did(client: Caller, team: Team) -> None:
    """Else their own act is lost, and seems to be done."""
    key, note = {"Idempotency-Key": "the-same"}, {"kind": "playbook_note", "title": "Tax", "body": "See money.py."}
    first, other, again = [
        await client(asks).post("/api/v1/memory", json=note, headers=key)
        for asks in (team.member, team.operator, team.member)
    ]
    assert (first.status_code, again.json()) == (201, first.json()), first.text
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
