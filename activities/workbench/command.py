"""The one shape in which a foreign command is asked for, and what came of it.

Inside a sandbox every path is fixed, so that nothing a command prints names a path of the host:
`/workspace` the worktree, `/env` the built environment (read-only except in set-up), `/site` where the project itself
is installed for one worktree, `/out` reports we read afterwards, `/tmp` a bounded scratch folder.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from models.domain.errors import InvalidInput, WorkbenchLost

WORKSPACE, ENV, SITE, OUT = "/workspace", "/env", "/site", "/out"
TMP = "/tmp"  # noqa: S108  # of the sandbox, not of the host

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

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
    """Processes and their threads."""
    disk: int = 1024**3
    """Growth of all writable folders together; also the size of the largest single file."""
    output: int = 64 * 1024**2
    """Past this the command is stopped (the stored log is capped far lower)."""


@dataclass(frozen=True)
class Command:
    """A command line for `/bin/sh -c`, run in `/workspace`.

    A `.git` at the top of a writable mount is shown read-only: what a command writes there, our own git would obey.
    """

    line: str
    mounts: tuple[Mount, ...]
    env: dict[str, str] = field(default_factory=dict)
    network: bool = False
    ports: frozenset[int] = frozenset()
    """TCP ports that it may connect to with a network, of whatever host; where the host cannot tell ports, all."""
    limits: Limits = field(default_factory=Limits)
    cwd: str = WORKSPACE

    def check(self) -> None:
        """Raise `InvalidInput` for what no shell can take, `WorkbenchLost` when a mounted folder is gone."""
        for text in (self.line, self.cwd, *self.env.values()):
            if "\0" in text:
                raise InvalidInput("command_invalid", "A command, its folder and its variables hold no NUL character.")
        for name in self.env:
            if not _VARIABLE.fullmatch(name):
                raise InvalidInput("command_invalid", f"{name!r} cannot be the name of an environment variable.")
        for mount in self.mounts:
            if not mount.source.exists():
                raise WorkbenchLost(
                    "workbench_lost", f"The folder behind {mount.target} is gone; open another workbench."
                )


@dataclass(frozen=True)
class CommandResult:
    """How a command ended. `exit_code` is None when we stopped it; then `stopped` says for what."""

    exit_code: int | None
    stopped: Stopped | None
    seconds: float
    isolation: Isolation
    peak_memory: int = 0
    left_behind: int = 0
    """Processes that ran on when it had ended by itself, and that we ended."""

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.exit_code == 0 and self.stopped is None


class CommandRunner(Protocol):
    """Runs foreign commands; `Sandbox` is the implementation."""

    isolation: Isolation
    guards_ports: bool
    """Whether a command with network reaches no other ports than those it is given."""

    async def run(self, command: Command, on_output: OnOutput) -> CommandResult:
        """Run to the end, or kill the whole process tree: on a limit, and when cancelled, before re-raising."""
        ...
