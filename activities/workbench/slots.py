"""What a sandbox holds on this host while a command runs: a number, and by it a uid, a scratch folder, control groups.

A slot is held by a file lock, so it is free again the moment its worker dies, however it dies. What the slot had
lent by then is written in its record, and the next holder (or the sweep at start-up) gives it back first.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from activities.workbench.cleanup import undisturbed
from activities.workbench.command import Limits
from activities.workbench.limits import Cage, ControlGroups, release
from activities.workbench.trees import remove_tree
from models.domain.errors import Unavailable

FIRST_UID, SLOTS = 60_928, 256
"""Uids that nobody hands out: those of systemd's services begin right behind them, at 61184."""

MARK = "MISSION_CONTROL_SLOT"
"""The variable by which a command's processes are found where they share our uid and our process ids."""

_RUNTIME = Path("/run/mission-control")
_RECORD = "record.json"
_SHARED_BY_SLOTS = 0o711
_LOOK_AGAIN_SECONDS = 0.01
_TRIES = 20
"""What a folder holds may go while it changes hands; what is left is tried again."""


def runtime_folder() -> Path:
    """One place per host and user, whatever data folders its workers have: uids must not be given out twice."""
    folder = _RUNTIME if os.geteuid() == 0 else Path(tempfile.gettempdir()) / f"mission-control-{os.geteuid()}"
    try:
        folder.mkdir(mode=_SHARED_BY_SLOTS, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable("sandbox_unavailable", f"{folder} cannot be made ({error}); make it writable.") from error
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise Unavailable("sandbox_unavailable", f"{folder} belongs to somebody else; remove it and start again.")
    return folder


@dataclass(frozen=True)
class Slot:
    """A number that no other sandbox on this host has now."""

    number: int
    folder: Path
    lock: int
    """The descriptor that holds it."""
    drops_uid: bool
    """Whether the command runs as `uid` on the host too (we are root), or only within a user namespace."""

    @property
    def uid(self) -> int:
        """The user (and group) the command sees itself as."""
        return FIRST_UID + self.number

    @property
    def name(self) -> str:
        """Names the slot's control groups."""
        return f"mission-control-{os.geteuid()}-{self.number}"

    @property
    def scratch(self) -> Path:
        """A fresh folder for what belongs to one command."""
        return self.folder / "scratch"

    @property
    def home(self) -> Path:
        """Stands for `/tmp` where a command cannot be given one of its own."""
        return self.scratch / "home"

    @contextlib.asynccontextmanager
    async def caged(self, groups: ControlGroups, limits: Limits) -> AsyncIterator[Cage]:
        """Make the slot's control groups and remove them afterwards, with whatever is still in them."""
        cage = await undisturbed(asyncio.to_thread(groups.cage, self.name))
        self._remember(groups=cage.folders)
        try:
            cage.limit(limits)
            yield cage
        finally:
            await undisturbed(_release(cage.folders))

    @contextlib.asynccontextmanager
    async def lent(self, folders: Sequence[Path]) -> AsyncIterator[None]:
        """Let the slot's uid write these folders; afterwards all in them belongs again to who owned the folder."""
        if not self.drops_uid or not folders:
            yield
            return
        owners = [(str(folder), folder.stat().st_uid, folder.stat().st_gid) for folder in folders]
        self._remember(lent=owners)
        try:
            for folder, _, _ in owners:
                await _chown(folder, self.uid, self.uid)
            yield
        finally:
            await undisturbed(self._give_back(owners))

    async def _give_back(self, owners: Sequence[tuple[str, int, int]]) -> None:
        for folder, uid, gid in owners:
            if Path(folder).exists():
                await _chown(folder, uid, gid)

    async def recover(self) -> None:
        """Give back what a holder that died had lent."""
        if not self.scratch.exists():
            return
        await undisturbed(_release([Path(group) for group in _recorded(self._record, "groups")]))
        await self.evict()
        await self._give_back(_recorded(self._record, "lent"))
        await self.clear()

    async def evict(self) -> None:
        """Kill every process of the slot's commands, wherever it has gone."""
        if self.drops_uid:
            become = ("setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--")
            await _run(*become, "/bin/sh", "-c", "kill -9 -1")
            return
        while marked := self.processes():
            for process in marked:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    def processes(self) -> list[psutil.Process]:
        """Find every process of the slot's commands that is alive, wherever it has gone.

        By uid, where nobody else has it; else by the mark, which a command that means to escape can take off.
        """
        return [process for process in psutil.process_iter() if self._holds(process)]

    def _holds(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.uids().real == self.uid if self.drops_uid else process.environ().get(MARK) == self.name
        except psutil.Error:
            return False

    async def clear(self) -> None:
        """Forget what was lent; it has been given back. That the scratch folder is gone tells the next holder so."""
        self._record.unlink(missing_ok=True)
        await remove_tree(self.scratch, self.lock)

    @property
    def _record(self) -> Path:
        return self.folder / _RECORD

    def _remember(self, **facts: Sequence[object]) -> None:
        """Write down what is about to be lent, before it is."""
        known = json.loads(self._record.read_text(encoding="utf-8")) if self._record.exists() else {}
        draft = self._record.with_suffix(".new")
        draft.write_text(json.dumps(known | facts, default=str), encoding="utf-8")
        draft.replace(self._record)


class Slots:
    """All slots of this host's user; a worker takes one per command."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = (folder or runtime_folder()) / "slots"
        self._folder.mkdir(mode=_SHARED_BY_SLOTS, exist_ok=True)

    @contextlib.asynccontextmanager
    async def lease(self) -> AsyncIterator[Slot]:
        """Hold the lowest free slot; raises `Unavailable` when all are taken.

        Other slots are swept first: what a dead worker had lent may be about to be lent again.
        """
        await self.sweep()
        for number in range(SLOTS):
            with self._locked(number) as slot:
                if slot is not None:
                    await slot.recover()
                    slot.home.mkdir(mode=_SHARED_BY_SLOTS, parents=True)
                    try:
                        yield slot
                    finally:
                        await undisturbed(slot.clear())
                    return
        raise Unavailable("sandbox_busy", f"All {SLOTS} sandboxes of this host are in use; try again later.")

    async def sweep(self) -> None:
        """Give back what workers that died have left behind."""
        for scratch in self._folder.glob("*/scratch"):
            with self._locked(int(scratch.parent.name)) as slot:
                if slot is not None:
                    await slot.recover()

    async def returned(self, folders: Sequence[Path]) -> None:
        """Wait until no other slot has any of these folders lent; call it before they are.

        What a dead worker had may just be given back by another one: that would take them from under our command.
        """
        while self._lent() & {str(folder) for folder in folders}:
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            await self.sweep()

    def _lent(self) -> set[str]:
        return {folder for record in self._folder.glob(f"*/{_RECORD}") for folder, *_ in _recorded(record, "lent")}

    @contextlib.contextmanager
    def _locked(self, number: int) -> Iterator[Slot | None]:
        """Try to hold a slot; None when somebody else does."""
        folder = self._folder / str(number)
        folder.mkdir(mode=_SHARED_BY_SLOTS, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            yield Slot(number, folder, lock.fileno(), drops_uid=os.geteuid() == 0)


def _recorded(record: Path, name: str) -> list[Any]:
    """What a slot's record says; nothing when it has none, or has it no longer."""
    try:
        facts: dict[str, list[Any]] = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return facts.get(name, [])


async def _release(groups: Sequence[Path]) -> None:
    """Remove control groups in a thread: the kernel may need seconds, in which everybody else must heartbeat."""
    for group in groups:
        await asyncio.to_thread(release, group)


async def _chown(folder: str, uid: int, gid: int) -> None:
    for _ in range(_TRIES):
        failed = await _run("chown", "--recursive", "--no-dereference", f"{uid}:{gid}", "--", folder)
        if not failed or not os.path.lexists(folder):  # what a dead holder lent may go meanwhile
            return
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
    raise Unavailable("workbench_unusable", "A folder cannot change hands; look for mounts or attributes in it.")


async def _run(*command: str) -> int:
    """Run a tool of the system to its end, come what may: two of them at once would undo each other. Its exit code."""

    async def run() -> int:
        quiet = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*command, stdin=quiet, stdout=quiet, stderr=quiet)
        return await process.wait()

    return await undisturbed(run())
