"""The mirror of the audit log's checkpoints, in a real git repository."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from base64 import b64encode
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from activities.mirroring import AuditMirror
from activities.sealing import Sealer
from activities.workbench.git import Git, GitError
from activities.workbench.signing import ServiceKey
from models.domain.errors import Conflict
from models.settings import Settings
from models.store import audit_tree
from models.store.database import Database
from tests.activities.test_origins import Hosting, hosting
from tests.fixtures.api import Team, db, settings, team
from tests.fixtures.audit import act, as_superuser, exported, fresh_log, judged, key, new_key
from tests.fixtures.git_repos import Repo, make_repo
from tests.fixtures.waiting import eventually

__all__ = ["db", "fresh_log", "hosting", "key", "settings", "team"]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Repo:
    """An empty repository on another machine, as it were."""
    path = tmp_path / "elsewhere.git"
    subprocess.run(["git", "init", "-q", "--bare", str(path)], check=True)
    return Repo(path)


@pytest.fixture
def mirror(db: Database, settings: Settings, elsewhere: Repo) -> AuditMirror:
    return mirror_to(db, settings, str(elsewhere.path))


def mirror_to(db: Database, settings: Settings, url: str, place: str = "audit-mirror") -> AuditMirror:
    return AuditMirror(db, Git(settings.data_dir / "git-home"), url, settings.data_dir / place)


async def grow(db: Database, key: ServiceKey, team: Team, checkpoints: int) -> None:
    for _ in range(checkpoints):
        await act(db, team.workspace_id, 3)
        await Sealer(db, key).seal()


async def mirrored(db: Database) -> int:
    async with db.system() as session:
        return (await audit_tree.standing(session)).mirrored


def notes(elsewhere: Repo) -> list[str]:
    """The checkpoints of all commits, the oldest first."""
    commits = elsewhere.git("rev-list", "--reverse", "main").decode().split()
    return [elsewhere.git("cat-file", "blob", f"{commit}:checkpoint").decode() for commit in commits]


async def test_each_checkpoint_becomes_a_commit(
    mirror: AuditMirror, db: Database, key: ServiceKey, team: Team, elsewhere: Repo
) -> None:
    assert await mirror.push() == 0
    for count in (1, 3, 0, 2):
        await grow(db, key, team, count)
        assert await mirror.push() == count
    async with db.system() as session:
        signed = await audit_tree.checkpoints_after(session, 0, 100)
    assert notes(elsewhere) == [one.note for one in signed]
    assert elsewhere.git("log", "-1", "--format=%s", "main").decode() == "Checkpoint 18\n"
    assert await mirrored(db) == 18


async def test_a_log_that_was_written_anew_does_not_get_into_the_mirror(
    mirror: AuditMirror, db: Database, key: ServiceKey, team: Team, elsewhere: Repo, tmp_path: Path, database_url: str
) -> None:
    """Its rows are others, and sealed anew with another key; only the checkpoint that the mirror has was put back."""
    await grow(db, key, team, 2)
    await mirror.push()
    had = notes(elsewhere)
    as_superuser(database_url, "CREATE TABLE put_aside AS SELECT * FROM audit_checkpoint")
    as_superuser(database_url, "TRUNCATE audit_checkpoint, audit_leaf, audit_node, audit_workspace")
    as_superuser(database_url, "UPDATE audit SET actor = 'mallory'")
    await grow(db, new_key(tmp_path, "mallory"), team, 1)
    as_superuser(database_url, "INSERT INTO audit_checkpoint SELECT * FROM put_aside; DROP TABLE put_aside")
    with pytest.raises(Conflict, match="does not begin with the checkpoint 6 that was signed"):
        await mirror.push()
    assert notes(elsewhere) == had


OF_ANOTHER = "UPDATE audit_checkpoint SET note = (SELECT note FROM audit_checkpoint WHERE size = 3) WHERE size = 9"
NO_NOTE = "UPDATE audit_checkpoint SET note = 'none' WHERE size = 9"


@pytest.mark.parametrize("done", [OF_ANOTHER, NO_NOTE], ids=["of another", "none"])
async def test_nor_a_note_that_is_not_of_the_tree(
    mirror: AuditMirror, db: Database, key: ServiceKey, team: Team, elsewhere: Repo, database_url: str, done: str
) -> None:
    await grow(db, key, team, 1)
    await mirror.push()
    await grow(db, key, team, 3)
    as_superuser(database_url, done)
    with pytest.raises(Conflict, match="not that of its checkpoint 9"):
        await mirror.push()
    assert len(notes(elsewhere)) == 1


async def test_whoever_pushes_makes_the_same_commits(
    mirror: AuditMirror, db: Database, key: ServiceKey, team: Team, settings: Settings, elsewhere: Repo
) -> None:
    other = mirror_to(db, settings, str(elsewhere.path), "another host")
    await grow(db, key, team, 2)
    await mirror.push()
    await grow(db, key, team, 2)
    assert await other.push() == 2
    await grow(db, key, team, 1)
    assert await mirror.push() == 1
    assert len(notes(elsewhere)) == 5


async def test_no_database_says_that_the_mirror_has_all(
    mirror: AuditMirror, db: Database, key: ServiceKey, team: Team, elsewhere: Repo, database_url: str
) -> None:
    await grow(db, key, team, 1)
    await mirror.push()
    await grow(db, key, team, 2)
    as_superuser(database_url, "INSERT INTO audit_mirrored (size) SELECT size FROM audit_checkpoint WHERE size > 3")
    assert await mirror.push() == 2
    assert len(notes(elsewhere)) == 3


async def test_workers_of_one_host_push_each_checkpoint_once(
    db: Database, key: ServiceKey, team: Team, settings: Settings, elsewhere: Repo
) -> None:
    workers = [mirror_to(db, settings, str(elsewhere.path)) for _ in range(4)]
    await grow(db, key, team, 3)
    assert sorted(await asyncio.gather(*(worker.push() for worker in workers))) == [0, 0, 0, 3]


async def test_what_died_after_the_push_finds_it_done(
    mirror: AuditMirror, db: Database, key: ServiceKey, team: Team, elsewhere: Repo, database_url: str
) -> None:
    await grow(db, key, team, 2)
    await mirror.push()
    as_superuser(database_url, "DELETE FROM audit_mirrored")
    assert await mirror.push() == 0
    assert await mirrored(db) == 6
    assert len(notes(elsewhere)) == 2


async def test_a_mirror_that_cannot_be_reached_is_an_error_and_sealing_goes_on(
    mirror: AuditMirror, db: Database, key: ServiceKey, team: Team, elsewhere: Repo
) -> None:
    away = elsewhere.path.rename(elsewhere.path.with_name("away"))
    await grow(db, key, team, 2)
    with pytest.raises(GitError):
        await mirror.push()
    await grow(db, key, team, 1)
    assert await mirrored(db) == 0
    away.rename(elsewhere.path)
    assert await mirror.push() == 3
    assert await mirrored(db) == 9


async def test_a_dropped_tail_is_seen_by_the_mirror_and_by_who_has_it(
    mirror: AuditMirror, db: Database, key: ServiceKey, team: Team, elsewhere: Repo, database_url: str
) -> None:
    await grow(db, key, team, 5)
    await mirror.push()
    as_superuser(
        database_url,
        "DELETE FROM audit WHERE id IN (SELECT id FROM audit_leaf WHERE tree_index >= 9);"
        " DELETE FROM audit_leaf WHERE tree_index >= 9; DELETE FROM audit_checkpoint WHERE size > 9;"
        " DELETE FROM audit_mirrored",
    )
    lines = await exported(db, team.workspace_id)
    assert judged(lines, key).is_good
    problem = judged(lines, key, kept=notes(elsewhere)[-1]).problem
    assert problem
    assert (problem.code, problem.between) == ("kept_checkpoint", (9, 15))
    before = notes(elsewhere)
    await grow(db, key, team, 3)
    with pytest.raises(Conflict, match="none of this log"):
        await mirror.push()
    assert notes(elsewhere) == before
    problem = judged(await exported(db, team.workspace_id), key, kept=before[-1]).problem
    assert problem
    assert problem.code == "kept_checkpoint"


async def test_another_repository_is_left_alone(
    db: Database, settings: Settings, key: ServiceKey, team: Team, elsewhere: Repo, tmp_path: Path
) -> None:
    work = make_repo(tmp_path / "work", {"README": "code"})
    work.git("push", "-q", str(elsewhere.path), "main")
    await grow(db, key, team, 1)
    with pytest.raises(Conflict, match="none of this log"):
        await mirror_to(db, settings, str(elsewhere.path)).push()
    assert elsewhere.sha("main") == work.sha()


class TestWhatAKilledOneLeaves:
    async def test_locks_of_git_are_taken_away(
        self, mirror: AuditMirror, db: Database, key: ServiceKey, team: Team, settings: Settings, elsewhere: Repo
    ) -> None:
        await grow(db, key, team, 1)
        await mirror.push()
        copy = settings.data_dir / "audit-mirror"
        for name in ("config", "HEAD", "shallow", "packed-refs", "refs/heads/main", "objects/maintenance"):
            (copy / f"{name}.lock").write_text("")
        (copy / "objects" / "pack" / "tmp_pack_x").write_text("")
        await grow(db, key, team, 1)
        assert await mirror.push() == 1
        assert len(notes(elsewhere)) == 2
        assert [path for path in copy.rglob("*") if path.suffix == ".lock" or path.name.startswith("tmp_")] == []

    @pytest.mark.parametrize("damage", ["config", "HEAD", "refs/heads/main", "objects"])
    async def test_a_damaged_copy_is_made_anew(
        self,
        mirror: AuditMirror,
        db: Database,
        key: ServiceKey,
        team: Team,
        settings: Settings,
        elsewhere: Repo,
        damage: str,
    ) -> None:
        await grow(db, key, team, 2)
        await mirror.push()
        copy = settings.data_dir / "audit-mirror"
        if damage == "objects":
            shutil.rmtree(copy / damage)
        else:
            (copy / damage).write_text("half of a li")
        await grow(db, key, team, 1)
        assert await mirror.push() == 1
        assert len(notes(elsewhere)) == 3

    @pytest.mark.timeout(180)
    @pytest.mark.parametrize("whole_group", [False, True], ids=["worker", "everything"])
    async def test_killed_anywhere_the_next_one_brings_the_rest(
        self,
        db: Database,
        key: ServiceKey,
        team: Team,
        settings: Settings,
        elsewhere: Repo,
        database_url: str,
        whole_group: bool,
    ) -> None:
        """The delays walk the kill through the push, while another worker of the host waits for its turn."""
        copy = settings.data_dir / "audit-mirror"
        for step in range(8):
            await grow(db, key, team, 2)
            doomed = await pushing(database_url, settings.data_dir, elsewhere, copy)
            await asyncio.sleep(step * 0.06)
            other = asyncio.create_task(mirror_to(db, settings, str(elsewhere.path)).push())
            await asyncio.sleep(0)
            for pid in (doomed.pid, *(children_of(doomed.pid) if whole_group else [])):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await doomed.wait()
            with suppress(GitError):  # the mirror's own lock, which is its owner's to take away
                await other
            (elsewhere.path / "refs/heads/main.lock").unlink(missing_ok=True)
            await mirror_to(db, settings, str(elsewhere.path)).push()
            async with db.system() as session:
                signed = await audit_tree.checkpoints_after(session, 0, 100)
            assert notes(elsewhere) == [one.note for one in signed]
            assert await mirrored(db) == signed[-1].size


PUSH = """
import asyncio, sys
from pathlib import Path
from activities.mirroring import AuditMirror
from activities.workbench.git import Git
from models.settings import Settings
from models.store.database import Database

async def main(home, url, place):
    mirror = AuditMirror(Database.from_settings(Settings()), Git(Path(home)), url, Path(place))
    print("begins", flush=True)
    await mirror.push()

asyncio.run(main(*sys.argv[1:]))
"""


async def pushing(url: str, home: Path, elsewhere: Repo, copy: Path) -> asyncio.subprocess.Process:
    """Start a worker's push as a process of its own."""
    words = (sys.executable, "-c", PUSH, str(home / "git-home"), str(elsewhere.path), str(copy))
    environment = {**os.environ, "DATABASE_URL": url}
    process = await asyncio.create_subprocess_exec(*words, env=environment, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    assert await process.stdout.readline() == b"begins\n"
    return process


def children_of(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


async def test_it_follows_by_itself(
    mirror: AuditMirror, db: Database, key: ServiceKey, team: Team, elsewhere: Repo
) -> None:
    await grow(db, key, team, 2)
    running = asyncio.create_task(mirror.run())
    await eventually(lambda: _reached(db, 6))
    await grow(db, key, team, 1)
    await eventually(lambda: _reached(db, 9))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(notes(elsewhere)) == 3


async def _reached(db: Database, size: int) -> bool:
    return await mirrored(db) == size


async def test_no_command_shows_its_login(
    db: Database, settings: Settings, key: ServiceKey, team: Team, hosting: str
) -> None:
    Hosting.logins.clear()
    Hosting.commands.clear()
    url = f"{hosting}/404/mirror.git".replace("https://", "https://bob:s%40cret@")
    with pytest.raises(GitError):
        await mirror_to(db, settings, url).push()
    assert set(Hosting.logins) == {"Basic " + b64encode(b"bob:s@cret").decode()}
    assert "git-remote-https" in " ".join(Hosting.commands)
    assert not any("cret" in command for command in Hosting.commands)
