"""Giving things back, come what may."""

import asyncio
import shutil
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def dying_with_us(death_signal: str) -> tuple[str, ...]:
    """Begin a command that must not work on unseen: it gets the signal when the thread that started it ends.

    Empty where there is no `setpriv` (not Linux).
    """
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", death_signal, "--") if setpriv else ()


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
