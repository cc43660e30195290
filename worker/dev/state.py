"""One `up` per data folder, and what a killed one left behind."""

import fcntl
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil
from pydantic import BaseModel, ValidationError

from activities.workbench.files import write_whole
from models.domain.errors import Conflict, Misconfigured
from worker.dev.files import make_data_dir
from worker.dev.process import Child

START_TOLERANCE = 2.0
"""Seconds by which two readings of one process's start may differ, because the clock was set in between."""
LEFTOVER_SECONDS = 10.0


class ProcessRecord(BaseModel, frozen=True):
    """Enough to find a process again and never take another one for it: pids are reused."""

    pid: int
    started_at: float
    argv: list[str] = []

    @classmethod
    def of(cls, child: Child) -> "ProcessRecord":
        """The record of a running child."""
        return cls(pid=child.pid, started_at=child.started_at, argv=child.argv)

    @classmethod
    def of_self(cls) -> "ProcessRecord":
        """The record of this very process."""
        return cls(pid=os.getpid(), started_at=psutil.Process().create_time())

    def find(self) -> psutil.Process | None:
        """The same process, if it still lives."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            if process.status() != psutil.STATUS_ZOMBIE and self._is(process):
                return process
        return None

    def _is(self, process: psutil.Process) -> bool:
        # A launcher in front of the program (`setpriv … -- program`) is the same process, before its exec.
        same_program = process.cmdline()[-len(self.argv) :] == self.argv if self.argv else True
        return same_program and abs(process.create_time() - self.started_at) < START_TOLERANCE


class Addresses(BaseModel, frozen=True):
    """Where the parts are that `up` started; a part it did not start stays as the settings say."""

    api_url: str | None = None
    api_port: int | None = None
    temporal_address: str | None = None
    temporal_ui_url: str | None = None
    postgres_port: int | None = None


class UpState(BaseModel, frozen=True):
    """What `up` writes down in `data_dir/up.json`: who runs, where to reach them, and which folders they may use."""

    up: ProcessRecord
    addresses: Addresses = Addresses()
    repository_roots: tuple[Path, ...] | None = None
    children: dict[str, ProcessRecord] = {}


def read_state(data_dir: Path) -> UpState | None:
    """What the last `up` on this folder wrote; None if there is nothing readable."""
    try:
        return UpState.model_validate_json((data_dir / "up.json").read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def running_up(data_dir: Path) -> UpState | None:
    """The state of the `up` that runs on this folder now; None if there is none. Clients find the API by it."""
    state = read_state(data_dir)
    return state if state and state.up.find() else None


def write_state(data_dir: Path, state: UpState) -> None:
    """Replace the state file whole."""
    write_whole(data_dir / "up.json", state.model_dump_json().encode())


@contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data folder; the kernel gives it back however we end.

    Raises:
        Conflict: another `up` holds it.
        Misconfigured: it cannot be made, or nothing can be written in it.
    """
    with _lock_file(data_dir) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _already_up(data_dir) from error
        yield


def _lock_file(data_dir: Path) -> IO[str]:
    try:
        make_data_dir(data_dir)
        return (data_dir / "up.lock").open("a")
    except OSError as error:
        why = f"the data folder {data_dir} cannot be used: {error.strerror}"
        message = f"{why}; make it writable for you, or set MC_DATA_DIR to a folder that is"
        raise Misconfigured("data_folder_unusable", message) from None


def _already_up(data_dir: Path) -> Conflict:
    """Tell who holds the folder, as far as it has said so: while it takes over, the file is still of the one before."""
    state = running_up(data_dir)
    who = f"process {state.up.pid}" if state else "another process, which is just starting"
    where = f", API {state.addresses.api_url}" if state and state.addresses.api_url else ""
    return Conflict(
        "already_up",
        f"Mission Control already runs on {data_dir} ({who}{where}); use it, stop it, or choose another MC_DATA_DIR",
    )


def leftovers(children: Mapping[str, ProcessRecord]) -> dict[str, ProcessRecord]:
    """What a killed `up` left running, the last started first."""
    return {name: record for name, record in reversed(list(children.items())) if record.find()}


def stop_leftovers(children: Mapping[str, ProcessRecord]) -> list[str]:
    """End them one after the other; the names of those that were still there."""
    return [name for name, record in children.items() if _stop_leftover(name, record)]


def _stop_leftover(name: str, record: ProcessRecord) -> bool:
    process = record.find()
    if process is None:
        return False
    with suppress(psutil.Error):
        process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
    patience = time.monotonic() + LEFTOVER_SECONDS
    while record.find() and time.monotonic() < patience:
        time.sleep(0.05)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(record.pid, signal.SIGKILL)
    return True
