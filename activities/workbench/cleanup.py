"""Giving things back, come what may."""

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


async def undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """Finish `work` even if this task is cancelled meanwhile; the cancellation follows afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()
        raise cancelled
    return task.result()


def remove_tree(folder: Path) -> None:
    """Delete a folder that foreign commands wrote, whatever permissions they left; gone already is fine."""
    if folder.is_symlink():
        folder.unlink()
        return
    if not folder.exists():
        return
    if os.geteuid() != 0:
        _unlock(folder)
    shutil.rmtree(folder)


def _unlock(folder: Path) -> None:
    """Let the owner list, enter and change every folder of a tree (root needs no leave)."""
    pending = [folder]
    while pending:
        current = pending.pop()
        with contextlib.suppress(FileNotFoundError):
            current.chmod(stat.S_IRWXU)
            pending += [Path(entry) for entry in os.scandir(current) if entry.is_dir(follow_symlinks=False)]
