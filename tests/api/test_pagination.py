"""Pages: every row once, in the order asked for, and nothing that was not declared."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI
from sqlmodel import col, select

from api.app import create_app
from api.deps import Db, Pagination, Reader
from api.routing import router
from models.schemas.envelope import Page, Success
from models.schemas.pagination import PageRequest
from models.settings import Settings
from models.store import pagination
from models.store.database import Database
from models.tables.missions import Capa
from tests.fixtures.api import Caller, Team, running

routes = router("trial")
KEYS = {
    "created_at": (col(Capa.created_at), col(Capa.capa_id)),
    "severity": (col(Capa.severity), col(Capa.capa_id)),
}


@routes.get("/rows")
async def list_rows(
    call: Reader,
    db: Db,
    page: Annotated[PageRequest, Depends(Pagination(*KEYS, default="-created_at"))],
    severity: str | None = None,
) -> Success[Page[str]]:
    """List rows, the way every list of ours does."""
    async with db.workspace(call.workspace_id) as session:
        statement = select(Capa).where(Capa.workspace_id == call.workspace_id)
        if severity:
            statement = statement.where(Capa.severity == severity)
        found = await pagination.fetch(session, statement, KEYS[page.sort.field], page)
    return Success(data=Page(items=[row.capa_id for row in found.rows], next_cursor=found.next_cursor))


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    """An application with the list of this module."""
    application = create_app(settings, {"v1": (routes,)})
    async with running(application):
        yield application


@pytest.fixture
async def rows(db: Database, team: Team, other_team: Team) -> list[str]:
    """Rows of the team, oldest first, several of one instant; and one of somebody else."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    async with db.system() as session:
        for number in range(23):
            made = begin + timedelta(microseconds=number // 5)
            session.add(row(team, f"c{number:02}", made, "high" if number % 2 else "low"))
        session.add(row(other_team, "theirs", begin, "low"))
    return [f"c{number:02}" for number in range(23)]


def row(team: Team, name: str, made: datetime, severity: str) -> Capa:
    """A row to list."""
    words: dict[str, Any] = {"title": "t", "cause": "c", "corrective": "", "preventive": "", "status": "open"}
    return Capa(
        workspace_id=team.workspace_id,
        capa_id=name,
        severity=severity,
        created_by="x",
        created_at=made,
        updated_at=made,
        **words,
    )


async def walk(api: httpx2.AsyncClient, query: str) -> list[list[str]]:
    """All pages of a list."""
    pages, cursor = [], ""
    while cursor is not None:
        answer = await api.get(f"/api/v1/rows?{query}" + (f"&cursor={cursor}" if cursor else ""))
        assert answer.status_code == 200, answer.text
        pages.append(answer.json()["data"]["items"])
        cursor = answer.json()["data"]["next_cursor"]
    return pages


@pytest.mark.parametrize(
    ("sort", "reverse"), [("created_at", False), ("-created_at", True), ("createdAt", False), ("-createdAt", True)]
)
async def test_every_row_once_in_order(api: httpx2.AsyncClient, rows: list[str], sort: str, reverse: bool) -> None:
    pages = await walk(api, f"sort={sort}&limit=4")
    assert [name for page in pages for name in page] == sorted(rows, reverse=reverse)
    assert [len(page) for page in pages] == [4] * 5 + [3]


async def test_a_last_page_that_is_full_has_no_next(api: httpx2.AsyncClient, rows: list[str]) -> None:
    assert [len(page) for page in await walk(api, "limit=23")] == [23]


async def test_text_sorts_too(api: httpx2.AsyncClient, rows: list[str]) -> None:
    pages = await walk(api, "sort=-severity&limit=5")
    found = [name for page in pages for name in page]
    assert sorted(found) == rows
    assert found[0] == "c22"
    assert found[-1] == "c01"


async def test_rows_that_come_meanwhile_move_nothing(
    api: httpx2.AsyncClient, rows: list[str], db: Database, team: Team
) -> None:
    first = (await api.get("/api/v1/rows?limit=10")).json()["data"]
    async with db.system() as session:
        session.add(row(team, "new", datetime.now(UTC), "low"))
    then = (await api.get(f"/api/v1/rows?limit=50&cursor={first['next_cursor']}")).json()["data"]
    assert first["items"] + then["items"] == sorted(rows, reverse=True)


async def test_offset(api: httpx2.AsyncClient, rows: list[str]) -> None:
    answer = await api.get("/api/v1/rows?sort=created_at&limit=3&offset=20")
    assert answer.json()["data"] == {"items": rows[20:], "next_cursor": None}


async def test_filter(api: httpx2.AsyncClient, rows: list[str]) -> None:
    pages = await walk(api, "severity=high&limit=5")
    assert sum(len(page) for page in pages) == 11


def forged(*values: object) -> str:
    """A cursor that nobody gave out."""
    return "cursor=" + base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


DAY = "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "invalid_input"),
        ("limit=201", "invalid_input"),
        ("limit=x", "invalid_input"),
        ("offset=-1", "invalid_input"),
        ("offset=10001", "invalid_input"),
        ("sort=title", "unknown_sort"),
        ("sort=--created_at", "unknown_sort"),
        ("status=open", "unknown_parameter"),
        ("cursor=%25%25", "invalid_cursor"),
        ("cursor=x", "invalid_cursor"),
        ("cursor=e30", "invalid_cursor"),
        (forged(), "invalid_cursor"),
        (forged("-created_at"), "invalid_cursor"),
        (forged("-created_at", "yesterday", "c"), "invalid_cursor"),
        ("cursor=" + base64.b64encode(b"[" * 1500).decode(), "invalid_cursor"),
        (forged("-created_at", DAY, 1), "invalid_cursor"),
        (forged("-created_at", DAY, "\0"), "invalid_input"),
        (forged("created_at", DAY, "c"), "invalid_cursor"),
        (forged("-created_at", DAY, "\ud800"), "invalid_cursor"),
        ("offset=1&" + forged("-created_at", DAY, "c"), "cursor_and_offset"),
    ],
)
async def test_refused(api: httpx2.AsyncClient, query: str, code: str) -> None:
    answer = await api.get(f"/api/v1/rows?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, code), answer.text


async def test_another_workspace_sees_its_own(client: Caller, other_team: Team, rows: list[str]) -> None:
    assert (await client(other_team.agent).get("/api/v1/rows")).json()["data"]["items"] == ["theirs"]
