"""One writer per folder, across tasks and processes, that no crash can leave locked."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_LOOK_AGAIN_SECONDS = 0.02


@asynccontextmanager
async def exclusive(folder: Path) -> AsyncIterator[int]:
    """Hold `folder` (made if missing) for ourselves; yields the descriptor that holds it.

    The lock is the folder's own, so no lock file is left lying about. Hand the descriptor to child processes: the
    folder then stays locked until the last of them has ended, even when we are killed before them.
    """
    while True:
        descriptor = await _locked(folder)
        try:
            if _still_there(descriptor, folder):
                yield descriptor
                return
        finally:
            os.close(descriptor)


async def _locked(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)
    except BaseException:
        os.close(descriptor)
        raise


def _still_there(descriptor: int, folder: Path) -> bool:
    """Whether the folder was not removed, or replaced by another, while we waited."""
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False
