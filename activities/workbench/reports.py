"""Reads the files that a foreign command left for us, trusting nothing about them.

A report may be a link to a file of the host, a pipe that never ends, a bomb, or a million files. Nothing is followed
out of the folder the command could write, nothing is waited for, and everything is bounded. What breaks a bound is
refused by name.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from activities.workbench.cases import Cases
from activities.workbench.junit import JunitRefused, parse_junit
from activities.workbench.trees import remove_tree
from models.domain.errors import StageFailed
from models.domain.testing import TestCase

MAX_FILES = 500
MAX_ENTRIES = 200_000
MAX_DEPTH = 32
MAX_BYTES = 64 * 1024 * 1024
"""Of all files of one report together."""

_CHUNK = 64 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_REFUSALS = {errno.ELOOP: "it is a symbolic link", errno.ENXIO: "it is not a regular file"}


@dataclass(frozen=True)
class Found:
    """A directory entry below the folder, reached without following links. `folder` is an open descriptor."""

    path: str
    name: str
    folder: int


@dataclass
class Allowance:
    """What one report may still cost."""

    entries: int = MAX_ENTRIES
    files: int = MAX_FILES
    size: int = MAX_BYTES
    refused_as: str = field(default="report", repr=False)

    def spend_entries(self, count: int) -> None:
        """Account for a folder that was listed."""
        self.entries -= count
        if self.entries < 0:
            raise refused(self.refused_as, f"more than {MAX_ENTRIES} files would have to be looked at")

    def spend_file(self) -> None:
        """Account for a file that is read."""
        self.files -= 1
        if self.files < 0:
            raise refused(self.refused_as, f"it matches more than {MAX_FILES} files")

    def spend_bytes(self, path: str, count: int) -> None:
        """Account for bytes that are read."""
        self.size -= count
        if self.size < 0:
            raise refused(path, f"with it, more than {MAX_BYTES} bytes would have to be read")


def refused(path: str, why: str) -> StageFailed:
    """Say that a report was refused, and why."""
    return StageFailed("report_refused", f"The report {path!r} was refused: {why}.")


def read_junit(root: Path, pattern: str) -> tuple[TestCase, ...]:
    """Read the cases of all JUnit files below `root` that match a glob; none when no file matches.

    Raises:
        StageFailed: `report_refused`, naming the file and why.
    """
    cases = Cases()
    for path, chunks in _contents(root, pattern):
        try:
            parse_junit(chunks, cases)
        except JunitRefused as error:
            raise refused(path, str(error)) from None
    return tuple(cases.found)


def read_files(root: Path, pattern: str) -> dict[str, bytes]:
    """Read all files below `root` that match a glob.

    Raises:
        StageFailed: `report_refused`, naming the file and why.
    """
    return {path: b"".join(chunks) for path, chunks in _contents(root, pattern)}


def discard(root: Path, pattern: str) -> None:
    """Delete what matches a glob below `root`, so that only a later command's reports are there."""
    for found in _matches(root, pattern, Allowance(refused_as=pattern)):
        with suppress(IsADirectoryError, FileNotFoundError, PermissionError):
            os.unlink(found.name, dir_fd=found.folder)


async def clear(folder: Path) -> None:
    """Empty a folder that foreign commands wrote to."""
    descriptor = os.open(folder, _FOLDER)
    try:
        await remove_tree(folder, descriptor)
    finally:
        os.close(descriptor)
    folder.mkdir()


def _contents(root: Path, pattern: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    allowance = Allowance(refused_as=pattern)
    for found in _matches(root, pattern, allowance):
        descriptor = _open(found)
        if descriptor is not None:
            with open(descriptor, "rb", buffering=0) as file:
                allowance.spend_file()
                yield found.path, _chunks(file.fileno(), found.path, allowance)


def _open(found: Found) -> int | None:
    """Open a regular file for reading; None where there is nothing, or a folder."""
    try:
        descriptor = os.open(found.name, _FILE, dir_fd=found.folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refused(found.path, _REFUSALS.get(error.errno or 0, "it cannot be opened")) from None
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        return None
    raise refused(found.path, "it is not a regular file")


def _chunks(descriptor: int, path: str, allowance: Allowance) -> Iterator[bytes]:
    while chunk := os.read(descriptor, _CHUNK):
        allowance.spend_bytes(path, len(chunk))
        yield chunk


def _matches(root: Path, pattern: str, allowance: Allowance) -> Iterator[Found]:
    """Walk to what a glob names, as a shell would (hidden entries only when named), following no link."""
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if parts and parts[-1] == "**":
        parts.append("*")
    descriptor = os.open(root, _FOLDER)
    try:
        yield from _walk(descriptor, parts, "", allowance)
    finally:
        os.close(descriptor)


def _walk(folder: int, parts: list[str], prefix: str, allowance: Allowance) -> Iterator[Found]:
    if not parts or prefix.count("/") > MAX_DEPTH:
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _walk(folder, rest, prefix, allowance)
        rest = parts
    for name in _names(folder, part, allowance):
        if rest:
            yield from _descend(folder, name, rest, prefix, allowance)
        else:
            yield Found(prefix + name, name, folder)


def _descend(folder: int, name: str, rest: list[str], prefix: str, allowance: Allowance) -> Iterator[Found]:
    try:
        below = os.open(name, _FOLDER, dir_fd=folder)
    except OSError:
        return  # not a folder, a link to one, or closed to us: nothing in there is ours to read
    try:
        yield from _walk(below, rest, f"{prefix}{name}/", allowance)
    finally:
        os.close(below)


def _names(folder: int, part: str, allowance: Allowance) -> list[str]:
    if not any(sign in part for sign in "*?["):
        return [part]
    names = os.listdir(folder)
    allowance.spend_entries(len(names))
    wanted = "*" if part == "**" else part
    return sorted(
        name for name in names if fnmatchcase(name, wanted) and (part.startswith(".") or not name.startswith("."))
    )
