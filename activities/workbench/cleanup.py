"""Giving things back, come what may."""

import asyncio
import shutil
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def setpriv(*options: str) -> tuple[str, ...]:
    """Begin a command with these options of `setpriv`; empty where it is not there (not Linux).

    `--pdeathsig` is for what must not work on unseen: it gets the signal when the thread that started it ends, even by
    SIGKILL.
    """
    found = shutil.which("setpriv")
    return (found, *options, "--") if options and found else ()


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
