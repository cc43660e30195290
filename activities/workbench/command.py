"""The one shape in which a foreign command is asked for, and what came of it.

Inside a sandbox every path is fixed, so that nothing a command prints names a path of the host:
`/workspace` the worktree, `/env` the built environment (read-only except in set-up), `/out` reports we read afterwards,
`/tmp` a bounded scratch folder.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

WORKSPACE, ENV, OUT = "/workspace", "/env", "/out"

OnOutput = Callable[[bytes], Awaitable[None]]
"""Called with output as it comes (stdout and stderr as one stream, already free of host paths)."""


class Isolation(StrEnum):
    """How a command was kept apart; evidence shows it."""

    BUBBLEWRAP = "bubblewrap"
    NAMESPACES = "namespaces"
    NONE = "none"


class Stopped(StrEnum):
    """Why we ended a command that did not end by itself."""

    TIMEOUT = "timeout"
    MEMORY = "memory"
    PROCESSES = "processes"
    DISK = "disk"
    OUTPUT = "output"
    CANCELED = "canceled"


@dataclass(frozen=True)
class Mount:
    """A host folder shown to the command at `target`."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Limits:
    """Ceilings for one command with all its children; sizes in bytes, times in seconds."""

    seconds: float = 1800
    memory: int = 2 * 1024**3
    processes: int = 256
    disk: int = 1024**3
    output: int = 64 * 1024**2
    """Past this the command is stopped (the stored log is capped far lower)."""


@dataclass(frozen=True)
class Command:
    """A command line for `/bin/sh -c`, run in `/workspace`."""

    line: str
    mounts: tuple[Mount, ...]
    env: dict[str, str] = field(default_factory=dict)
    network: bool = False
    limits: Limits = field(default_factory=Limits)
    cwd: str = WORKSPACE


@dataclass(frozen=True)
class CommandResult:
    """How a command ended. `exit_code` is None when we stopped it; then `stopped` says for what."""

    exit_code: int | None
    stopped: Stopped | None
    seconds: float
    output_bytes: int
    isolation: Isolation
    peak_memory: int = 0

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.exit_code == 0 and self.stopped is None


class CommandRunner(Protocol):
    """Runs foreign commands; `Sandbox` is the implementation."""

    isolation: Isolation

    async def run(self, command: Command, on_output: OnOutput) -> CommandResult:
        """Run to the end, or kill the whole process tree: on a limit, and before re-raising when this task is cancelled."""
        ...
