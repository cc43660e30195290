"""One running command with all its descendants, seen and ended from outside."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil

from activities.workbench.isolation import LAUNCHER_ENVIRONMENT, Launch
from activities.workbench.slots import Slot
from models.domain.errors import Unavailable

CHUNK = 64 * 1024

_LOOK_AGAIN_SECONDS = 0.01
_ENDING_SECONDS = 0.2
"""Helpers of a command (Python's resource tracker) end by themselves right behind it: they are not left behind."""


@dataclass
class Tree:
    """A started command. `init` is the first process of its PID namespace, None when it has none of its own.

    When that process has gone, so has everything: the kernel lets it end only after all others in its namespace.
    """

    slot: Slot
    process: asyncio.subprocess.Process
    output: asyncio.StreamReader
    """What it prints; bounded, so that a command that prints faster than we take has to wait."""
    _status: asyncio.StreamReader
    _pipes: contextlib.AsyncExitStack
    _seen: set[psutil.Process] = field(default_factory=set)
    init: int | None = None
    _init_handle: int | None = None

    @classmethod
    async def start(cls, slot: Slot, launch: Callable[[int, int], Launch]) -> "Tree":
        """Start what `launch` builds, given the descriptors it will find its plan on and report its status to."""
        plan, (told, tell), (printed, printing) = os.memfd_create("plan"), _socket_pair(), os.pipe()
        with _closing(plan, tell, printing):
            built = launch(plan, tell)
            os.write(plan, built.specification)
            os.lseek(plan, 0, os.SEEK_SET)
            async with contextlib.AsyncExitStack() as undo:
                output, status = [await _reader(end, undo) for end in (printed, told)]
                process = await asyncio.create_subprocess_exec(
                    *built.argv,
                    stdin=tell if built.status_as_input else asyncio.subprocess.DEVNULL,
                    stdout=printing,
                    stderr=printing,
                    pass_fds=(plan, tell),
                    env=LAUNCHER_ENVIRONMENT,
                    start_new_session=True,
                )
                tree = cls(slot, process, output, status, undo.pop_all())
        with contextlib.suppress(psutil.NoSuchProcess):
            tree._seen.add(psutil.Process(process.pid))
        return tree

    async def exit_code(self, *, isolated: bool) -> int:
        """Wait for the command's own end. A death by signal counts as in a shell: 128 and the signal's number.

        Raises `Unavailable` when the sandbox could not be made, or broke.
        """
        if not isolated:
            code = await self.process.wait()
            return code if code >= 0 else 128 - code
        self.init = int((await self._told())["child-pid"])
        with contextlib.suppress(ProcessLookupError):
            self._init_handle = os.pidfd_open(self.init)
        return (await self._told())["exit-code"]

    async def _told(self) -> dict[str, int]:
        """The next thing the launcher reports."""
        line = await self._status.readline()
        if not line:
            raise Unavailable("sandbox_failed", "The sandbox could not be made; `mission-control doctor` says why.")
        report: dict[str, int] = json.loads(line)
        return report

    def members(self) -> list[psutil.Process]:
        """Everything alive in it, also what was seen earlier and has left its parents since."""
        children: defaultdict[int, list[psutil.Process]] = defaultdict(list)
        for process in psutil.process_iter(["ppid"]):
            children[process.info["ppid"]].append(process)
        found = [process for process in self._seen if _is_alive(process)]
        for parent in found:
            found += [child for child in children[parent.pid] if child not in self._seen]
            self._seen.update(children[parent.pid])
        self._seen = set(found)
        return found

    async def left_behind(self) -> int:
        """Count what runs on although the command has ended; what is just ending is given a moment."""
        deadline = time.monotonic() + _ENDING_SECONDS
        while left := len(self._left()):
            if time.monotonic() > deadline:
                return left
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        return 0

    def _left(self) -> list[psutil.Process]:
        if self.init is None:
            return self.slot.processes()
        with contextlib.suppress(psutil.NoSuchProcess):
            return [process for process in psutil.Process(self.init).children(recursive=True) if _is_alive(process)]
        return []

    async def end(self) -> None:
        """Kill what is left, and return when nothing is."""
        self._kill_group()
        if self._init_handle is not None:
            await _kill_and_wait(self._init_handle)
            with contextlib.suppress(ChildProcessError):
                # Ours to reap when we are a container's first process and bubblewrap's outer half ended before.
                os.waitid(os.P_PIDFD, self._init_handle, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222  # does not wait
            os.close(self._init_handle)
            self._init_handle = None
        while left := self.members():
            for member in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        if self.init is None:
            await self.slot.evict()
        await self.process.wait()

    def _kill_group(self) -> None:
        """Kill all that has not left the process group at one stroke: a fork bomb grows faster than it dies one by one.

        The launcher is among them, and does not live to remark on its child's death in the command's output.
        """
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Let go of the pipes; what was not read is lost."""
        await self._pipes.aclose()


async def _kill_and_wait(handle: int) -> None:
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, gone.set)
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        await gone.wait()
    finally:
        loop.remove_reader(handle)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _socket_pair() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


async def _reader(descriptor: int, undo: contextlib.AsyncExitStack) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=CHUNK)
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    connect = asyncio.get_running_loop().connect_read_pipe
    transport, _ = await connect(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    undo.callback(transport.close)
    return reader


@contextlib.contextmanager
def _closing(*descriptors: int) -> Iterator[None]:
    try:
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
