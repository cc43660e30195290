"""Corrective and preventive actions, from open to closed."""

from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from models.store.database import Database
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo

__all__ = ["repo"]

NEW = {"title": "Latency came back", "cause": "a cache was too small", "severity": "high"}


async def opened(api: httpx2.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await api.post("/api/v1/capa", json=NEW | changes)
    assert answer.status_code == 201, answer.text
    capa: dict[str, Any] = answer.json()["data"]
    return capa


class TestCreate:
    async def test_of_a_mission_and_on_its_own(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        mission = (await filed(api, repo))["mission_id"]
        linked, alone = await opened(api, mission_id=mission), await opened(api, owner="ada")
        assert (linked["mission_id"], linked["status"], linked["created_by"]) == (mission, "open", "admin")
        found = (await api.get(f"/api/v1/capa?mission_id={mission}&status=open")).json()["data"]["items"]
        assert found == [linked]
        assert (await api.get(f"/api/v1/capa/{alone['capa_id']}")).json()["data"] == alone

    @pytest.mark.parametrize("changes", [{"severity": "urgent"}, {"title": ""}, {"cause": None}, {"status": "open"}])
    async def test_names_what_is_wrong(self, api: httpx2.AsyncClient, changes: dict[str, Any]) -> None:
        assert (await api.post("/api/v1/capa", json=NEW | changes)).status_code == 422

    async def test_of_an_unknown_mission(self, api: httpx2.AsyncClient) -> None:
        answer = await api.post("/api/v1/capa", json=NEW | {"mission_id": "mission_20250110_001"})
        assert refusal(answer) == (404, "mission_not_found")

    async def test_services_open_agents_do_not(self, client: Caller, team: Team) -> None:
        assert (await client(team.service).post("/api/v1/capa", json=NEW)).status_code == 201
        assert (await client(team.agent).post("/api/v1/capa", json=NEW)).status_code == 403


class TestChange:
    async def test_along_its_states(self, api: httpx2.AsyncClient, db: Database, team: Team) -> None:
        place = f"/api/v1/capa/{(await opened(api))['capa_id']}"
        begun = await api.patch(place, json={"status": "in_progress", "owner": "ada"})
        assert (begun.json()["data"]["status"], begun.json()["data"]["owner"]) == ("in_progress", "ada")
        closed = (await api.patch(place, json={"status": "closed", "preventive": "alert on it"})).json()["data"]
        assert (closed["status"], closed["preventive"], closed["owner"]) == ("closed", "alert on it", "ada")
        assert closed["updated_at"] > closed["created_at"]
        async with db.workspace(team.workspace_id) as session:
            told = await session.execute(
                text("SELECT data->>'status' FROM event WHERE type = 'capa.changed' ORDER BY id")
            )
            assert told.scalars().all() == ["in_progress", "closed"]

    @pytest.mark.parametrize("to", ["open", "in_progress", "closed"])
    async def test_never_out_of_closed(self, api: httpx2.AsyncClient, to: str) -> None:
        place = f"/api/v1/capa/{(await opened(api))['capa_id']}"
        await api.patch(place, json={"status": "closed"})
        assert refusal(await api.patch(place, json={"status": to})) == (409, "illegal_transition")

    @pytest.mark.parametrize("patch", [{}, {"status": None}, {"status": "done"}, {"severity": "low"}])
    async def test_names_what_is_wrong(self, api: httpx2.AsyncClient, patch: dict[str, Any]) -> None:
        place = f"/api/v1/capa/{(await opened(api))['capa_id']}"
        assert (await api.patch(place, json=patch)).status_code == 422

    async def test_unknown_is_404(self, api: httpx2.AsyncClient) -> None:
        assert refusal(await api.patch("/api/v1/capa/lost", json={"status": "closed"})) == (404, "capa_not_found")

    async def test_by_operators(self, client: Caller, team: Team) -> None:
        place = f"/api/v1/capa/{(await opened(client(team.service)))['capa_id']}"
        assert (await client(team.service).patch(place, json={"status": "closed"})).status_code == 403
        assert (await client(team.operator).patch(place, json={"status": "closed"})).status_code == 200
