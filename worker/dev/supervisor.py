"""Keeps a server running: when it dies it is started again, later and later, and it is said."""

import asyncio
import time
from collections.abc import Callable

from worker.dev.process import Server

FIRST_DELAY, LAST_DELAY = 0.5, 30.0
HEALTHY_SECONDS = 60.0
"""After this long a death is news again, not the next of a series."""

Report = Callable[[str], None]


async def supervise(server: Server, spawned: Callable[[], None], report: Report) -> None:
    """Restart `server` for ever, calling `spawned` each time. Cancel it before stopping the server on purpose."""
    delay = FIRST_DELAY
    while server.child:
        since = time.monotonic()
        code = await server.child.wait()
        if time.monotonic() - since > HEALTHY_SECONDS:
            delay = FIRST_DELAY
        report(f"{server.name} ended ({_how(code)}); starting it again in {delay:g} s")
        delay = await _restart(server, spawned, delay, report)
        report(f"{server.name} is up again")


async def _restart(server: Server, spawned: Callable[[], None], delay: float, report: Report) -> float:
    """Try until it serves; the delay that the next death begins with."""
    while True:
        await asyncio.sleep(delay)
        delay = min(delay * 2, LAST_DELAY)
        try:
            await server.start(spawned)
        except Exception as error:  # whatever it was, a supervisor that dies of it mends nothing
            report(f"{error}\nstarting {server.name} again in {delay:g} s")
        else:
            return delay


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
