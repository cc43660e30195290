"""Servers we start are our children, and none of them outlives us."""

import asyncio
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import psutil

from activities.workbench.cleanup import setpriv
from models.domain.errors import Unavailable
from worker.dev.ports import listens


@dataclass(frozen=True)
class RunAs:
    """The system user a child runs as when we are root; some servers refuse to be root."""

    uid: int
    gid: int

    @property
    def options(self) -> list[str]:
        """How `setpriv` is told."""
        return [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]


def launcher(user: RunAs | None = None, death_signal: signal.Signals | None = None) -> tuple[str, ...]:
    """What changes the user and ties the child's life to ours.

    Where there is no `setpriv` the next `up` clears away what a killed one left.
    """
    dying = [f"--pdeathsig={death_signal.name.removeprefix('SIG')}"] if death_signal else []
    return setpriv(*(user.options if user else []), *dying)


class Child:
    """One running server: its own session, its output in a log file, ended with its whole process group."""

    def __init__(self, process: asyncio.subprocess.Process, argv: list[str], log: Path) -> None:
        self._process = process
        self.argv = argv
        self.log = log
        self.pid = process.pid
        self.started_at = _start_of(process.pid)

    @classmethod
    async def spawn(
        cls,
        argv: Sequence[str | Path],
        *,
        log: Path,
        death_signal: signal.Signals,
        env: Mapping[str, str] | None = None,
        user: RunAs | None = None,
        cwd: Path | None = None,
    ) -> "Child":
        """Start `argv`, its output appended to `log`. The calling thread must live as long as the child should."""
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *launcher(user, death_signal),
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        return cls(process, [str(word) for word in argv], log)

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number when a signal ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for its end and reap it; the exit code."""
        return await self._process.wait()

    async def stop(self, polite: signal.Signals, grace: float) -> None:
        """Ask with `polite`; after `grace` seconds SIGKILL what is left of its process group."""
        if self.exit_code is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(polite)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), grace)
        await self.kill()

    async def kill(self) -> None:
        """SIGKILL the process group and reap."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.wait()

    def last_words(self, lines: int = 12) -> str:
        """The end of its log, for the error that says why it did not start."""
        text = self.log.read_text(errors="replace", encoding="utf-8") if self.log.exists() else ""
        return "\n".join(line[:300] for line in text.splitlines()[-lines:])


def _start_of(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:  # it has ended already
        return time.time()


def _nothing() -> None:
    """Nobody wants to know."""


class Server(ABC):
    """A server that runs as our child: started when it answers, stopped politely, killed on demand.

    `async with server:` starts and stops it.
    """

    name: str
    polite: ClassVar[signal.Signals] = signal.SIGTERM
    """Asks for a clean stop; also sent by the kernel when we die."""
    start_seconds: ClassVar[float] = 60.0
    stop_seconds: ClassVar[float] = 10.0
    port: int | None = None
    child: Child | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, spawned: Callable[[], None] = _nothing) -> None:
        """Start it and return when it answers; `spawned` is called as soon as there is a process.

        Raises:
            Unavailable: it ended or did not answer in time; the message holds the end of its log.
        """
        self.child = await self._spawn()
        spawned()
        try:
            await asyncio.wait_for(self._until_it_answers(self.child), self.start_seconds)
        except TimeoutError as error:
            await self.stop()
            raise _did_not_start(self.name, self.child, f"did not answer within {self.start_seconds:g} s") from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self, grace: float | None = None) -> None:
        """Ask it to stop, wait `grace` seconds (its own measure by default), then kill what is left."""
        if self.child:
            await self.child.stop(self.polite, self.stop_seconds if grace is None else grace)

    @abstractmethod
    async def _spawn(self) -> Child:
        """Start the process."""

    @abstractmethod
    async def _answers(self) -> bool:
        """Whether it serves now."""

    async def _until_it_answers(self, child: Child) -> None:
        while (self.port and not listens(child.pid, self.port)) or not await self._answers():
            if child.exit_code is not None:
                raise _did_not_start(self.name, child, f"ended with code {child.exit_code}")
            await asyncio.sleep(0.1)


def _did_not_start(name: str, child: Child, what: str) -> Unavailable:
    return Unavailable("server_did_not_start", f"{name} {what}; the end of {child.log}:\n{child.last_words()}")
