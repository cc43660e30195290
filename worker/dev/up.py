"""`mission-control up`: everything on this machine until somebody says stop."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from activities.workbench import port_guard
from models.settings import Settings
from worker.dev.roots import MEND, outside
from worker.dev.stack import Stack
from worker.dev.supervisor import Report
from worker.own_ports import UNGUARDED

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def up(settings: Settings, report: Report) -> None:
    """Run all parts until SIGINT, SIGTERM or SIGHUP, then stop them in order; a second signal hurries."""
    await run(Stack(settings, report=report), lambda stack: _wait(stack, report))


async def run(stack: Stack, body: Callable[[Stack], Awaitable[None]]) -> None:
    """Do `body` with the stack running; stop when it ends or at the first signal. A second signal hurries the stop."""
    loop = asyncio.get_running_loop()
    work = loop.create_task(_inside(stack, body))
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, _stop, stack, work)
    try:
        await work
    except asyncio.CancelledError:
        if (ours := asyncio.current_task()) and ours.cancelling():
            raise
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


async def _inside(stack: Stack, body: Callable[[Stack], Awaitable[None]]) -> None:
    async with stack:
        await body(stack)


def _stop(stack: Stack, work: asyncio.Task[None]) -> None:
    if stack.stopping or work.cancelling():
        stack.hurry()
    else:
        work.cancel()


async def _wait(stack: Stack, report: Report) -> None:
    settings = stack.settings
    with suppress(SQLAlchemyError):  # a database that has just died is started again: no reason to end
        if found := await outside(settings):
            report(f"registered repositories lie outside MC_REPOSITORY_ROOTS: {found}; {MEND}")
    if not port_guard.is_supported():
        report(UNGUARDED)
    report(
        f"API {settings.api_url} (documentation at /api-docs), Temporal {settings.temporal_ui_url}; Ctrl-C stops all"
    )
    await asyncio.Event().wait()
