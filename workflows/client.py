"""Connects to Temporal, the same way in every process."""

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfig
from temporalio.runtime import Runtime

from models.settings import Settings


async def connect(settings: Settings, *, runtime: Runtime | None = None, lazy: bool = False) -> Client:
    """Connect as `TEMPORAL_*` variables and profiles say, with our data converter."""
    options = ClientConfig.load_client_connect_config()
    address = settings.temporal_address or options.get("target_host") or "127.0.0.1:7233"
    options |= {"target_host": address, "namespace": settings.temporal_namespace}
    return await Client.connect(**options, data_converter=pydantic_data_converter, runtime=runtime, lazy=lazy)
