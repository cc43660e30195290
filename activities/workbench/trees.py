"""Removing folders in which foreign commands have been at work."""

import asyncio
from asyncio.subprocess import DEVNULL
from pathlib import Path

from models.domain.errors import Unavailable


async def remove_tree(path: Path, hold: int) -> None:
    """Remove a folder with all in it, however deep, read-only or oddly named; links are removed, not followed.

    `hold` is the descriptor of the lock that keeps others away, also from what goes on after we were killed.

    Raises:
        Unavailable: `folder_not_removed`, something in it belongs to another user or is still mounted.
    """
    if await _run(hold, "rm", "-rf", "--one-file-system", "--", str(path)):
        return
    await _run(hold, "chmod", "-R", "u+rwX", "--", str(path))
    if not await _run(hold, "rm", "-rf", "--one-file-system", "--", str(path)):
        raise Unavailable(
            "folder_not_removed", "A worktree could not be removed: look at its owner and at mounts in it."
        )


async def _run(hold: int, *command: str) -> bool:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, pass_fds=(hold,)
    )
    try:
        return await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
