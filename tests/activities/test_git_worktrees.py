"""A mission's checkouts: right, apart from everything else, and gone without a trace."""

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

import psutil
import pytest

from activities.workbench.commits import Mission
from activities.workbench.git import GitError
from activities.workbench.origins import refusal
from activities.workbench.worktrees import Workbench
from models.domain.errors import StageFailed, WorkbenchLost
from tests.fixtures.git_repos import Repo
from tests.fixtures.workbenches import FILES, FIX, Bench, fetched, make_bench

OPEN = """
import asyncio, sys
from pathlib import Path
from activities.workbench.git import Git
from activities.workbench.mirrors import Mirror
from activities.workbench.worktrees import Workbench
from models.domain.repositories import RepositoryUrl
home, mirror, origin, root = map(Path, sys.argv[1:5])
git = Git(home)
bench = Workbench(root, Mirror(mirror, RepositoryUrl(str(origin), origin), git), git)
print("ready", flush=True)
asyncio.run(bench.open("base", sys.argv[6]) if sys.argv[5] == "open" else bench.close())
"""


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    return await fetched(tmp_path)


def files_of(path: Path) -> dict[str, str]:
    found = (file for file in path.rglob("*") if file.is_file() and ".git" not in file.relative_to(path).parts)
    return {str(file.relative_to(path)): file.read_text() for file in found}


def dig(folder: Path, levels: int) -> None:
    """Nest folders deeper than Python's recursion and the kernel's longest path go."""
    step = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("folder", dir_fd=step)
        deeper = os.open("folder", os.O_RDONLY, dir_fd=step)
        os.close(step)
        step = deeper
    os.close(step)


class TestOpen:
    async def test_checkout_at_the_commit(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        workbench = bench.workbench()
        trees = {"base": base, "patched": topic}
        opened = {name: await workbench.open(name, sha) for name, sha in trees.items()}
        assert files_of(opened["base"].path) == FILES
        assert files_of(opened["patched"].path) == {**FILES, **FIX}
        for name, sha in trees.items():
            assert Repo(opened[name].path).git("log", "--format=%H").decode().split() == [sha]

    async def test_used_again_until_another_commit_or_a_fresh_one_is_wanted(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        workbench = bench.workbench()
        tree = await workbench.open("patched", topic)
        (tree.path / "built").write_text("by setup")
        assert (await workbench.open("patched", topic)) == tree
        assert (tree.path / "built").exists()
        assert (await workbench.open("patched", topic, fresh=True)) == tree
        assert not (tree.path / "built").exists()
        await workbench.open("patched", base)
        assert files_of(tree.path) == FILES

    async def test_commit_that_is_not_here(self, bench: Bench) -> None:
        with pytest.raises(WorkbenchLost):
            await bench.workbench().open("base", "1" * 40)

    async def test_damaged_mirror_is_mended(self, bench: Bench) -> None:
        sha = bench.work.sha()
        for pack in (bench.mirror.path / "objects").rglob("*"):
            if pack.is_file() and not sha.endswith(pack.name):
                pack.chmod(0o600)
                pack.write_bytes(b"")
        tree = await bench.workbench().open("base", sha)
        assert files_of(tree.path) == FILES

    async def test_a_path_that_git_does_not_write_is_no_damage(self, bench: Bench) -> None:
        sha = bench.work.odd_branch("odd", "120000", ".gitmodules")
        await bench.mirror.fetch()
        before = set(bench.mirror.path.rglob("*"))
        with pytest.raises(StageFailed, match=r"\.gitmodules") as failed:
            await bench.workbench().open("base", sha)
        assert failed.value.code == "path_invalid"
        assert set(bench.mirror.path.rglob("*")) == before

    async def test_a_mirror_that_is_not_read_says_nothing_of_the_origin(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It goes right before it is read, and is whole again when it is looked at."""
        refs, real = bench.mirror.path / "refs", shutil.which("git")
        (program := bench.folder / "bin" / "git").parent.mkdir()
        program.write_text(f'#!/bin/sh\ncase "$*" in *" fetch "*) mv {refs} {refs}.gone;; esac\nexec {real} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")
        with pytest.raises(GitError, match="The mirror cannot be read") as failed:
            await bench.workbench().open("base", bench.work.sha())
        assert refusal(failed.value) is None

    async def test_missions_side_by_side(self, bench: Bench) -> None:
        sha = bench.work.sha()
        benches = [bench.workbench(Mission("acme", f"mission_20250110_{n:03d}")) for n in range(6)]
        trees = await asyncio.gather(*(workbench.open("base", sha) for workbench in benches))
        assert all(files_of(tree.path) == FILES for tree in trees)


class TestApart:
    async def test_no_file_is_shared_and_no_path_leads_out(self, bench: Bench) -> None:
        tree = await bench.workbench().open("base", bench.work.sha())
        inside = [path for path in tree.path.rglob("*") if path.is_file()]
        assert {path.stat().st_nlink for path in inside} == {1}
        assert not (tree.path / ".git" / "objects" / "info" / "alternates").exists()
        assert not [path for path in inside if str(bench.folder).encode() in path.read_bytes()]

    async def test_it_works_where_only_the_folder_is_seen(self, bench: Bench, tmp_path: Path) -> None:
        tree = await bench.workbench().open("base", bench.work.sha())
        moved = tmp_path / "elsewhere"
        shutil.copytree(tree.path, moved, symlinks=True)
        shutil.rmtree(bench.mirror.path)
        assert Repo(moved).git("status", "--porcelain") == b""
        Repo(moved).git("fsck")

    async def test_what_commands_did_to_git_is_never_run(self, bench: Bench, tmp_path: Path) -> None:
        base, topic = await bench.topic()
        workbench = bench.workbench()
        tree = await workbench.open("patched", topic)
        trace = tmp_path / "trace"
        config = tree.path / ".git" / "config"
        config.write_text(f"{config.read_text()}[core]\n\tfsmonitor = touch {trace}\n\tsshCommand = touch {trace}\n")
        await workbench.open("patched", topic)
        await workbench.open("patched", base)
        await workbench.close()
        assert not trace.exists()


class TestClose:
    async def test_nothing_is_left(self, bench: Bench) -> None:
        workbench = bench.workbench()
        await workbench.close()
        for name in ("base", "before", "patched"):
            await workbench.open(name, bench.work.sha())
        await workbench.close()
        await workbench.close()
        assert not list(workbench.root.parent.iterdir())

    async def test_whatever_commands_left(self, bench: Bench, tmp_path: Path) -> None:
        workbench = bench.workbench()
        tree = await workbench.open("base", bench.work.sha())
        (tmp_path / "precious").write_text("x")
        (tree.path / "link").symlink_to(tmp_path)
        (tree.path / "locked").mkdir()
        (tree.path / "locked" / "file").write_text("x")
        (tree.path / "locked").chmod(0o500)
        (tree.path / "new\nline").write_text("x")
        dig(tree.path, 1100)
        await workbench.close()
        assert not workbench.root.exists()
        assert (tmp_path / "precious").exists()

    @pytest.mark.parametrize("action", ["open", "close"])
    async def test_killed_anywhere(self, bench: Bench, action: str) -> None:
        """The delays walk the kill through the work; the next call finds no half-made checkout and leaves nothing."""
        sha = bench.work.commit({f"many/{n}.txt": f"{n}\n" * 20 for n in range(1000)})
        await bench.mirror.fetch()
        workbench = bench.workbench()
        arguments = (bench.git.home, bench.mirror.path, bench.work.path, workbench.root, action, sha)
        for step in range(4):
            if action == "close":
                await workbench.open("base", sha)
            worker = await asyncio.create_subprocess_exec(
                sys.executable, "-c", OPEN, *map(str, arguments), stdout=asyncio.subprocess.PIPE
            )
            assert worker.stdout
            await worker.stdout.readline()
            await asyncio.sleep(step * 0.03)
            _kill_all(worker.pid)
            await worker.wait()
            tree = await workbench.open("base", sha)
            assert len(files_of(tree.path)) == len(FILES) + 1000
            await workbench.close()
            assert not workbench.root.exists()


async def test_workbench_of_a_mirror_that_was_never_fetched(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    tree = await Workbench(tmp_path / "wb", bench.mirror, bench.git).open("base", bench.work.sha())
    assert files_of(tree.path) == FILES


def _kill_all(pid: int) -> None:
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in tree:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
