"""Our own two processes as `up` runs them: the worker and the API."""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import httpx2
from pydantic import SecretStr
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from models.settings import Settings
from worker.dev.process import Child, Server
from workflows.client import connect
from workflows.queues import control_queue

POLL_SECONDS = 70
"""A waiting worker asks again after 60 s at the latest."""


class Program(Server):
    """A Python module of ours as a child; it gets its configuration through the environment alone."""

    module: str
    start_seconds = 120.0  # a first start also compiles our packages, on a machine that may be busy

    def __init__(self, name: str, settings: Settings, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.settings = settings
        self._env = env or {}

    async def _spawn(self) -> Child:
        # -P: a folder called `api` or `worker` where we were started from is not ours.
        argv = [sys.executable, "-P", "-m", self.module]
        log = self.settings.data_dir / "logs" / f"{self.name}.log"
        env = {**environment(self.settings), **self._env}
        return await Child.spawn(argv, log=log, death_signal=self.polite, env=env)


class Worker(Program):
    """`python -m worker`; it serves when it polls for workflows."""

    module = "worker"

    async def _answers(self) -> bool:
        try:
            client = await connect(self.settings)
            identities = await pollers(client, control_queue(self.settings.task_queue_prefix))
        except (RPCError, RuntimeError):
            return False
        return self.child is not None and any(name.startswith(f"{self.child.pid}@") for name in identities)


class Api(Program):
    """`python -m api`; it serves when `/readyz` says so."""

    module = "api"

    def __init__(self, name: str, settings: Settings) -> None:
        super().__init__(name, settings)
        self.port = settings.api_port

    async def _answers(self) -> bool:
        return await is_ready(self.settings)


async def pollers(client: Client, queue: str) -> list[str]:
    """Identities of the workers that wait on this workflow queue; the server remembers others for minutes."""
    request = DescribeTaskQueueRequest(namespace=client.namespace, task_queue=TaskQueue(name=queue))
    answer = await client.workflow_service.describe_task_queue(request)
    waiting_since = time.time() - POLL_SECONDS
    return [poller.identity for poller in answer.pollers if poller.last_access_time.seconds > waiting_since]


def environment(settings: Settings) -> dict[str, str]:
    """Our own environment with exactly these settings in it, as a child's `Settings()` reads them back."""
    names = variables()
    others = {name: value for name, value in os.environ.items() if name not in names.values()}
    values = {field: getattr(settings, field) for field in settings.model_fields_set}
    return others | {names[field]: _text(value) for field, value in values.items() if value is not None}


def variables() -> dict[str, str]:
    """The environment variable of each setting."""
    aliases = {name: field.validation_alias for name, field in Settings.model_fields.items()}
    return {name: alias if isinstance(alias, str) else f"MC_{name.upper()}" for name, alias in aliases.items()}


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return os.pathsep.join(map(str, value)) if isinstance(value, tuple) else str(value)


async def is_ready(settings: Settings) -> bool:
    """Whether the API answers and says that all it needs is there."""
    try:
        async with httpx2.AsyncClient(trust_env=False) as client:
            url = f"http://{settings.api_host}:{settings.api_port}/readyz"
            return (await client.get(url, timeout=5)).is_success
    except httpx2.HTTPError:
        return False
