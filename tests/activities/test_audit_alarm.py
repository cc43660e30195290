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
from models.store import alerts, audit_tree
from models.store.database import Database
from models.store.keys import DEFAULT_WORKSPACE
from tests.fixtures.access import make_workspace
from tests.fixtures.api import Team, db, settings, team
from tests.fixtures.audit import act, as_superuser, exported, fresh_log, judged, key
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


STOPPING = {
    "all checkpoints deleted": ("DELETE FROM audit_checkpoint", "leaves_changed"),
    "the last one deleted": ("DELETE FROM audit_checkpoint WHERE {last}", "leaves_changed"),
    "its note garbled": ("UPDATE audit_checkpoint SET note = note || 'x' WHERE {last}", "checkpoint_malformed"),
    "its note's counts garbled": (
        "UPDATE audit_checkpoint SET note = replace(note, 'workspaces ', 'workspaces x') WHERE {last}",
        "checkpoint_unsigned",
    ),
    "its place moved down": ("UPDATE audit_checkpoint SET id = id - 1 WHERE {last}", "order"),
    "its place moved up": ("UPDATE audit_checkpoint SET xid = '9000000000000000000' WHERE {last}", "row_inserted"),
    "its place moved to the newest row": (
        "UPDATE audit_checkpoint SET (epoch, xid, id) = (SELECT epoch, xid, id FROM audit WHERE {newest}) WHERE {last}",
        "row_inserted",
    ),
    "its place and its last row's moved behind all to come": (
        "UPDATE audit_checkpoint SET epoch = epoch + 1 WHERE {last}; UPDATE audit SET epoch = epoch + 1 WHERE {sealed}",
        "row_changed",
    ),
    "its last row deleted": ("DELETE FROM audit WHERE {sealed}", "row_deleted"),
    "a leaf given to a row that waits": (
        "UPDATE audit_leaf SET id = (SELECT id FROM audit WHERE {newest}) WHERE {early}",
        "row_changed",
    ),
}
"""What a superuser does to a log with rows that wait; what its export is found to have then."""
PLACES = {
    "last": "size = (SELECT max(size) FROM audit_checkpoint)",
    "sealed": "id = (SELECT id FROM audit_leaf ORDER BY tree_index DESC LIMIT 1)",
    "newest": "id = (SELECT max(id) FROM audit)",
    "early": "tree_index = (SELECT max(tree_index) - 5 FROM audit_leaf)",
}


@pytest.mark.parametrize("done", STOPPING)
async def test_what_stops_sealing_for_good(
    db: Database, key: ServiceKey, team: Team, settings: Settings, database_url: str, done: str
) -> None:
    statement, code = STOPPING[done]
    for _ in range(3):
        await act(db, team.workspace_id, 3)
        await Sealer(db, key).seal()
    await act(db, team.workspace_id, 3)
    as_superuser(database_url, statement.format(**PLACES))
    async with going(Sealer(db, key).run()):
        await eventually(lambda: is_told(db, "sealer: audit_tree_broken"), seconds=10)
    assert "audit tree" in (await audit_health(settings)).trouble
    problem = judged(await exported(db, team.workspace_id), key).problem
    assert problem
    assert problem.code == code


MOVES_ROWS = "its place and its last row's moved behind all to come"


@pytest.mark.parametrize("done", [done for done in STOPPING if done != MOVES_ROWS])
async def test_the_delay_grows_whatever_stops_it(
    db: Database, key: ServiceKey, team: Team, database_url: str, done: str
) -> None:
    """It is the age of the oldest row behind the last leaf, whatever the checkpoints say."""
    for _ in range(3):
        await act(db, team.workspace_id, 3)
        await Sealer(db, key).seal()
    await act(db, team.workspace_id, 3)
    as_superuser(database_url, STOPPING[done][0].format(**PLACES))
    first = await delay(db)
    assert 0 < first < await delay(db)


async def delay(db: Database) -> float:
    async with db.system() as session:
        return (await audit_tree.standing(session)).unsealed_seconds


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


@pytest.mark.parametrize("kept", [b"\xff\x00", b"no checkpoint", b""])
async def test_what_was_remembered_and_cannot_be_read(
    db: Database, key: ServiceKey, team: Team, settings: Settings, kept: bytes
) -> None:
    """Else whoever reaches the file could stop sealing, and nobody would be told."""
    memory = settings.data_dir / "signed"
    memory.write_bytes(kept)
    await act(db, team.workspace_id, 4)
    async with going(Sealer(db, key, memory=memory).run()):
        await eventually(lambda: is_told(db, "sealer: audit_memory_unreadable"), seconds=10)
        memory.unlink()
        await until(lambda: memory.exists())
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
