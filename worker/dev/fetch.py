"""Gets the Temporal server before it is needed: `python -m worker.dev.fetch`, with its progress on stderr."""

import asyncio
import sys

from models.domain.errors import MissionControlError
from models.settings import Settings
from worker.dev.temporal_cli import find_temporal_cli


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> int:
    """Find, download or build it; 1 with what to do when none of these works."""
    try:
        cli = asyncio.run(find_temporal_cli(Settings(), _say))
    except MissionControlError as error:
        _say(error.message)
        return 1
    _say(f"Temporal CLI {cli.version}: {cli.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
