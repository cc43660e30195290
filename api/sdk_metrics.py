"""The Temporal SDK's own numbers of this process, for `/metrics`."""

import socket
from functools import cache

import httpx2
import structlog

from workflows.client import make_runtime

log = structlog.get_logger()


class SdkMetrics:
    """The SDK shows its numbers only on a port of its own: one on loopback, which `/metrics` reads."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = "{}:{}".format(*free.getsockname())
        self._url = f"http://{address}/metrics"
        self.runtime = make_runtime(address)

    async def text(self) -> bytes:
        """Read them in Prometheus' text form; nothing, and a line in the log, where they cannot be read."""
        try:
            async with httpx2.AsyncClient(timeout=2) as client:
                return (await client.get(self._url)).raise_for_status().content
        except httpx2.HTTPError as error:
            log.warning("sdk_metrics_unreadable", error=str(error))
            return b""


@cache
def sdk_metrics() -> SdkMetrics:
    """Give the process's one: the SDK takes one runtime a process."""
    return SdkMetrics()
