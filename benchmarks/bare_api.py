"""The same stack without us: FastAPI, SQLAlchemy and psycopg under uvicorn, and handlers that do the one thing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel
from pydantic_core import to_json
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from models.schemas.missions import MissionSummary
from models.settings import Settings

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
_CLAIM = text(
    "UPDATE bare_mission SET assigned_to = :agent, claimed_at = now() WHERE id = (SELECT id FROM bare_mission"
    " WHERE claimed_at IS NULL ORDER BY severity_rank, created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id"
)


class Fact(BaseModel):
    """What is posted."""

    type: str
    subject: dict[str, str]
    data: dict[str, Any]


def create_app(settings: Settings) -> FastAPI:
    """Make the application."""
    engine = _engine(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with engine.begin() as connection:
            for statement in TABLES:
                await connection.execute(text(statement))
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
            number = (await connection.execute(_CLAIM, {"agent": agent})).scalar_one_or_none()
        return Response(to_json({"id": number}), media_type="application/json")

    return app


def _engine(settings: Settings) -> AsyncEngine:
    assert settings.database_url is not None
    url = make_url(settings.database_url.get_secret_value()).set(drivername="postgresql+psycopg")
    return create_async_engine(url, pool_size=20, max_overflow=0, pool_pre_ping=False)


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
