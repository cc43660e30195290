"""The metrics catalog, and reporting samples."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from models.store.database import Database
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo

__all__ = ["repo"]

PLACE = "/api/v1/metrics/observations"


class TestCatalog:
    async def test_shows_the_shipped_bounds(self, api: httpx2.AsyncClient) -> None:
        found = (await api.get("/api/v1/metrics")).json()["data"]["items"]
        assert found == [
            {"metric_id": "trigger_mesh.latency_p95", "target": 100.0, "comparator": "<", "unit": "ms"},
            {"metric_id": "infra.cpu_utilization", "target": 70.0, "comparator": "<", "unit": "%"},
            {"metric_id": "plan_success_rate", "target": 95.0, "comparator": ">", "unit": "%"},
        ]


class TestObserve:
    async def test_keeps_one_and_many(self, api: httpx2.AsyncClient) -> None:
        one = await api.post(PLACE, json={"metric_id": "p95", "value": 1})
        batch = [
            {"metricId": "p95", "value": 2.5, "at": "2025-01-10T12:00:00Z"},
            {"metric_id": "cpu", "value": 3, "at": "2025-01-10T12:00:00+02:00"},
        ]
        many = await api.post(PLACE, json={"observations": batch})
        assert (one.status_code, many.status_code) == (201, 201)
        assert many.json()["data"]["accepted"] == len(set(many.json()["data"]["observation_ids"])) == 2
        found = (await api.get(f"{PLACE}?metric_id=p95")).json()["data"]["items"]
        assert [sample["value"] for sample in found] == [1.0, 2.5]
        assert found[1]["observation_id"] == many.json()["data"]["observation_ids"][0]

    async def test_of_a_mission(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        mission = (await filed(api, repo))["mission_id"]
        await api.post(PLACE, json={"metric_id": "p95", "value": 1, "mission_id": mission})
        await api.post(PLACE, json={"metric_id": "p95", "value": 2})
        found = (await api.get(f"{PLACE}?mission_id={mission}")).json()["data"]["items"]
        assert [(sample["value"], sample["phase"]) for sample in found] == [(1.0, None)]

    async def test_none_is_of_the_future(self, api: httpx2.AsyncClient) -> None:
        """It would be the newest until then, and hide all others."""
        soon, late = (datetime.now(UTC) + timedelta(seconds=seconds) for seconds in (30, 90))
        sample = {"metric_id": "p95", "value": 1}
        answer = await api.post(PLACE, json=sample | {"at": late.isoformat()})
        assert refusal(answer) == (422, "observation_in_future")
        assert (await api.post(PLACE, json=sample | {"at": soon.isoformat()})).status_code == 201
        for at, code in (("9999-12-31T23:59:59-14:00", "in_future"), ("0001-01-01T00:00:00+14:00", "too_old")):
            answer = await api.post(PLACE, json=sample | {"at": at})
            assert refusal(answer) == (422, f"observation_{code}")
        assert len((await api.get(PLACE)).json()["data"]["items"]) == 1

    async def test_tells_once_of_each_metric(self, api: httpx2.AsyncClient, db: Database, team: Team) -> None:
        samples = [{"metric_id": name, "value": n} for n, name in enumerate("aabba")]
        await api.post(PLACE, json={"observations": samples})
        async with db.workspace(team.workspace_id) as session:
            told = await session.execute(
                text("SELECT subject_id, data->>'count' FROM event WHERE type = 'metric.observed'")
            )
            assert sorted(map(tuple, told.all())) == [("a", "3"), ("b", "2")]

    @pytest.mark.parametrize(
        "body",
        [
            '{"metric_id": "p95", "value": NaN}',
            '{"metric_id": "p95", "value": Infinity}',
            '{"metric_id": "p95", "value": 1e999}',
            '{"metric_id": "p95", "value": "high"}',
            '{"metric_id": "", "value": 1}',
            '{"metric_id": "p95", "value": 1, "at": "2025-01-10T12:00:00"}',
            '{"metric_id": "p95", "value": 1, "colour": "red"}',
            '{"observations": []}',
            '{"observations": [{"metric_id": "p95", "value": 1}, {"metric_id": "p95"}]}',
        ],
    )
    async def test_refuses_what_is_no_sample(self, api: httpx2.AsyncClient, body: str) -> None:
        answer = await api.post(PLACE, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
        assert (await api.get(PLACE)).json()["data"]["items"] == []

    @pytest.mark.parametrize(
        ("body", "path"),
        [
            ({"metric_id": "p95"}, "body.value"),
            ({"metric_id": "p95", "value": 1, "colour": "red"}, "body.colour"),
            ({"metric_id": "p95", "value": "1"}, "body.value"),
            ({}, "body.metric_id"),
            ([], "body"),
            ({"observations": []}, "body.observations"),
            ({"observations": None}, "body.observations"),
            ({"observations": [{"value": 1}]}, "body.observations[0].metric_id"),
            ({"observations": [{"metric_id": "p95", "value": 1}, {"metric_id": "p95"}]}, "body.observations[1].value"),
            ({"observations": [{"metric_id": "p95", "value": 1}], "value": 1}, "body.value"),
        ],
    )
    async def test_names_the_field_that_is_wrong(self, api: httpx2.AsyncClient, body: Any, path: str) -> None:
        error = (await api.post(PLACE, json=body)).json()["error"]
        assert error["details"]["fields"][0]["path"] == path
        assert error["message"].startswith(f"{path}: ")
        assert len(error["details"]["fields"]) == (2 if body == {} else 1)

    async def test_takes_a_time_alone_and_among_many(self, api: httpx2.AsyncClient) -> None:
        sample = {"metric_id": "p95", "value": 1, "at": "2025-01-10T12:00:00Z"}
        for body in (sample, {"observations": [sample]}):
            assert (await api.post(PLACE, json=body)).status_code == 201
        items = (await api.get(PLACE)).json()["data"]["items"]
        assert [row["at"] for row in items] == ["2025-01-10T12:00:00Z"] * 2

    async def test_takes_a_thousand_and_no_more(self, api: httpx2.AsyncClient) -> None:
        sample = {"metric_id": "p95", "value": 1}
        assert (await api.post(PLACE, json={"observations": [sample] * 1000})).status_code == 201
        assert (await api.post(PLACE, json={"observations": [sample] * 1001})).status_code == 422

    async def test_all_or_none(self, api: httpx2.AsyncClient) -> None:
        samples: list[dict[str, Any]] = [{"metric_id": "p95", "value": 1}]
        samples.append({"metric_id": "p95", "value": 1, "mission_id": "mission_20250110_001"})
        assert refusal(await api.post(PLACE, json={"observations": samples})) == (404, "mission_not_found")
        assert (await api.get(PLACE)).json()["data"]["items"] == []

    async def test_agents_and_services_report_observers_do_not(self, client: Caller, team: Team) -> None:
        sample = {"metric_id": "p95", "value": 1}
        codes = [
            (await client(key).post(PLACE, json=sample)).status_code
            for key in (team.agent, team.service, team.observer)
        ]
        assert codes == [201, 201, 403]


def test_the_catalog_is_where_operators_look_for_it() -> None:
    assert (Path(__file__).parents[2] / "config/metrics_catalog.yaml").is_file()
