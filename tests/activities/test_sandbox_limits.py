"""Where control groups are made, and what they say, for hosts of both versions."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest

from activities.workbench.command import Limits, Stopped
from activities.workbench.limits import LAUNCHER_TASKS, Cage, ControlGroups, release
from activities.workbench.slots import Slots
from tests.fixtures.waiting import eventually

LIMITS = Limits(memory=1000, processes=20)


def host(root: Path, mounts: list[str], own: str) -> Path:
    """A folder that reads like `/proc/self`; `mounts` are point, kind and options of each control group mount."""
    proc = root / "proc"
    proc.mkdir()
    lines = [f"1 1 0:1 / {root}{point} rw - {rest}\n" for point, _, rest in (mount.partition(" ") for mount in mounts)]
    (proc / "mountinfo").write_text("".join(lines))
    (proc / "cgroup").write_text(own)
    return proc


def unified(root: Path, group: str, subtree: str) -> Path:
    """A version 2 hierarchy in which we are in `group`, below a group that hands on `subtree`."""
    own = root / "cg" / group
    own.mkdir(parents=True)
    (own.parent / "cgroup.subtree_control").write_text(subtree)
    (own.parent / "cgroup.procs").touch()
    return host(root, ["/cg cgroup2 cgroup2 rw"], f"0::/{group}\n")


class TestVersionTwo:
    def test_makes_its_groups_beside_our_own(self, tmp_path: Path) -> None:
        groups = ControlGroups.detect(unified(tmp_path, "app.slice/worker", "cpu memory pids\n"))
        cage = groups.cage("slot")
        assert cage.folders == (tmp_path / "cg/app.slice/slot",)
        assert cage.entrances == (tmp_path / "cg/app.slice/slot/cgroup.procs",)

    def test_sets_limits_without_swap(self, tmp_path: Path) -> None:
        cage = ControlGroups.detect(unified(tmp_path, "app.slice/worker", "memory pids\n")).cage("slot")
        (group,) = cage.folders
        (group / "memory.swap.max").touch()
        cage.limit(LIMITS)
        assert (group / "memory.max").read_text() == "1000"
        assert (group / "memory.swap.max").read_text() == "0"
        assert (group / "pids.max").read_text() == str(20 + LAUNCHER_TASKS)

    @pytest.mark.parametrize(
        ("events", "pids", "expected"),
        [
            ("low 0\nmax 7\noom 1\noom_kill 1\n", "max 0\n", Stopped.MEMORY),
            ("low 0\nmax 7\noom 0\noom_kill 0\n", "max 3\n", Stopped.PROCESSES),
            ("low 0\nmax 7\noom 0\noom_kill 0\n", "max 0\n", None),
        ],
    )
    def test_reads_what_the_kernel_counted(
        self, tmp_path: Path, events: str, pids: str, expected: Stopped | None
    ) -> None:
        (tmp_path / "memory.events").write_text(events)
        (tmp_path / "pids.events").write_text(pids)
        (tmp_path / "memory.peak").write_text("4096\n")
        cage = Cage(memory=tmp_path, pids=tmp_path)
        assert cage.hit() is expected
        assert cage.peak() == 4096

    @pytest.mark.parametrize(("group", "subtree"), [("app.slice/worker", "cpu\n"), ("app.slice/worker", "\n")])
    def test_leaves_it_where_not_both_controllers_are_handed_on(self, tmp_path: Path, group: str, subtree: str) -> None:
        assert ControlGroups.detect(unified(tmp_path, group, subtree)).cage("slot") == Cage()

    def test_has_nothing_to_say_without_groups(self) -> None:
        assert (Cage().hit(), Cage().peak(), Cage().entrances) == (None, 0, ())


class TestRelease:
    async def test_holds_nobody_else_up(self, tmp_path: Path) -> None:
        """The kernel takes its time: the list of a group's processes is a pipe that only we, beside it, can end."""
        groups = ControlGroups(places={"memory": tmp_path})

        async def use() -> None:
            async with Slots(tmp_path).lease() as slot, slot.caged(groups, LIMITS) as cage:
                os.mkfifo(cage.folders[0] / "cgroup.procs")

        async def end() -> None:
            pipe = await eventually(lambda: opened(tmp_path))
            for file in tmp_path.glob("mission-control-*/*"):
                file.unlink()
            os.close(pipe)

        await asyncio.gather(use(), end())
        assert not list(tmp_path.glob("mission-control-*"))


async def opened(root: Path) -> int | None:
    """Open the pipe for writing, as soon as somebody reads it."""
    for pipe in root.glob("mission-control-*/cgroup.procs"):
        with suppress(OSError):
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    return None


class TestVersionOne:
    def test_makes_its_groups_below_our_own(self, tmp_path: Path) -> None:
        own = tmp_path / "memory/docker/abc"
        own.mkdir(parents=True)
        (tmp_path / "pids").mkdir()
        mounts = ["/memory cgroup cgroup rw,memory", "/pids cgroup cgroup rw,pids", "/cg cgroup2 cgroup2 rw"]
        proc = host(tmp_path, mounts, "8:pids:/elsewhere\n4:memory:/docker/abc\n0::/\n")
        assert ControlGroups.detect(proc).places == {"memory": own, "pids": tmp_path / "pids"}

    @pytest.mark.skipif(os.geteuid() != 0, reason="a normal user makes no groups here")
    def test_of_this_host_are_given_back(self) -> None:
        groups = ControlGroups.detect().tried()
        if not groups.places:
            pytest.skip("this host lets nobody make control groups")
        cage = groups.cage("mission-control-test")
        assert all(folder.is_dir() for folder in cage.folders)
        for folder in cage.folders:
            release(folder)
        assert not any(folder.exists() for folder in cage.folders)
