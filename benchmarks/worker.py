"""A worker process for benchmarks: the product's workflows over ports that answer at once, and the bare workflow."""

import asyncio
import signal
from collections import defaultdict
from contextlib import AsyncExitStack

from temporalio.worker import Worker

from activities.recording import StageRecorder
from activities.workbench.signing import ServiceKey
from benchmarks.bare_workflow import BareWorkflow, do_nothing
from models.settings import Settings
from models.store.database import Database
from tests.fixtures.instant_ports import Script, Scripts
from tests.fixtures.workers import Crew
from worker.main import (
    ACTIVITIES_AT_ONCE,
    CACHED_WORKFLOWS,
    GRACE,
    HEARTBEATS_PASS,
    INTERCEPTORS,
    STICKY,
    keep_for_good,
)
from workflows.client import connect

BARE_QUEUE = "bare"
WINDOW_SECONDS = 0
"""No waiting: the server's timers take a second at least, which would be all that is measured."""


async def run(settings: Settings) -> None:
    """Work until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with AsyncExitStack() as stack:
        client = await connect(settings)
        db = Database.from_settings(settings)
        stack.push_async_callback(db.close)
        recorder = StageRecorder(db, ServiceKey.load_or_create(settings.signing_key), settings.config_dir)
        scripts: Scripts = defaultdict(lambda: Script(observation_seconds=WINDOW_SECONDS))
        bare = Worker(
            client,
            task_queue=BARE_QUEUE,
            workflows=[BareWorkflow],
            activities=[do_nothing],
            interceptors=INTERCEPTORS,
            max_cached_workflows=CACHED_WORKFLOWS,
            max_concurrent_activities=ACTIVITIES_AT_ONCE,
            sticky_queue_schedule_to_start_timeout=STICKY,
            max_heartbeat_throttle_interval=HEARTBEATS_PASS,
            graceful_shutdown_timeout=GRACE,
        )
        await stack.enter_async_context(bare)
        await Crew(settings, client, recorder, scripts, stack, settings.task_queue_prefix).everyone()
        keep_for_good()
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(run(Settings()))
