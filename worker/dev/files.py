"""The data folder, and log files in it that cannot grow without end."""

import os
import shutil
from pathlib import Path

MAX_BYTES = 32 * 1024 * 1024
"""A Temporal server that has lost its workers' network writes some 30 MB a minute."""


def cap_logs(folder: Path) -> None:
    """Move the content of every log over the limit to `<name>.1`. The writer appends, so it goes on at the start."""
    for log in folder.glob("*.log"):
        if log.stat().st_size > MAX_BYTES:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)


def make_data_dir(folder: Path) -> None:
    """Make the data folder. When we are root, PostgreSQL's own user must be able to enter it; nobody need list it."""
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
