"""Looks at a running command and says when it has had enough.

The kernel's own counts come first (`limits.Cage`). What it does not count for us is looked at from outside: time and
disk always, memory and processes where no control group could be made.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence

import psutil

from activities.workbench.command import Limits, Stopped
from activities.workbench.disk import DiskWatch
from activities.workbench.limits import LAUNCHER_TASKS, Cage
from activities.workbench.tree import Tree

TICK_SECONDS = 0.1

_GLANCES = 10
"""How often per tick the host's processes are counted."""


class Watch:
    """Judges one command against its limits. `peak_memory` is the most that was seen, in bytes."""

    def __init__(self, limits: Limits, cage: Cage, tree: Tree, disk: DiskWatch) -> None:
        self._limits, self._cage, self._tree, self._disk = limits, cage, tree, disk
        self._deadline = time.monotonic() + limits.seconds
        self._most_seen = 0

    @property
    def peak_memory(self) -> int:
        """As the kernel counted, else as we saw it."""
        return self._cage.peak() or self._most_seen

    async def until_stopped(self) -> Stopped:
        """Look again and again; return the first limit that is passed."""
        while True:
            stopped = self._passed() or (Stopped.DISK if await self._disk.is_full(self._tree) else None)
            if stopped is not None:
                return stopped
            await self._next_look()

    async def last_look(self) -> Stopped | None:
        """After the end: what the command ran into between two looks still counts."""
        return self._cage.hit() or (Stopped.DISK if await self._disk.has_grown_full(self._tree) else None)

    async def _next_look(self) -> None:
        """Wait for the next look. It comes sooner if the host's processes multiply and no kernel limit holds them."""
        if self._cage.pids is not None:
            await asyncio.sleep(TICK_SECONDS)
            return
        many = _processes_of_host() + self._limits.processes
        for _ in range(_GLANCES):
            await asyncio.sleep(TICK_SECONDS / _GLANCES)
            if _processes_of_host() > many:
                return

    def _passed(self) -> Stopped | None:
        if time.monotonic() > self._deadline:
            return Stopped.TIMEOUT
        if hit := self._cage.hit():
            return hit
        return self._tree_passed() if self._cage.memory is None or self._cage.pids is None else None

    def _tree_passed(self) -> Stopped | None:
        members = self._tree.members()
        if self._cage.pids is None and _tasks(members) > self._limits.processes + LAUNCHER_TASKS:
            return Stopped.PROCESSES
        if self._cage.memory is None and self._memory(members) > self._limits.memory:
            return Stopped.MEMORY
        return None

    def _memory(self, members: Sequence[psutil.Process]) -> int:
        """Resident bytes; counted fairly among those who share pages only when the plain sum is too much."""
        held = sum(_resident(member) for member in members)
        if held > self._limits.memory:
            held = sum(_proportional(member) for member in members)
        self._most_seen = max(self._most_seen, held)
        return held


def _processes_of_host() -> int:
    """How many processes there are: the kernel gives it as the link count of `/proc`, at no cost."""
    return os.stat("/proc").st_nlink


def _tasks(members: Sequence[psutil.Process]) -> int:
    return sum(_ask(member.num_threads) for member in members)


def _resident(member: psutil.Process) -> int:
    return _ask(lambda: member.memory_info().rss)


def _proportional(member: psutil.Process) -> int:
    return _ask(lambda: member.memory_full_info().pss) or _resident(member)


def _ask(question: Callable[[], int]) -> int:
    """Ask a process that may be gone by now, or closed to us; nothing then."""
    try:
        return int(question())
    except psutil.Error:
        return 0
