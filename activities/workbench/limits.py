"""The kernel's own limits on one command with all its children: control groups, where they are ours to make.

Version 1 is taken below our own group; version 2 beside it (a group that holds processes may not divide itself). Where
neither can be written, `watch.py` looks at the tree instead.
"""

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from activities.workbench.command import Limits, Stopped

LAUNCHER_TASKS = 8
"""What our own launcher adds to the count of processes."""

_RELEASE_SECONDS = 5.0


@dataclass(frozen=True)
class _Version:
    """Which files of a control group say what."""

    memory: str
    swap: str
    swap_with_memory: bool
    peak: str
    oom: str


_V1 = _Version(
    "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", True, "memory.max_usage_in_bytes", "memory.oom_control"
)
_V2 = _Version("memory.max", "memory.swap.max", False, "memory.peak", "memory.events")


@dataclass(frozen=True)
class Cage:
    """The control groups around one command. Without any, every answer is the empty one."""

    version: _Version = _V2
    memory: Path | None = None
    pids: Path | None = None

    @property
    def folders(self) -> tuple[Path, ...]:
        """The groups, each once (version 2 has one for both)."""
        return tuple(dict.fromkeys(group for group in (self.memory, self.pids) if group))

    @property
    def entrances(self) -> tuple[Path, ...]:
        """The files a process writes itself into before it becomes the command."""
        return tuple(group / "cgroup.procs" for group in self.folders)

    def limit(self, limits: Limits) -> None:
        """Set the ceilings; the groups must be empty of processes."""
        if self.memory:
            (self.memory / self.version.memory).write_text(str(limits.memory), encoding="utf-8")
            swap = self.memory / self.version.swap
            if swap.exists():
                swap.write_text(str(limits.memory if self.version.swap_with_memory else 0), encoding="utf-8")
        if self.pids:
            (self.pids / "pids.max").write_text(str(limits.processes + LAUNCHER_TASKS), encoding="utf-8")

    def hit(self) -> Stopped | None:
        """Which ceiling the command has run into, as the kernel counted it."""
        if self.memory and _counter(self.memory / self.version.oom, "oom_kill"):
            return Stopped.MEMORY
        if self.pids and _counter(self.pids / "pids.events", "max"):
            return Stopped.PROCESSES
        return None

    def peak(self) -> int:
        """The most memory it held at one time, page cache included; 0 where the kernel does not say."""
        file = self.memory / self.version.peak if self.memory else None
        return int(file.read_text(encoding="utf-8")) if file and file.exists() else 0


@dataclass(frozen=True)
class ControlGroups:
    """Where on this host control groups may be made."""

    version: _Version = _V2
    places: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def detect(cls, proc: Path = Path("/proc/self")) -> "ControlGroups":
        """Find the writable places of the memory and pids controllers; finding none is an answer too."""
        mounts, own = _mounts(proc / "mountinfo"), _own_groups(proc / "cgroup")
        first = {name: _below(mounts[name], own[name]) for name in ("memory", "pids") if name in mounts and name in own}
        if first:
            return cls(_V1, {name: place for name, place in first.items() if os.access(place, os.W_OK)})
        unified = _unified(mounts, own)
        return cls(_V2, {"memory": unified, "pids": unified} if unified else {})

    def tried(self) -> "ControlGroups":
        """Make and limit a group once; where that fails after all, there are none for us."""
        name = f"mission-control-try-{os.getpid()}"
        try:
            cage = self.cage(name)
            cage.limit(Limits())
            for group in cage.folders:
                release(group)
        except OSError:
            return ControlGroups()
        return self

    def cage(self, name: str) -> Cage:
        """Make the groups called `name` anew, their counters at zero."""
        made = Cage(self.version, *(self.places[of] / name if of in self.places else None for of in ("memory", "pids")))
        for group in made.folders:
            release(group)
            group.mkdir()
        return made


def release(group: Path) -> None:
    """Kill whatever lives in a control group and remove it; gone already is fine."""
    deadline = time.monotonic() + _RELEASE_SECONDS
    while group.exists():
        for pid in (group / "cgroup.procs").read_text(encoding="utf-8").split():
            _kill(int(pid))
        try:
            group.rmdir()
        except OSError:
            # Busy until the kernel has put the last of the dead away.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _counter(file: Path, name: str) -> int:
    words = file.read_text(encoding="utf-8").split()
    return int(words[words.index(name) + 1]) if name in words else 0


def _mounts(mountinfo: Path) -> dict[str, tuple[str, Path]]:
    """Controller (or `cgroup2`) to the part of its hierarchy that is mounted, and where."""
    found: dict[str, tuple[str, Path]] = {}
    for line in mountinfo.read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        root, point = left.split(" ")[3:5]
        names = options.split(",") if kind == "cgroup" else ["cgroup2"] if kind == "cgroup2" else []
        found.update({name: (root, Path(point)) for name in names})
    return found


def _own_groups(cgroup: Path) -> dict[str, str]:
    """Controller (or `cgroup2`) to the group this process is in."""
    own: dict[str, str] = {}
    for line in cgroup.read_text(encoding="utf-8").splitlines():
        number, controllers, path = line.split(":", 2)
        own.update({name: path for name in (controllers.split(",") if number != "0" else ["cgroup2"])})
    return own


def _below(mount: tuple[str, Path], own: str) -> Path:
    """Our own group's folder; a container may have mounted only the part that begins there."""
    root, point = mount
    place = point / own.removeprefix(root).lstrip("/")
    return place if place.is_dir() else point


def _unified(mounts: Mapping[str, tuple[str, Path]], own: Mapping[str, str]) -> Path | None:
    """The version 2 group to make others in, if it hands on both controllers and is ours to write."""
    if "cgroup2" not in mounts or "cgroup2" not in own:
        return None
    here = _below(mounts["cgroup2"], own["cgroup2"])
    place = here if here == mounts["cgroup2"][1] else here.parent
    handed_on = (place / "cgroup.subtree_control").read_text(encoding="utf-8").split()
    usable = {"memory", "pids"} <= set(handed_on) and os.access(place / "cgroup.procs", os.W_OK)
    return place if usable else None
