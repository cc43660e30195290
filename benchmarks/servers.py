"""The real servers under a benchmark, on free loopback ports and in a folder that goes away with them."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import structlog

from models.settings import Settings
from worker.dev.programs import Worker
from worker.dev.stack import Stack

PREFIX = "bench-"
log = structlog.get_logger()


class BenchWorker(Worker):
    """`python -m benchmarks.worker`."""

    module = "benchmarks.worker"


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
        )
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def serving(*parts: str) -> AsyncIterator[Stack]:
    """Run these parts of the product."""
    with scratch() as settings:
        async with Stack(settings, parts=parts, report=log.debug, supervised=False) as stack:
            yield stack
