"""What contradicts the signed log is told to people: an alert, and a line of `doctor`."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from activities import mirroring, sealing
from activities.alarm import Alarm
from activities.mirroring import AuditMirror
from activities.sealing import Sealer
from activities.workbench.git import Git
from activities.workbench.signing import ServiceKey
from models.domain.alerts import AlertKind
from models.domain.errors import Conflict
from models.settings import Settings
from models.store import alerts
from models.store.database import Database
from models.store.keys import DEFAULT_WORKSPACE
from tests.fixtures.access import make_workspace
from tests.fixtures.api import Team, db, settings, team
from tests.fixtures.audit import act, as_superuser, fresh_log, key
from tests.fixtures.git_repos import Repo, make_repo
from tests.fixtures.waiting import eventually, until
from worker.dev.audit_health import audit_health

__all__ = ["db", "fresh_log", "key", "settings", "team"]


@pytest.fixture(autouse=True)
async def platform(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workspace of the platform's admins, where nothing is told yet; keepers that look often."""
    async with db.system() as session:
        await make_workspace(session, DEFAULT_WORKSPACE)
    for keeper in ("mirror", "sealer"):
        await Alarm(db, keeper).rest()
    for module in (mirroring, sealing):
        monkeypatch.setattr(module, "EVERY_SECONDS", 0.02)
        monkeypatch.setattr(module, "AGAIN_SECONDS", 0.02)


@asynccontextmanager
async def going(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let a keeper of the log work meanwhile."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def told(db: Database) -> list[str]:
    async with db.workspace(DEFAULT_WORKSPACE) as session:
        found = await alerts.standing(session, DEFAULT_WORKSPACE, AlertKind.LOG_TAMPERED)
        return [f"{alert.subject_id}: {alert.details['code']}" for alert in found]


def empty(elsewhere: Repo) -> Repo:
    """Make a repository without a commit."""
    elsewhere.path.mkdir()
    elsewhere.git("init", "-q", "--bare", "-b", "main")
    return elsewhere


async def test_a_mirror_that_has_another_log(
    db: Database, key: ServiceKey, team: Team, settings: Settings, tmp_path: Any
) -> None:
    elsewhere = Repo(tmp_path / "elsewhere.git")
    make_repo(tmp_path / "work", {"checkpoint": "another log's"}).git("clone", "-q", "--bare", ".", str(elsewhere.path))
    await act(db, team.workspace_id, 3)
    await Sealer(db, key).seal()
    mirror = AuditMirror(db, Git(settings.data_dir / "git-home"), str(elsewhere.path), settings.data_dir / "mirror")
    async with going(mirror.run()):
        await eventually(lambda: is_told(db, "mirror: audit_mirror_disagrees"))
        assert "none of this log" in (await audit_health(settings)).trouble
        shutil.rmtree(elsewhere.path)
        empty(elsewhere)
        await eventually(lambda: is_told(db))
    assert not (await audit_health(settings)).trouble


async def test_a_tree_that_is_not_that_of_its_checkpoint(
    db: Database, key: ServiceKey, team: Team, settings: Settings, database_url: str
) -> None:
    await act(db, team.workspace_id, 4)
    await Sealer(db, key).seal()
    as_superuser(database_url, "UPDATE audit_leaf SET leaf = sha256('forged') WHERE tree_index = 2")
    await act(db, team.workspace_id, 1)
    async with going(Sealer(db, key).run()):
        await eventually(lambda: is_told(db, "sealer: audit_tree_broken"))
        health = await audit_health(settings)
    assert (health.standing, "audit tree" in health.trouble) == ("4 rows sealed, no mirror set", True)


async def test_a_log_that_was_taken_back(
    db: Database, key: ServiceKey, team: Team, settings: Settings, database_url: str
) -> None:
    memory = settings.data_dir / "signed"
    await act(db, team.workspace_id, 4)
    await Sealer(db, key, memory=memory).seal()
    as_superuser(database_url, "TRUNCATE audit_checkpoint, audit_leaf, audit_node, audit_workspace")
    async with going(Sealer(db, key, memory=memory).run()):
        await eventually(lambda: is_told(db, "sealer: audit_taken_back"))
        assert "took it back" in (await audit_health(settings)).trouble
        memory.unlink()  # as who restored a dump does, see the runbook
        await eventually(lambda: is_told(db))


async def is_told(db: Database, *wanted: str) -> bool:
    return await told(db) == list(wanted)


async def test_who_has_not_looked_calls_nothing_off(
    db: Database, key: ServiceKey, team: Team, database_url: str
) -> None:
    """Two sealers have turns, and the one whose turn it is not sees nothing."""
    await act(db, team.workspace_id, 4)
    await Sealer(db, key).seal()
    as_superuser(database_url, "UPDATE audit_leaf SET leaf = sha256('forged') WHERE tree_index = 2")
    await act(db, team.workspace_id, 1)
    async with going(Sealer(db, key).run()), going(Sealer(db, key).run()):
        await eventually(lambda: is_told(db, "sealer: audit_tree_broken"))
        async with db.workspace(DEFAULT_WORKSPACE) as session:
            [alert] = await alerts.standing(session, DEFAULT_WORKSPACE, AlertKind.LOG_TAMPERED)
        for _ in range(20):
            await asyncio.sleep(0.02)
            assert await is_told(db, "sealer: audit_tree_broken")
        async with db.workspace(DEFAULT_WORKSPACE) as session:
            [same] = await alerts.standing(session, DEFAULT_WORKSPACE, AlertKind.LOG_TAMPERED)
    assert same.alert_id == alert.alert_id


class Watched(AuditMirror):
    """A mirror of which is known how often it has looked."""

    looks = 0

    async def push(self) -> int:
        self.looks += 1
        return await super().push()


async def test_a_mirror_that_brought_nothing_calls_nothing_off(
    db: Database, key: ServiceKey, team: Team, settings: Settings, tmp_path: Path
) -> None:
    """Where all is mirrored nobody looks at it, and another worker may have."""
    elsewhere = empty(Repo(tmp_path / "elsewhere.git"))
    await act(db, team.workspace_id, 3)
    await Sealer(db, key).seal()
    git, place = Git(settings.data_dir / "git-home"), settings.data_dir / "mirror"
    mirror = Watched(db, git, str(elsewhere.path), place)
    await mirror.push()
    await Alarm(db, "mirror").ring(Conflict("audit_mirror_disagrees", "it has another log"))
    async with going(mirror.run()):
        await until(lambda: mirror.looks > 2)
        assert await is_told(db, "mirror: audit_mirror_disagrees")
        await act(db, team.workspace_id, 3)
        await Sealer(db, key).seal()
        await eventually(lambda: is_told(db))
