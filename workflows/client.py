"""Connects to Temporal, the same way in every process."""

import logging
import re

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfig
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)

from models.settings import Settings


def make_runtime(metrics_address: str | None = None) -> Runtime:
    """Make a process's one runtime of the SDK: its core's log lines go where ours go, in the same form."""
    forwarded = LogForwardingConfig(logging.getLogger("temporalio.core"))
    told = LoggingConfig(TelemetryFilter(core_level="WARN", other_level="ERROR"), forwarded)
    metrics = PrometheusConfig(bind_address=metrics_address) if metrics_address else None
    return Runtime(telemetry=TelemetryConfig(logging=told, metrics=metrics))


def plainly(error: Exception) -> str:
    """Why Temporal does not answer, in words: of the SDK's own dump of its core's error, only what the system said."""
    said = re.findall(r'message: "([^"]+)"', str(error))
    return said[-1] if said else str(error).partition(" { ")[0].splitlines()[0]


async def connect(settings: Settings, *, runtime: Runtime | None = None, lazy: bool = False) -> Client:
    """Connect as `TEMPORAL_*` variables and profiles say, with our data converter."""
    options = ClientConfig.load_client_connect_config()
    address = settings.temporal_address or options.get("target_host") or "127.0.0.1:7233"
    options |= {"target_host": address, "namespace": settings.temporal_namespace}
    return await Client.connect(**options, data_converter=pydantic_data_converter, runtime=runtime, lazy=lazy)
