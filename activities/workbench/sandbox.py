"""Runs foreign commands so that they see what they need and nothing else, and leave nothing behind."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil
import structlog

from activities.workbench import port_guard
from activities.workbench.cleanup import undisturbed
from activities.workbench.command import Command, CommandResult, Isolation, Mount, OnOutput, Stopped
from activities.workbench.disk import DiskWatch
from activities.workbench.in_place import in_place
from activities.workbench.isolation import Box, Launch, fenced
from activities.workbench.limits import Cage, ControlGroups
from activities.workbench.output import Scrubber
from activities.workbench.probe import probe, probe_ports
from activities.workbench.slots import Slot, Slots
from activities.workbench.toolchain import Toolchain
from activities.workbench.tree import CHUNK, Tree
from activities.workbench.view import first_environment, names_of_host_paths, view_of, write_script
from activities.workbench.watch import Watch
from models.domain.errors import MissionControlError, Unavailable

Preferred = Literal["auto", "bubblewrap", "namespaces", "none"]

_ESCAPED_WRITER_SECONDS = 2.0
"""Without isolation a daemon may have escaped with our pipe; its end of the output is not waited for."""

log = structlog.get_logger()


@dataclass
class _Prepared:
    """One command with all it has been given on this host."""

    command: Command
    slot: Slot
    cage: Cage
    box: Box
    writable: tuple[Path, ...]

    def launch(self, isolation: Isolation, plan: int, status: int) -> Launch:
        """Build the whole launch: limits outside, isolation inside."""
        inner = self.box.launch(isolation, plan, status)
        others = 0 if self.slot.drops_uid or self.cage.pids else _tasks_of_this_user()
        return replace(inner, argv=fenced(inner.argv, self.cage, self.command.limits, others))


class _Pump:
    """Carries output from the command to its reader, no faster than that one takes it."""

    def __init__(self, scrubber: Scrubber, limit: int, on_output: OnOutput) -> None:
        self._scrubber, self._limit, self._on_output = scrubber, limit, on_output
        self._total = 0

    async def run(self, source: asyncio.StreamReader) -> bool:
        """Carry until the end; True if more came than is allowed."""
        while chunk := await source.read(CHUNK):
            allowed = chunk[: max(0, self._limit - self._total)]
            self._total += len(chunk)
            await self._give(self._scrubber.feed(allowed))
            if self._total > self._limit:
                return True
        await self._give(self._scrubber.flush())
        return False

    async def _give(self, data: bytes) -> None:
        if data:
            await self._on_output(data)


class Sandbox:
    """The `CommandRunner` of this host."""

    def __init__(self, isolation: Isolation, toolchain: Toolchain, slots: Slots, groups: ControlGroups) -> None:
        self.isolation = isolation
        self.guards_ports = False
        self.toolchain = toolchain
        self._slots, self._groups = slots, groups

    @classmethod
    def detect(cls, preferred: Preferred = "auto", extra_toolchains: Sequence[Path] = ()) -> "Sandbox":
        """Try what really holds on this host, best first, and clear up after workers that died.

        Blocks for some tenths of a second. Raises `Unavailable` when what was asked for by name does not hold.
        """
        toolchain, slots, groups = Toolchain.detect(extra_toolchains), Slots(), ControlGroups.detect().tried()
        wanted = tuple(Isolation) if preferred == "auto" else (Isolation(preferred),)
        failures: dict[str, str] = {}
        for isolation in wanted:
            sandbox = cls(isolation, toolchain, slots, groups)
            try:
                _run_aside(sandbox._try_out())
            except (MissionControlError, OSError) as error:
                failures[isolation.value] = str(error)
                continue
            if isolation is Isolation.NONE:
                log.warning("commands_not_isolated", tried=failures)
            return sandbox
        raise Unavailable(
            "sandbox_unavailable",
            f"Commands cannot be run with {preferred!r} here: {failures}. Install bubblewrap, or set MC_SANDBOX=auto.",
        )

    async def _try_out(self) -> None:
        await self._slots.sweep()
        await probe(self)
        if self.isolation is not Isolation.NONE:
            await self._try_guard()

    async def _try_guard(self) -> None:
        """Find out whether commands with network can be kept from this host's own servers."""
        self.guards_ports = port_guard.is_supported()
        try:
            await probe_ports(self)
        except Unavailable as error:
            self.guards_ports = False
            log.warning("set_ups_reach_this_host", why=error.message)

    async def run(self, command: Command, on_output: OnOutput) -> CommandResult:
        """Raises `WorkbenchLost` if a mounted folder is gone, `Unavailable` if the sandbox cannot be made."""
        command.check()
        began = time.monotonic()
        async with self._prepared(command) as prepared:
            ours = Mount(prepared.slot.scratch, "/run")
            words = names_of_host_paths((*prepared.command.mounts, *self.toolchain.mounts, ours))
            pump = _Pump(Scrubber(words), command.limits.output, on_output)
            disk = DiskWatch(prepared.writable, command.limits.disk)
            await disk.begin()
            tree = await Tree.start(prepared.slot, lambda plan, status: prepared.launch(self.isolation, plan, status))
            watch = Watch(command.limits, prepared.cage, tree, disk)
            exit_code, stopped, left = await self._follow(tree, watch, pump)
            seconds = time.monotonic() - began
            return CommandResult(exit_code, stopped, seconds, self.isolation, watch.peak_memory, left)

    @contextlib.asynccontextmanager
    async def _prepared(self, command: Command) -> AsyncIterator[_Prepared]:
        """Hold a slot and all that goes with it."""
        async with self._slots.lease() as slot, slot.caged(self._groups, command.limits) as cage:
            environment = first_environment(self.toolchain)
            if self.isolation is Isolation.NONE:
                command, environment = in_place(command, slot, self.toolchain)
            script = write_script(command, slot)
            ports = command.ports if self.guards_ports else None
            box = Box(slot, view_of(command, slot, self.toolchain), environment, command.network, ports, script)
            writable = tuple(mount.source for mount in command.mounts if mount.writable)
            await self._slots.returned(writable)
            async with slot.lent(writable):
                yield _Prepared(command, slot, cage, box, writable)

    async def _follow(self, tree: Tree, watch: Watch, pump: _Pump) -> tuple[int | None, Stopped | None, int]:
        """Accompany a command to its end: its own, or the one we make; after its own, count what it leaves behind."""
        ending = asyncio.create_task(tree.exit_code(isolated=self.isolation is not Isolation.NONE))
        limit = asyncio.create_task(watch.until_stopped())
        carrying = asyncio.create_task(pump.run(tree.output))
        try:
            stopped = await _first_reason(ending, limit, carrying)
            left = 0 if stopped else await tree.left_behind()
            await tree.end()
            if stopped is not Stopped.OUTPUT and await self._rest_of(carrying):
                stopped = stopped or Stopped.OUTPUT
            stopped = stopped or await watch.last_look()
            return (None, stopped, 0) if stopped else (await ending, None, left)
        finally:
            for task in (ending, limit, carrying):
                task.cancel()
            await undisturbed(tree.end())
            await asyncio.gather(ending, limit, carrying, return_exceptions=True)
            await tree.close()

    async def _rest_of(self, carrying: "asyncio.Task[bool]") -> bool:
        """Carry what was printed before the end; True if it was too much."""
        patience = _ESCAPED_WRITER_SECONDS if self.isolation is Isolation.NONE else None
        done, _ = await asyncio.wait({carrying}, timeout=patience)
        return bool(done) and carrying.result()


async def _first_reason(
    ending: "asyncio.Task[int]", limit: "asyncio.Task[Stopped]", carrying: "asyncio.Task[bool]"
) -> Stopped | None:
    """Wait until the command ends (None) or has to be ended; raises what the reader of the output raised."""
    waiting: set[asyncio.Task[Any]] = {ending, limit, carrying}
    while True:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if carrying in done and carrying.result():
            return Stopped.OUTPUT
        if limit in done:
            return limit.result()
        if ending in done:
            return None


def _run_aside(work: Coroutine[Any, Any, None]) -> None:
    """Run in a thread of its own, so that callers with and without a running loop may ask."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


def _tasks_of_this_user() -> int:
    """Processes and threads that count against this user's rlimit without being the command's."""
    mine = (process for process in psutil.process_iter(["uids", "num_threads"]) if process.info["uids"])
    return sum(process.info["num_threads"] or 0 for process in mine if process.info["uids"].real == os.getuid())
