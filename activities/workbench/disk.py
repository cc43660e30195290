"""How much a command has written: in its folders, in files it deleted but keeps open, and in its folders in memory."""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from activities.workbench.tree import CHUNK, Tree
from activities.workbench.view import SCRATCH_FOLDERS

BYTES, ENTRIES = "--block-size=1", "--inodes"

_LOOK_AT_LEAST_EVERY_SECONDS = 2.0
_COST_SHARE = 20
"""Measuring folders takes at most one part in so many of the time."""

_ENTRY = 512
"""Bytes that an entry costs besides its content: a flood of empty files fills a disk too."""

_DU_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


class DiskWatch:
    """How much the writable folders have grown.

    Measuring walks them, so it is done only when the file systems under them have filled enough to make it worth it.
    """

    def __init__(self, folders: Iterable[Path], limit: int) -> None:
        self._folders, self._limit = list(folders), limit
        self._devices = {folder.stat().st_dev: folder for folder in self._folders}
        self._used = self._used_at_first = self._used_on_devices()
        self._at_first = self._grown = 0
        self._measured_at = self._cost = 0.0

    async def begin(self) -> None:
        """Take the size before the command starts."""
        self._at_first = await self._measure()

    async def is_full(self, tree: Tree) -> bool:
        """Whether the command has written more than it may; cheap enough to ask at every tick."""
        if _memory_folders_are_full(tree):
            return True
        return self._worth_measuring() and await self.has_grown_full(tree)

    async def has_grown_full(self, tree: Tree) -> bool:
        """Measure the folders themselves."""
        if not self._folders:
            return False
        self._used = self._used_on_devices()
        self._grown = await self._measure() - self._at_first + _bytes_without_name(tree, self._devices)
        return self._grown >= self._limit

    def _worth_measuring(self) -> bool:
        since = time.monotonic() - self._measured_at
        if since < self._cost * _COST_SHARE:
            return False
        may_have_grown = self._grown + self._used_on_devices() - self._used
        return may_have_grown >= self._limit or since > _LOOK_AT_LEAST_EVERY_SECONDS

    def _used_on_devices(self) -> int:
        states = [os.statvfs(folder) for folder in self._devices.values()]
        return sum((s.f_blocks - s.f_bfree) * s.f_frsize + (s.f_files - s.f_ffree) * _ENTRY for s in states)

    async def _measure(self) -> int:
        """Bytes and entries of all folders."""
        if not self._folders:
            return 0
        began = time.monotonic()
        content, closed = await usage(self._folders, BYTES)
        entries, _ = await usage(self._folders, ENTRIES)
        self._measured_at = time.monotonic()
        self._cost = self._measured_at - began
        # A folder that a command closed to us may hide all that was written since it began.
        hidden = self._used_on_devices() - self._used_at_first if closed else 0
        return max(content + entries * _ENTRY, self._at_first + hidden)


async def usage(folders: Iterable[Path], unit: str) -> tuple[int, bool]:
    """Sum up what folders hold, in `BYTES` or `ENTRIES`, and tell whether some would not be entered.

    Links are not followed, and what vanishes meanwhile is no matter.
    """
    process = await asyncio.create_subprocess_exec(
        *("du", "--summarize", "--total", unit, "--", *map(str, folders)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_DU_ENVIRONMENT,
    )
    assert process.stdout  # noqa: S101  # asked for just above
    assert process.stderr  # noqa: S101  # likewise
    closed = False
    try:
        while complaints := await process.stderr.read(CHUNK):
            closed = closed or b"Permission denied" in complaints
        total = (await process.stdout.read()).splitlines()[-1]
    except asyncio.CancelledError:
        process.kill()
        raise
    finally:
        await process.wait()
    return int(total.split()[0]), closed


def _memory_folders_are_full(tree: Tree) -> bool:
    for name in SCRATCH_FOLDERS:
        with contextlib.suppress(OSError):
            state = os.statvfs(f"/proc/{tree.init}/root{name}")
            if state.f_bavail == 0 or state.f_favail == 0:
                return tree.init is not None
    return False


def _bytes_without_name(tree: Tree, devices: Iterable[int]) -> int:
    """What is held in deleted files that are still open: no walk over folders finds it."""
    files = {(state.st_dev, state.st_ino): state.st_blocks * 512 for state in _open_files(tree) if state.st_nlink == 0}
    return sum(size for (device, _), size in files.items() if device in devices)


def _open_files(tree: Tree) -> Iterator[os.stat_result]:
    for member in tree.members():
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{member.pid}/fd"):
                with contextlib.suppress(OSError):
                    yield entry.stat()
