"""Runs a worker: `python -m worker`."""

import asyncio

from models.leaving import leave_after
from models.observability import configure_logging
from models.settings import Settings
from worker.main import run


def main(settings: Settings) -> None:
    """Work until told to stop."""
    configure_logging(settings)
    asyncio.run(run(settings))


if __name__ == "__main__":
    leave_after(lambda: main(Settings()))
