"""The mirror follows its origin, and comes back from anything a killed process leaves behind."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from activities.workbench.git import Git, GitError
from activities.workbench.mirrors import Mirror
from models.domain.errors import InvalidInput, NotFound, TooLarge, WorkbenchLost
from models.domain.repositories import RepositoryUrl
from tests.fixtures.git_repos import Repo, make_repo
from tests.fixtures.workbenches import Bench, damage, make_bench

FETCH = """
import asyncio, sys
from pathlib import Path
from activities.workbench.git import Git
from activities.workbench.mirrors import Mirror
from models.domain.repositories import RepositoryUrl
home, mirror, origin = map(Path, sys.argv[1:])
print("ready", flush=True)
asyncio.run(Mirror(mirror, RepositoryUrl(str(origin), origin), Git(home)).fetch())
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return make_bench(tmp_path)


class TestFetch:
    async def test_branches_come_move_and_go(self, bench: Bench) -> None:
        bench.work.branch("topic", {"x": "1\n"})
        await bench.mirror.fetch()
        assert await bench.mirror.head("topic") == bench.work.sha("topic")
        bench.work.git("branch", "-f", "topic", "main")
        await bench.mirror.fetch()
        assert await bench.mirror.head("topic") == bench.work.sha("main")
        bench.work.git("branch", "-D", "topic")
        bench.work.git("branch", "topic/sub")
        await bench.mirror.fetch()
        with pytest.raises(NotFound) as missing:
            await bench.mirror.head("topic")
        assert missing.value.code == "branch_not_found"

    async def test_moved_tags_are_followed(self, bench: Bench) -> None:
        bench.work.git("tag", "v1")
        await bench.mirror.fetch()
        sha = bench.work.commit({"x": "1\n"})
        bench.work.git("tag", "-f", "v1")
        await bench.mirror.fetch()
        assert await bench.mirror.resolve("v1") == sha

    async def test_many_at_once(self, bench: Bench) -> None:
        sha = bench.work.sha()
        mirrors = [Mirror(bench.mirror.path, bench.mirror.url, bench.git) for _ in range(8)]
        await asyncio.gather(*(mirror.fetch() for mirror in mirrors))
        assert await asyncio.gather(*(mirror.head("main") for mirror in mirrors)) == [sha] * 8

    async def test_empty_origin(self, bench: Bench, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        Repo(tmp_path / "empty").git("init", "-q", "--bare")
        mirror = Mirror(tmp_path / "m.git", RepositoryUrl(str(tmp_path / "empty"), tmp_path / "empty"), bench.git)
        await mirror.fetch()
        with pytest.raises(NotFound):
            await mirror.head("main")

    async def test_shallow_origin(self, bench: Bench, tmp_path: Path) -> None:
        sha = bench.work.commit({"x": "1\n"})
        shallow = tmp_path / "shallow"
        bench.work.git("clone", "-q", "--depth=1", f"file://{bench.work.path}", str(shallow))
        mirror = Mirror(tmp_path / "m.git", RepositoryUrl(str(shallow), shallow), bench.git)
        await mirror.fetch()
        assert await mirror.head("main") == sha

    async def test_origin_of_another_user(self, bench: Bench) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can give files away")
        for path in (bench.work.path, *bench.work.path.rglob("*")):
            os.chown(path, 65534, 65534)
        await bench.mirror.fetch()
        assert await bench.mirror.head("main")

    async def test_origin_gone(self, bench: Bench) -> None:
        await bench.mirror.fetch()
        kept = await bench.mirror.head("main")
        bench.work.path.rename(bench.work.path.with_name("moved"))
        with pytest.raises(GitError) as failed:
            await bench.mirror.fetch()
        assert str(bench.folder) not in failed.value.message + failed.value.stderr
        assert await bench.mirror.head("main") == kept

    async def test_closed_to_others(self, bench: Bench) -> None:
        await bench.mirror.fetch()
        assert bench.mirror.path.stat().st_mode & 0o077 == 0


class TestDamage:
    async def test_half_made(self, bench: Bench) -> None:
        bench.mirror.path.mkdir(parents=True)
        (bench.mirror.path / "HEAD").write_text("")
        (bench.mirror.path / "config").write_text("[core")
        await bench.mirror.fetch()
        assert await bench.mirror.head("main") == bench.work.sha()

    async def test_stale_locks_and_leftovers(self, bench: Bench) -> None:
        await bench.mirror.fetch()
        sha = bench.work.commit({"x": "1\n"})
        mirror = bench.mirror.path
        for stale in ("config.lock", "packed-refs.lock", "refs/remotes/origin/main.lock", "objects/pack/tmp_pack_x"):
            (mirror / stale).write_text("")
        for folder in ("objects/tmp_objdir-incoming-x", "fresh"):
            (mirror / folder).mkdir()
        await bench.mirror.fetch()
        assert await bench.mirror.head("main") == sha
        left = [path.name for path in mirror.rglob("*")]
        assert not [name for name in left if name.startswith(("tmp_", "fresh")) or name.endswith(".lock")]

    async def test_lost_objects(self, bench: Bench) -> None:
        await bench.mirror.fetch()
        sha = bench.work.commit({"x": "1\n"})
        shutil.rmtree(bench.mirror.path / "objects")
        (bench.mirror.path / "objects").mkdir()
        await bench.mirror.fetch()
        assert await bench.mirror.head("main") == sha
        assert not await bench.mirror.mend()

    async def test_mend_finds_what_a_fetch_does_not_need(self, bench: Bench) -> None:
        await bench.mirror.fetch()
        blob = bench.work.git("rev-parse", "HEAD:app.py").decode().strip()
        file = bench.mirror.path / "objects" / blob[:2] / blob[2:]
        file.chmod(0o600)
        file.write_bytes(b"")
        assert await bench.mirror.mend()
        assert await bench.mirror.read_file(bench.work.sha(), "app.py", 999)

    async def test_while_it_is_made_anew_no_branch_is_missed(self, bench: Bench) -> None:
        await bench.mirror.fetch()
        (bench.mirror.path / "packed-refs").write_text("damaged\n")
        mending, missed = asyncio.ensure_future(bench.mirror.mend()), 0
        while not mending.done():
            try:
                await bench.mirror.head("main")
            except NotFound:
                missed += 1
            except GitError:
                pass  # for a moment there is no mirror at all; a stage asks again then
        assert (await mending, missed) == (True, 0)

    @pytest.mark.parametrize("packed", [False, True])
    async def test_content_that_git_dislikes_is_no_damage(self, bench: Bench, packed: bool) -> None:
        bench.work.odd_branch("odd", "120000", ".gitmodules")
        await bench.mirror.fetch()
        if packed:
            await bench.mirror.git("gc", "--quiet")
        assert not await bench.mirror.mend()
        damaged = max((bench.mirror.path / "objects").rglob("*.pack" if packed else "??/*"), key=size)
        damaged.chmod(0o600)
        damaged.write_bytes(damaged.read_bytes()[:-30] + b"x" * 30)
        assert await bench.mirror.mend()
        assert not await bench.mirror.mend()

    async def test_a_full_disk_is_no_damage(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fetch_often() -> None:
            for _ in range(200):  # a git that is very quick has written all before its limit is set
                await bench.mirror.fetch()

        await bench.mirror.fetch()
        with monkeypatch.context() as full:
            full.setattr("activities.workbench.git._MAX_FILE", 0)
            with pytest.raises(GitError):
                await fetch_often()
        assert await bench.mirror.contains(bench.work.sha(), bench.work.sha())

    async def test_while_it_is_made_anew_everything_is_read(self, bench: Bench) -> None:
        bench.work.branch("topic/deep", {f"{n}.txt": f"{n}\n" for n in range(50)})
        damaged = bench.work.git("rev-parse", "topic/deep:7.txt").decode().strip()
        await bench.mirror.fetch()
        sha = bench.work.commit({"x": "1\n"})
        await bench.mirror.fetch()
        for _ in range(3):
            damage(bench, damaged)
            mending = asyncio.ensure_future(bench.mirror.mend())
            while not mending.done():
                assert await bench.mirror.head("main") == sha
                assert await bench.mirror.contains(sha, f"{sha}~1")
                assert await bench.mirror.read_file(sha, "app.py", 999)
            assert await mending
        assert not await bench.mirror.mend()

    async def test_an_origin_that_is_away_takes_nothing_from_a_damaged_mirror(self, bench: Bench) -> None:
        await bench.mirror.fetch()
        sha = bench.work.sha()
        damage(bench, bench.work.sha("HEAD:app.py"))
        bench.work.path.rename(bench.work.path.with_name("moved"))
        with pytest.raises(GitError):
            await bench.mirror.mend()
        assert await bench.mirror.read_file(sha, "lib/util.py", 999)
        assert not (bench.mirror.path / "fresh").exists()

    async def test_lost_mission_commit_is_named(self, bench: Bench) -> None:
        _, sha = await bench.topic()
        shutil.rmtree(bench.mirror.path)
        await bench.mirror.fetch()
        with pytest.raises(WorkbenchLost) as lost:
            await bench.mirror.require(sha)
        assert lost.value.code == "commit_lost"

    @pytest.mark.parametrize("whole_group", [False, True], ids=["worker", "everything"])
    async def test_killed_anywhere(self, bench: Bench, whole_group: bool) -> None:
        """The delays walk the kill through the fetch; whatever it hits, the next fetch is right."""
        bench.work.commit({f"many/{n}.txt": f"{n}\n" * 50 for n in range(2000)})
        for step in range(5):
            shutil.rmtree(bench.mirror.path, ignore_errors=True)
            arguments = (str(bench.git.home), str(bench.mirror.path), str(bench.work.path))
            worker = await asyncio.create_subprocess_exec(
                sys.executable, "-c", FETCH, *arguments, stdout=asyncio.subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            assert worker.stdout
            await worker.stdout.readline()
            await asyncio.sleep(step * 0.03)
            children = _children(worker.pid) if whole_group else []
            for pid in (worker.pid, *children):
                _kill(pid)
            await worker.wait()
            await bench.mirror.fetch()
            assert await bench.mirror.head("main") == bench.work.sha()
            assert not await bench.mirror.mend()


class TestReading:
    async def test_read_file(self, bench: Bench) -> None:
        (bench.work.path / "link").symlink_to("app.py")
        sha = bench.work.commit({"with space/ü": b"\xff\n"})
        await bench.mirror.fetch()
        assert await bench.mirror.read_file(sha, "with space/ü", 2) == b"\xff\n"
        assert await bench.mirror.read_file(sha, "missing", 2) is None
        with pytest.raises(TooLarge):
            await bench.mirror.read_file(sha, "with space/ü", 1)
        for path in ("link", "lib"):
            with pytest.raises(InvalidInput) as refused:
                await bench.mirror.read_file(sha, path, 999)
            assert refused.value.code == "file_not_regular"

    async def test_diff_and_changes(self, bench: Bench) -> None:
        base = bench.work.sha()
        head = bench.work.commit({"app.py": "x = 1\n", "logo.png": b"\0"})
        await bench.mirror.fetch()
        diff = await bench.mirror.diff(base, head)
        assert b"+x = 1\n" in diff
        assert b"Binary files" in diff
        assert (await bench.mirror.changed_files(base, head)).paths == ("app.py", "logo.png")

    @pytest.mark.parametrize("name", ["-x", "a..b", "main:app.py", "--upload-pack=x"])
    async def test_names_that_are_more_than_names(self, bench: Bench, name: str) -> None:
        await bench.mirror.fetch()
        with pytest.raises(InvalidInput):
            await bench.mirror.resolve(name)
        with pytest.raises(InvalidInput):
            await bench.mirror.head(name)

    async def test_contains(self, bench: Bench) -> None:
        base = bench.work.sha()
        head = bench.work.commit({"x": "1\n"})
        await bench.mirror.fetch()
        assert await bench.mirror.contains(head, base)
        assert not await bench.mirror.contains(base, head)
        assert not await bench.mirror.contains(head, "1" * 40)


def size(file: Path) -> int:
    return file.stat().st_size


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


async def test_what_a_mission_starts_from_is_let_go(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "origin")
    mirror = Mirror(tmp_path / "mirror", RepositoryUrl(str(repo.path), repo.path), Git(tmp_path / "home"))
    await mirror.forget("default", "m1")
    await mirror.fetch()
    for mission in ("m1", "m2"):
        await mirror.keep("default", mission, repo.sha())
    for _ in range(2):
        await mirror.forget("default", "m1")
    refs = (await mirror.git("for-each-ref", "--format=%(refname)", "refs/mission-control")).text
    assert refs == f"refs/mission-control/default/m2/{repo.sha()}"
