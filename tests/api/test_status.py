"""The whole system at a glance."""

from pathlib import Path

import httpx2
import pytest
from sqlalchemy import text

from api.app import create_app
from models.domain.health import Health, Overall, overall
from models.settings import Settings
from models.store.database import Database
from tests.fixtures.api import Team, running
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, repo

__all__ = ["repo"]

SEED_KEYS = {
    "git_sha",
    "git_branch",
    "grace_version",
    "environment",
    "total_missions",
    "open_missions",
    "in_progress_missions",
    "resolved_missions",
    "subsystems",
    "overall_health",
}


async def test_has_the_ten_keys_and_true_counts(api: httpx2.AsyncClient, repo: Repo, db: Database, team: Team) -> None:
    missions = [await filed(api, repo) for _ in range(3)]
    await api.post(f"{missions[0]['links']['self']}/cancel", json={})
    found = (await api.get("/api/v1/status")).json()["data"]
    assert set(found) >= SEED_KEYS
    assert found["version"] == found["grace_version"]
    assert (found["caller"]["name"], found["caller"]["role"]) == ("admin", "admin")
    rotated = await api.post(f"/api/v1/keys/{found['caller']['key_id']}/rotate", json={})
    assert rotated.status_code == 201
    async with db.workspace(team.workspace_id) as session:
        [row] = await session.execute(
            text(
                "SELECT count(*), count(*) FILTER (WHERE status = 'open'),"
                " count(*) FILTER (WHERE status = 'escalated') FROM mission"
            )
        )
    assert (found["total_missions"], found["open_missions"], found["escalated_missions"]) == tuple(row) == (3, 2, 1)


async def test_says_what_is_away(api: httpx2.AsyncClient) -> None:
    found = (await api.get("/api/v1/status")).json()["data"]
    states = {part["id"]: part["state"] for part in found["subsystems"]}
    assert states == {
        "api": "healthy",
        "database": "healthy",
        "temporal": "down",
        "worker": "unknown",
        "configuration": "healthy",
    }
    assert found["overall_health"] == "critical"


async def test_the_configurations_hash_follows_its_values(settings: Settings, team: Team, tmp_path: Path) -> None:
    file = tmp_path / "config" / "metrics_catalog.yaml"
    file.parent.mkdir()
    edited = settings.model_copy(update={"config_dir": file.parent})
    app = create_app(edited)
    headers = {"X-API-Key": team.observer}
    seen = []
    async with (
        running(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test", headers=headers) as client,
    ):
        for content in (
            "metrics: {p95: {target: 1, comparator: '<', unit: ms}}",
            "metrics:\n  p95: {comparator: <, unit: ms, target: 1}",
            "metrics: {p95: {target: 2, comparator: '<', unit: ms}}",
            "metrics: {p95: {target: soon}}",
        ):
            file.write_text(content)
            seen.append((await client.get("/api/v1/status")).json()["data"])
        broken = await client.get("/api/v1/metrics")
    hashes = [found["config_hash"] for found in seen]
    assert hashes[0] == hashes[1] != hashes[2]
    assert hashes[0].startswith("sha256:")
    parts = {part["id"]: part for part in seen[3]["subsystems"]}
    assert parts["configuration"]["state"] == "degraded"
    assert "p95" in parts["configuration"]["detail"]
    assert (broken.status_code, broken.json()["error"]["code"]) == (503, "config_invalid")


async def test_names_the_commit_that_was_built(settings: Settings, team: Team) -> None:
    built = settings.model_copy(update={"git_sha": "a" * 40, "git_branch": "main"})
    app = create_app(built)
    async with (
        running(app),
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://test", headers={"X-API-Key": team.observer}
        ) as client,
    ):
        found = (await client.get("/api/v1/status")).json()["data"]
    assert (found["git_sha"], found["git_branch"]) == ("a" * 12, "main")


@pytest.mark.parametrize(
    ("parts", "judged"),
    [
        ([(Health.HEALTHY, True), (Health.UNKNOWN, True)], Overall.HEALTHY),
        ([(Health.DEGRADED, True)], Overall.DEGRADED),
        ([(Health.DOWN, False), (Health.HEALTHY, True)], Overall.DEGRADED),
        ([(Health.DOWN, True), (Health.DEGRADED, False)], Overall.CRITICAL),
        ([], Overall.HEALTHY),
    ],
)
def test_the_whole_is_as_well_as_its_parts(parts: list[tuple[Health, bool]], judged: Overall) -> None:
    assert overall(parts) is judged
