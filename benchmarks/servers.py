"""The real servers under a benchmark, on free loopback ports and in a folder that goes away with them."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import structlog

from models.domain.rates import MAX_RATE
from models.settings import Settings
from worker.dev.ports import free_port
from worker.dev.process import Server
from worker.dev.programs import Program, Worker, is_ready
from worker.dev.stack import Stack

PREFIX = "bench-"
RATES: dict[str, Any] = {f"{kind}_requests_per_minute": MAX_RATE for kind in ("human", "agent", "service", "anonymous")}
RATES |= {"streams_per_key": 1_000, "claims_per_agent": 5_000}
"""The limiter counts here as everywhere; only its numbers are raised."""
log = structlog.get_logger()


class BenchWorker(Worker):
    """`python -m benchmarks.worker`."""

    module = "benchmarks.worker"

    def __init__(self, settings: Settings) -> None:
        # The sandbox imports workflows anew for each run: from source, it would be the compiler that is measured.
        super().__init__("bench-worker", settings, {"PYTHONDONTWRITEBYTECODE": ""})


@contextmanager
def scratch() -> Iterator[Settings]:
    """Settings of an installation that exists only here."""
    folder = Path(tempfile.mkdtemp(prefix="mission-control-bench-"))
    folder.chmod(0o711)  # PostgreSQL's own user must reach its data
    try:
        yield Settings(
            data_dir=folder,
            task_queue_prefix=PREFIX,
            postgres_port=0,
            temporal_port=0,
            temporal_ui_port=0,
            api_port=0,
            log_level="warning",
            **RATES,
        )
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def serving(*parts: str) -> AsyncIterator[Stack]:
    """Run these parts of the product."""
    with scratch() as settings:
        async with Stack(settings, parts=parts, report=log.debug, supervised=False) as stack:
            yield stack


def pid_of(server: Server) -> int:
    """The process of a server that runs."""
    assert server.child is not None
    return server.child.pid


class BareApi(Program):
    """`python -m benchmarks.bare_api`, on a port of its own and the same database."""

    module = "benchmarks.bare_api"

    def __init__(self, settings: Settings) -> None:
        self.port = free_port()
        super().__init__("bare-api", settings.model_copy(update={"api_port": self.port}))

    async def _answers(self) -> bool:
        return await is_ready(self.settings)


class CheckedApi(BareApi):
    """`python -m benchmarks.checks_server`: the API with routes that do nothing."""

    module = "benchmarks.checks_server"


def admin_key(settings: Settings) -> str:
    """The key that the API made on its first start."""
    return settings.key_file.read_text().strip()


class FanoutServer(Program):
    """`python -m benchmarks.fanout_server`: the API on a free port, and a bare socket server on the next."""

    module = "benchmarks.fanout_server"

    def __init__(self, settings: Settings) -> None:
        self.port = free_port()
        super().__init__("fanout", settings.model_copy(update={"api_port": self.port}))

    async def _answers(self) -> bool:
        return await is_ready(self.settings)
