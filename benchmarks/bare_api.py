"""The same stack without us: FastAPI, SQLAlchemy and psycopg under uvicorn, and handlers that do the one thing.

A claim can be had without SQLAlchemy, too: we pass it by ourselves where each request counts (ADR 15).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel
from pydantic_core import to_json
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from models.schemas.missions import MissionSummary
from models.settings import Settings
from models.store.connections import plain

TABLES = (
    "CREATE TABLE bare_event (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, type text, subject text, data jsonb)",
    "CREATE TABLE bare_mission (id bigint PRIMARY KEY, severity_rank integer NOT NULL, created_at timestamptz NOT NULL,"
    " assigned_to text, claimed_at timestamptz)",
    "CREATE INDEX ON bare_mission (severity_rank, created_at, id) WHERE claimed_at IS NULL",
)
_INSERT = text(
    "INSERT INTO bare_event (type, subject, data) VALUES (:type, :subject, CAST(:data AS jsonb)) RETURNING id"
)
_PAGE = text(
    f"SELECT {', '.join(MissionSummary.model_fields)} FROM mission WHERE workspace_id = :workspace"  # noqa: S608  # constants
    " AND (created_at, seq) < (:created_at, :seq) ORDER BY created_at DESC, seq DESC LIMIT :limit"
)
_CLAIM = (
    "UPDATE bare_mission SET assigned_to = {agent}, claimed_at = now() WHERE id = (SELECT id FROM bare_mission"
    " WHERE claimed_at IS NULL ORDER BY severity_rank, created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id"
)
_CLAIM_BY_SQLALCHEMY, _CLAIM_BY_PSYCOPG = text(_CLAIM.format(agent=":agent")), _CLAIM.format(agent="%(agent)s")


class Fact(BaseModel):
    """What is posted."""

    type: str
    subject: dict[str, str]
    data: dict[str, Any]


def create_app(settings: Settings) -> FastAPI:
    """Make the application."""
    engine, pool = _engine(settings), pool_of(_url(settings))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with engine.begin() as connection:
            for statement in TABLES:
                await connection.execute(text(statement))
        async with pool:
            yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.get("/readyz")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/events", status_code=202)
    async def post_event(fact: Fact) -> Response:
        async with engine.begin() as connection:
            row = {"type": fact.type, "subject": fact.subject["id"], "data": to_json(fact.data).decode()}
            number = (await connection.execute(_INSERT, row)).scalar_one()
        return Response(to_json({"id": number}), 202, media_type="application/json")

    @app.get("/missions")
    async def list_missions(workspace: str, created_at: datetime, seq: int, limit: int) -> Response:
        place = {"workspace": workspace, "created_at": created_at, "seq": seq, "limit": limit + 1}
        async with engine.begin() as connection:
            rows = [dict(row) for row in (await connection.execute(_PAGE, place)).mappings()]
        return Response(to_json({"items": rows[:limit]}), media_type="application/json")

    @app.get("/claim")
    async def claim(agent: str) -> Response:
        async with engine.begin() as connection:
            number = (await connection.execute(_CLAIM_BY_SQLALCHEMY, {"agent": agent})).scalar_one_or_none()
        return Response(to_json({"id": number}), media_type="application/json")

    @app.get("/claim/plain")
    async def claim_by_psycopg(agent: str) -> Response:
        async with pool.connection() as connection:
            found = await (await connection.execute(_CLAIM_BY_PSYCOPG, {"agent": agent})).fetchone()
        return Response(to_json({"id": found[0] if found else None}), media_type="application/json")

    return app


def pool_of(url: str) -> AsyncConnectionPool:
    """Make a pool of psycopg's own, as large as the others; each loan is a transaction."""
    return AsyncConnectionPool(plain(url), min_size=20, max_size=20, open=False)


def _engine(settings: Settings) -> AsyncEngine:
    url = make_url(_url(settings)).set(drivername="postgresql+psycopg")
    return create_async_engine(url, pool_size=20, max_overflow=0, pool_pre_ping=False)


def _url(settings: Settings) -> str:
    assert settings.database_url is not None
    return settings.database_url.get_secret_value()


if __name__ == "__main__":
    given = Settings()
    config = uvicorn.Config(
        create_app(given),
        host="127.0.0.1",
        port=given.api_port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
    uvicorn.Server(config).run()
