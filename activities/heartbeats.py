"""Tells Temporal that a long activity lives, so that its death is noticed within seconds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

INTERVAL = 1.0
"""Seconds between heartbeats; policies allow five times as long before an activity counts as dead."""


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Heartbeat in the background. A cancellation that comes back is raised in the activity itself."""
    task = asyncio.create_task(_beat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _beat() -> None:
    while True:
        await asyncio.sleep(INTERVAL)  # first: what ends sooner costs the server nothing
        activity.heartbeat()
