"""Runs git so that neither a repository nor the machine it runs on can change what it does.

Nothing is taken from a repository's or the machine's configuration: no hooks, no drivers for filters and diffs, no
file system monitor, no helper that could ask for a password. Programs that git runs for *another* repository (the
receiving side of a push to a local path) obey that repository: its hooks are its owner's law.
"""

import asyncio
import os
import re
import resource
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from activities.workbench.cleanup import setpriv
from models.domain.errors import StageFailed, Unavailable

LOCAL_SECONDS = 120.0
"""For commands that touch only this machine."""
TRANSFER_SECONDS = 540.0
"""For fetches and pushes, also of large repositories: less than an activity may take, so that git's end is heard of."""

_MAX_OUTPUT = 256 * 1024**2
_MAX_FILE = 16 * 1024**3
_MAX_STDERR = 64 * 1024
_MAX_LINE = 500
"""Characters of a complaint that are passed on: it may quote a path of any length."""
_MAX_MEMORY = 2 * 1024**3
"""Of git's own, not of the packs it maps: enough for a million files, and a host is shared."""
_SMALLER = "the change, or what it touches, is too large to be judged. Leave large files out of it."
_TRANSFERS = ("push", "fetch", "ls-remote")
_INVALID_PATH = re.compile(r"^error: invalid path '", re.IGNORECASE | re.MULTILINE)
_CRASHES = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
_GRACE_SECONDS = 2.0
_PASSED_ON = (
    "PATH",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    *(name for word in ("http", "https", "all", "no") for name in (f"{word}_proxy", f"{word}_proxy".upper())),
)
_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "SSH_ASKPASS": "/bin/false",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=15",
    "GIT_SSH_VARIANT": "ssh",
    "GIT_ALLOW_PROTOCOL": "https:ssh:file",
    "GIT_NO_REPLACE_OBJECTS": "1",
}
_CONFIG = {
    "core.hooksPath": "/dev/null",
    "core.attributesFile": "/dev/null",
    "core.fsmonitor": "false",
    "core.symlinks": "true",
    "core.autocrlf": "false",
    "core.logAllRefUpdates": "false",
    "protocol.ext.allow": "never",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "push.recurseSubmodules": "no",
    "commit.gpgSign": "false",
    "push.gpgSign": "false",
    "gpg.format": "ssh",
    "diff.algorithm": "myers",
    "diff.renames": "true",
    "gc.autoDetach": "false",
    "http.followRedirects": "false",  # a repository's rules are those of its place
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
}


class GitError(Unavailable):
    """A git command failed in a way that a later try may mend. Codes `git_failed` and `git_timeout`.

    `stderr` is what git said, without host paths and credentials.
    """

    def __init__(self, message: str, *, stderr: str = "", code: str = "git_failed") -> None:
        super().__init__(code, message, stderr=stderr)
        self.stderr = stderr


@dataclass(frozen=True)
class GitResult:
    """What came of a command; `err` is free of host paths and credentials."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Output as stripped text, for SHAs and the like."""
        return self.out.decode("utf-8", "replace").strip()


class GitOptions(TypedDict, total=False):
    """The options of `Git.run`, for those who pass them on."""

    stdin: bytes
    config: Mapping[str, str]
    env: Mapping[str, str]
    ok: Collection[int]
    timeout: float
    hold: int | None
    max_output: int


class Git:
    """Starts git commands with a home folder of our own, where an operator may put a `.netrc` for https."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._scratch = home / "tmp"
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        # TERM lets it take its lock files away.
        self._prefix = (*setpriv("--pdeathsig=TERM"), "git")

    async def run(
        self,
        *args: str,
        git_dir: Path | None = None,
        stdin: bytes = b"",
        config: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        ok: Collection[int] = (0,),
        timeout: float = LOCAL_SECONDS,
        hold: int | None = None,
        max_output: int = _MAX_OUTPUT,
    ) -> GitResult:
        """Run `git args…` to its end.

        Args:
            config: settings for this command; they cannot loosen ours.
            hold: descriptor of a lock the command keeps held as long as it lives.
            ok: exit codes that are an answer rather than a failure.
            timeout: seconds; past them, and when the task is cancelled, the command and its children are stopped.

        Raises:
            GitError: another exit code, or too slow.
            StageFailed: another try would end as this one did: `change_too_large`, more than `max_output` bytes of
                output, or more memory; `path_too_long` for this machine; `path_invalid` for git; `git_crashed`.
        """
        where = (f"--git-dir={git_dir}",) if git_dir else ()
        process = await asyncio.create_subprocess_exec(
            *self._prefix,
            *_as_options({**(config or {}), **_CONFIG}),
            "--no-optional-locks",
            "--no-pager",
            *where,
            *args,
            cwd=self.home,
            env=self._environment(env or {}),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
            pass_fds=() if hold is None else (hold,),
        )
        with suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (_MAX_FILE, _MAX_FILE))
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (_MAX_MEMORY, _MAX_MEMORY))
        result = await _finish(process, args[0], stdin, timeout, max_output)
        if result.code not in ok:
            raise _beyond_git(args[0], result) or GitError(_message(args[0], result), stderr=result.err)
        return result

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        own = {"HOME": str(self.home), "TMPDIR": str(self._scratch), "GIT_CEILING_DIRECTORIES": str(self.home.parent)}
        return {**passed_on, **_ENVIRONMENT, **own, **extra}


def redact(text: str) -> str:
    """Take credentials out of URLs and paths of this machine out of what git printed."""
    text = re.sub(r"file://[^\s'\"]+", "<path>", text)
    text = re.sub(r"://[^/@\s]+@", "://", text)
    text = re.sub(r"(['\"])/[^'\"\n]*\1", r"\1<path>\1", text)
    return re.sub(r"(?<![\w:/.~<>*+-])/[^\s'\":,;]+", "<path>", text)


def _as_options(config: Mapping[str, str]) -> list[str]:
    return [part for name, value in config.items() for part in ("-c", f"{name}={value}")]


def _message(command: str, result: GitResult) -> str:
    """Name the failure by git's own complaint and the line before it, where ssh or the origin says why."""
    lines = [line.strip()[:_MAX_LINE] for line in result.err.splitlines() if line.strip()]
    said = lines or [f"exit code {result.code}"]
    verdict = next((n for n, line in enumerate(said) if line.startswith(("fatal:", "error:"))), len(said) - 1)
    return f"git {command} failed: {'; '.join(said[max(0, verdict - 1) : verdict + 1])}"


def _beyond_git(command: str, result: GitResult) -> StageFailed | None:
    """Tell a failure that every later try repeats; never of what talks to an origin, which may be another next time."""
    if command in _TRANSFERS:
        return None
    message = _message(command, result)
    if "File name too long" in result.err:
        return StageFailed("path_too_long", f"{message}. A path is longer than this machine's file system takes.")
    if _INVALID_PATH.search(result.err):
        return StageFailed("path_invalid", f"{message}. Git writes no such path: take it out of the commit.")
    if "Out of memory" in result.err:
        return StageFailed("change_too_large", f"git {command} took more than {_MAX_MEMORY} bytes: {_SMALLER}")
    if -result.code in _CRASHES:
        crash = signal.Signals(-result.code).name
        return StageFailed("git_crashed", f"git {command} ended by {crash}: it cannot read what it was given.")
    return None


async def _finish(process: Process, command: str, stdin: bytes, timeout: float, max_output: int) -> GitResult:
    """Talk to the process until it ends; whatever else ends the talk, ends the process with all its children."""
    try:
        async with asyncio.timeout(timeout):
            return await _converse(process, command, stdin, max_output)
    except TimeoutError:
        await _stop(process)
        raise GitError(f"git {command} took longer than {timeout:g} s and was stopped.", code="git_timeout") from None
    except BaseException:
        await _stop(process)
        raise


async def _converse(process: Process, command: str, stdin: bytes, max_output: int) -> GitResult:
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise RuntimeError("git was started without pipes")
    feeding = asyncio.ensure_future(_feed(process.stdin, stdin))
    complaining = asyncio.ensure_future(_tail(process.stderr))
    try:
        out = bytearray()
        while chunk := await process.stdout.read(1 << 16):
            out += chunk
            if len(out) > max_output:
                raise StageFailed("change_too_large", f"git {command} printed more than {max_output} bytes: {_SMALLER}")
        err = await complaining
        return GitResult(await process.wait(), bytes(out), redact(err.decode("utf-8", "replace")))
    finally:
        feeding.cancel()
        complaining.cancel()


async def _feed(stdin: asyncio.StreamWriter, data: bytes) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):
        if data:
            stdin.write(data)
            await stdin.drain()
        # Not waited for: cancelled in there, asyncio would stumble over the end of the pipe.
        stdin.close()


async def _tail(stream: asyncio.StreamReader) -> bytes:
    """Read all, keep the end: the last words say why."""
    kept = b""
    while chunk := await stream.read(1 << 16):
        kept = (kept + chunk)[-_MAX_STDERR:]
    return kept


async def _stop(process: Process) -> None:
    """End the whole process group: TERM first, so that git removes its lock files, KILL for what ignores it.

    Its children answer TERM as fast as it does. They are waited for only briefly, because orphans count as alive until
    the machine's first process reaps them, which in a container may take seconds.
    """
    try:
        _signal(process.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _GRACE_SECONDS)
        for _ in range(10):
            if not _signal(process.pid, 0):
                break
            await asyncio.sleep(_GRACE_SECONDS / 100)
    finally:
        _signal(process.pid, signal.SIGKILL)
    await process.wait()


def _signal(group: int, number: int) -> bool:
    """Signal a process group; False when none of it is left."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
