"""The worker process: runs workflows, stage activities, and the work bound to this host."""

import asyncio
import gc
import signal
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import structlog
from temporalio.client import Client
from temporalio.runtime import Runtime
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities.mirroring import AuditMirror
from activities.sealing import MEMORY, Sealer
from models.configuration import load_catalog
from models.domain.errors import Unavailable
from models.observability import boot_step
from models.settings import Settings
from models.store.database import Database
from worker.host import host_id
from worker.interceptors import AroundActivities
from worker.registry import Activities, Tools, control_activities, host_activities, shared_activities
from worker.schedules import ensure_reconciler
from worker.search_attributes import ensure_search_attributes
from workflows.client import connect, make_runtime, plainly
from workflows.coding_pipeline import CodingPipelineWorkflow
from workflows.merge_queue import MergeQueueWorkflow
from workflows.queues import control_queue, host_queue, workbench_queue
from workflows.reconcile import ReconcileWorkflow

log = structlog.get_logger()

WORKFLOWS = (CodingPipelineWorkflow, MergeQueueWorkflow, ReconcileWorkflow)
INTERCEPTORS = (AroundActivities(),)
RUNNER = SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules("workflows"))
"""Our workflows hold no state in their modules: importing them anew for each run would cost a tenth of a mission's CPU.

Replay tests import them anew, so that the sandbox watches them there.
"""

STICKY = timedelta(seconds=2)
"""After a worker was killed, its cached workflows are offered to others this soon (the SDK waits 10 s)."""

CACHED_WORKFLOWS = 2_000
ACTIVITIES_AT_ONCE = 400
"""A slot is only a coroutine: commands queue inside the workbench, so a task that waits for one means a dead host."""

HEARTBEATS_PASS = timedelta(seconds=1)
"""How often a heartbeat goes to the server at most: its answer brings the order to stop."""
GRACE = timedelta(seconds=2)
"""What a running activity may still do when the worker is told to stop; another worker takes it up."""


async def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then let running activities go, which other workers take up."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        with boot_step("database"):
            db = Database.from_settings(settings, pool_size=20)
            stack.push_async_callback(db.close)
        with boot_step("configuration"):
            load_catalog(settings.config_dir)
        with boot_step("temporal"):
            client = await _connect(settings)
            await ensure_search_attributes(client)
        with boot_step("tools"):
            host = host_id(settings)
            tools = await Tools.make(settings, db, client, host)
        with boot_step("workers"):
            for worker in make_workers(settings, client, tools, host):
                await stack.enter_async_context(worker)
        with boot_step("reconciler"):
            await ensure_reconciler(client, settings)
        keep_for_good()
        for work in audit_work(settings, db, tools):
            stack.push_async_callback(_stop, asyncio.create_task(work))
        log.info("worker.ready", host=host, isolation=tools.runner.isolation.value)
        await stopped.wait()
        log.info("worker.stopping")


def keep_for_good() -> None:
    """Leave what has been imported out of every later garbage collection: it costs a tenth of a busy worker's time."""
    gc.collect()
    gc.freeze()


def audit_work(settings: Settings, db: Database, tools: Tools) -> list[Coroutine[Any, Any, None]]:
    """List what keeps the audit log: it needs no Temporal, and goes on while that is away (ADR 17)."""
    work = [Sealer(db, tools.recorder.key, memory=settings.data_dir / MEMORY).run()]
    if settings.audit_mirror:
        url, place = settings.audit_mirror.get_secret_value(), settings.cache_dir / "audit-mirror"
        work.append(AuditMirror(db, tools.benches.git, url, place).run())
    return work


def make_workers(settings: Settings, client: Client, tools: Tools, host: str) -> list[Worker]:
    """Make one worker per queue: control, workbench, and this host's own."""
    prefix = settings.task_queue_prefix
    control = control_queue(prefix)
    return [
        control_worker(client, control, control_activities(tools, control)),
        activity_worker(client, workbench_queue(control), shared_activities(tools)),
        activity_worker(client, host_queue(prefix, host), host_activities(tools)),
    ]


def control_worker(
    client: Client, queue: str, activities: Activities, *, cached_workflows: int = CACHED_WORKFLOWS
) -> Worker:
    """Make the worker of the workflows and of their short database activities."""
    return Worker(
        client,
        task_queue=queue,
        workflows=WORKFLOWS,
        workflow_runner=RUNNER,
        activities=activities,
        interceptors=INTERCEPTORS,
        max_cached_workflows=cached_workflows,
        sticky_queue_schedule_to_start_timeout=STICKY,
        max_heartbeat_throttle_interval=HEARTBEATS_PASS,
        graceful_shutdown_timeout=GRACE,
    )


def activity_worker(client: Client, queue: str, activities: Activities) -> Worker:
    """Make a worker of work that takes long: on any host, or on this one."""
    return Worker(
        client,
        task_queue=queue,
        activities=activities,
        interceptors=INTERCEPTORS,
        max_concurrent_activities=ACTIVITIES_AT_ONCE,
        max_heartbeat_throttle_interval=HEARTBEATS_PASS,
        graceful_shutdown_timeout=GRACE,
    )


async def _stop(work: asyncio.Task[None]) -> None:
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


def _runtime(settings: Settings) -> Runtime:
    shown = settings.metrics_port is not None
    return make_runtime(f"{settings.metrics_host}:{settings.metrics_port}" if shown else None)


async def _connect(settings: Settings) -> Client:
    try:
        return await connect(settings, runtime=_runtime(settings))
    except RuntimeError as error:  # the SDK's own word for a connection that was refused
        message = f"Temporal does not answer: see that it runs and that TEMPORAL_ADDRESS is right ({plainly(error)})"
        raise Unavailable("temporal_unreachable", message) from error
