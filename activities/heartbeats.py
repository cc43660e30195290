"""Tells Temporal that a long activity lives, so that its death is noticed within seconds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

INTERVAL = 1.0
"""Seconds between heartbeats; policies allow five times as long before an activity counts as dead."""


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Heartbeat in the background. A cancellation that comes back is raised in the activity itself.

    The first beat comes after an interval: what ends sooner costs neither the server anything nor us a task.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def beat() -> None:
        nonlocal timer
        timer = loop.call_later(INTERVAL, beat)
        activity.heartbeat()

    timer = loop.call_later(INTERVAL, beat)
    try:
        yield
    finally:
        timer.cancel()
