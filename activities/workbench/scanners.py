"""Scans what a patch adds: bandit and detect-secrets on git's own objects, and any tool that writes SARIF.

Nothing is read from a worktree for the first two: the tests have run there, and could have changed it. No code of the
repository runs here, none of its configuration is read.
"""

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from activities.workbench.cleanup import setpriv, undisturbed
from activities.workbench.command import OUT, WORKSPACE, CommandRunner
from activities.workbench.locks import exclusive
from activities.workbench.mirrors import Mirror
from activities.workbench.reports import clear, read_files
from activities.workbench.scan_worker import ANSWER, TASK
from activities.workbench.trees import remove_tree
from activities.workbench.trials import Place
from models.domain.errors import StageFailed
from models.domain.scanning import MAX_RESULTS, Finding, Scan, ScannerRun, Skipped, blamed, parse_sarif

SECONDS = 300.0
"""For both scanners together: they take a second for most patches, and half a minute for the largest allowed."""
SARIF_FILES = "**/*.sarif"

_HUNK = re.compile(rb"@@ -\d+(?:,\d+)? \+(\d+)(?:,\d+)? @@")
_PYTHON_SUFFIXES = (".py", ".pyw")
_LINK, _SUBMODULE, _NO_MODE = "120000", "160000", "000000"


@dataclass(frozen=True)
class ChangedFile:
    """A file as the patch leaves it. `head` and `base` are git's names of its contents, `base` empty for a new file."""

    path: str
    old_path: str
    head: str
    base: str
    mode: str
    added: Mapping[int, str] = field(default_factory=dict, repr=False)

    @property
    def may_be_python(self) -> bool:
        """Whether its content is worth a look."""
        suffix = PurePosixPath(self.path).suffix
        return self.mode not in (_LINK, _SUBMODULE) and (not suffix or suffix in _PYTHON_SUFFIXES)


@dataclass(frozen=True)
class Change:
    """All files that a patch adds or changes."""

    files: tuple[ChangedFile, ...]

    @property
    def added(self) -> dict[str, frozenset[int]]:
        """The numbers of added lines, per file."""
        return {file.path: frozenset(file.added) for file in self.files}

    @property
    def renamed(self) -> dict[str, str]:
        """New paths by old ones."""
        return {file.old_path: file.path for file in self.files if file.old_path != file.path}


async def read_change(mirror: Mirror, base_sha: str, head_sha: str) -> Change:
    """Ask git what lies between two commits. Attributes that hide content from diffs are not obeyed."""
    options = ("-r", "-z", "-M", "--diff-filter=AMRCT", base_sha, head_sha)
    raw = await mirror.git("diff-tree", "--raw", "--no-abbrev", *options)
    shown = ("--patch", "--unified=0", "--text", "--no-ext-diff", "--no-textconv", "--no-color")
    patch = await mirror.git("diff-tree", *shown, *options)
    sections = _sections(patch.out)
    return Change(tuple(_changed_files(raw.out.decode("utf-8", "replace"), sections)))


def text_of(diff: bytes) -> Change:
    """Take the lines that any text of a patch would add, whether it applies or not, as those of one file."""
    lines = (line for line in diff.split(b"\n") if line.startswith(b"+"))
    added = {number: _text(line[1:]) for number, line in enumerate(lines, 1)}
    return Change((ChangedFile("patch.diff", "patch.diff", "", "", "", added),))


async def scan_change(mirror: Mirror, change: Change, salt: bytes, folder: Path) -> Scan:
    """Run bandit on the changed Python files and detect-secrets on all added lines, in one process.

    Args:
        salt: keys the fingerprints, so that nobody can try out secrets against them.
        folder: holds what is scanned while it is; in the workbench, which is cleared whatever happens to us.

    Raises:
        StageFailed: `scan_failed`, when a scanner crashed or took too long.
    """
    files = [file for file in change.files if file.may_be_python]
    blobs = await _blobs(mirror, [sha for file in files for sha in (file.head, file.base) if sha])
    python = [file for file in files if _is_python(file, blobs[file.head])]
    async with _own(folder) as (place, lock):
        task = {
            "python": [_lay_out(place, number, file, blobs) for number, file in enumerate(python)],
            "added": {file.path: list(file.added.items()) for file in change.files},
        }
        (place / TASK).write_text(json.dumps(task), encoding="utf-8")
        answer = await _work(place, salt, lock)
    found = await asyncio.to_thread(_blamed_in, answer, change)
    no_python = () if python else (Skipped(name="bandit", reason="the patch changes no Python file"),)
    scanners = tuple(ScannerRun.model_validate(scanner) for scanner in answer["scanners"])
    return Scan(findings=found, scanners=scanners, skipped=no_python)


async def scan_sarif(
    runner: CommandRunner, base: Place, head: Place, line: str, seconds: float, change: Change
) -> Scan:
    """Run a registered scanner at the base and at the patch; it writes SARIF files to `/out`.

    Its output goes nowhere: scanners for secrets print what they found.

    Raises:
        StageFailed: `scan_failed`, when it was stopped or wrote no SARIF; `report_refused`.
    """
    before = await _sarif_of(runner, base, line, seconds, "base")
    after = await _sarif_of(runner, head, line, seconds, "patch")
    found = await asyncio.to_thread(blamed, after[1], before[1], change.added, change.renamed)
    return Scan(findings=found, scanners=tuple(after[0]))


def _sections(patch: bytes) -> Iterator[dict[int, str]]:
    """The added lines of each file of a patch without context lines, so that only headers have no sign before them."""
    added: dict[int, str] | None = None
    number = 0
    for line in patch.split(b"\n"):
        if line.startswith(b"diff --git "):
            if added is not None:
                yield added
            added, number = {}, 0
        elif match := _HUNK.match(line):
            number = int(match[1])
        elif line.startswith(b"+") and added is not None and number:
            added[number] = _text(line[1:])
            number += 1
    if added is not None:
        yield added


def _text(line: bytes) -> str:
    """A line as text, whatever its encoding: for ASCII in UTF-16, it is enough to leave the zeros out."""
    return line.replace(b"\0", b"").decode("utf-8", "replace")


def _changed_files(raw: str, sections: Iterator[dict[int, str]]) -> Iterator[ChangedFile]:
    """Read git's raw list; the patch has its sections in the same order, two for a file that changes its type."""
    tokens = iter(raw.split("\0"))
    for token in tokens:
        if token.startswith(":"):
            old_mode, mode, base, head, kind = token[1:].split(" ")
            old_path = next(tokens)
            path = next(tokens) if kind[0] in "RC" else old_path
            if kind[0] == "T":
                next(sections)
            known = old_mode == mode or old_mode not in (_LINK, _SUBMODULE, _NO_MODE)
            yield ChangedFile(path, old_path, head, base if known else "", mode, next(sections))


async def _blobs(mirror: Mirror, names: Sequence[str]) -> dict[str, bytes]:
    """Read contents by git's names for them."""
    asked = "".join(f"{name}\n" for name in dict.fromkeys(names)).encode()
    if not asked:
        return {}
    data = (await mirror.git("cat-file", "--batch", stdin=asked)).out
    found, at = {}, 0
    while at < len(data):
        end = data.index(b"\n", at)
        name, _, size = data[at:end].decode().split(" ")
        found[name] = data[end + 1 : end + 1 + int(size)]
        at = end + 1 + int(size) + 1
    return found


def _is_python(file: ChangedFile, content: bytes) -> bool:
    first = content.partition(b"\n")[0]
    return file.path.endswith(_PYTHON_SUFFIXES) or (first.startswith(b"#!") and b"python" in first)


def _lay_out(folder: Path, number: int, file: ChangedFile, blobs: Mapping[str, bytes]) -> dict[str, Any]:
    """Write a file's versions under names of ours: no path of the repository decides where we write."""
    for side, sha in (("head", file.head), ("base", file.base)):
        if sha:
            (folder / f"{number}-{side}.py").write_bytes(blobs[sha])
    return {
        "path": file.path,
        "head": f"{number}-head.py",
        "base": f"{number}-base.py" if file.base else "",
        "added": sorted(file.added),
    }


@asynccontextmanager
async def _own(folder: Path) -> AsyncIterator[tuple[Path, int]]:
    """Make a place in `folder` that only we see, and remove it: what is scanned may be secret. Gives the lock too."""
    place = folder / "task"
    async with exclusive(folder) as lock:
        await remove_tree(place, lock)
        place.mkdir(mode=0o700)
        try:
            yield place, lock
        finally:
            await undisturbed(remove_tree(place, lock))


async def _work(folder: Path, salt: bytes, lock: int) -> dict[str, Any]:
    """Run the worker, alone with its folder: no variable of ours, and so no secret of ours, goes along."""
    process = await asyncio.create_subprocess_exec(
        *setpriv("--pdeathsig=KILL"),
        *(sys.executable, "-I", "-m", "activities.workbench.scan_worker", str(folder)),
        cwd=folder,
        env={"PATH": os.defpath, "HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"},
        stdin=PIPE,
        stdout=DEVNULL,
        stderr=PIPE,
        start_new_session=True,
        pass_fds=(lock,),
    )
    try:
        async with asyncio.timeout(SECONDS):
            _, said = await process.communicate(salt)
    except TimeoutError:
        raise StageFailed("scan_failed", f"The scanners took longer than {SECONDS:g} s and were stopped.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise StageFailed("scan_failed", f"The scanners crashed with code {process.returncode}{_error_in(said)}.")
    answer: dict[str, Any] = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
    return answer


def _error_in(said: bytes) -> str:
    """Name the last exception of a traceback and nothing more: the rest may quote what was scanned."""
    found = re.findall(rb"^([A-Za-z_.]+(?:Error|Exception))\b", said, re.MULTILINE)
    return f" ({found[-1].decode()})" if found else ""


def _blamed_in(answer: dict[str, Any], change: Change) -> tuple[Finding, ...]:
    head, base = ([Finding.model_validate(one) for one in answer[side]] for side in ("head", "base"))
    return blamed(head, base, change.added, change.renamed)


async def _sarif_of(
    runner: CommandRunner, place: Place, line: str, seconds: float, where: str
) -> tuple[list[ScannerRun], list[Finding]]:
    await clear(place.out)
    result = await runner.run(place.command(line, seconds), _discard)
    if result.stopped:
        raise StageFailed("scan_failed", f"The registered scanner was stopped at the {where}: {result.stopped}.")
    files = await asyncio.to_thread(read_files, place.out, SARIF_FILES)
    if not files:
        code = f"it ended with code {result.exit_code}"
        raise StageFailed("scan_failed", f"The registered scanner left no {OUT}/*.sarif at the {where}; {code}.")
    return await asyncio.to_thread(_parsed, files)


def _parsed(files: Mapping[str, bytes]) -> tuple[list[ScannerRun], list[Finding]]:
    """Read all logs of one run of a scanner: its results are bounded together."""
    scanners: list[ScannerRun] = []
    found: list[Finding] = []
    for name, data in files.items():
        more = _parsed_one(name, data, MAX_RESULTS - len(found))
        scanners += more[0]
        found += more[1]
    return scanners, found


def _parsed_one(name: str, data: bytes, room: int) -> tuple[list[ScannerRun], list[Finding]]:
    try:
        return parse_sarif(data, WORKSPACE, room)
    except ValueError as error:
        raise StageFailed("scan_failed", f"The registered scanner's {name!r} cannot be read: {error}.") from None


async def _discard(data: bytes) -> None:
    """Scanners for secrets print what they found."""
