"""Built environments: one per workspace, lock files, set-up command and toolchain, shared by all worktrees.

Each has a folder under `environments/`, named by its key. The set-up runs in it with network, once, in a fresh checkout
of the base commit; a file beside it says that it is whole, so one that was interrupted is built again from nothing.
Afterwards it is only ever mounted read-only, and the project itself is not in it.
"""

import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel

from activities.workbench.command import (
    ENV,
    SITE,
    WORKSPACE,
    Command,
    CommandResult,
    CommandRunner,
    Isolation,
    Limits,
    Mount,
    OnOutput,
)
from activities.workbench.disk import BYTES, usage
from activities.workbench.locks import exclusive
from activities.workbench.package_indexes import PackageIndexes
from activities.workbench.setups import SCRIPT, Setup, setup_of
from activities.workbench.trees import remove_tree
from models.domain.canonical import digest_of
from models.domain.errors import StageFailed

Fresh = Callable[[], Awaitable[Path]]

GIGABYTE = 1024**3
SETUP_LIMITS = Limits(memory=4 * GIGABYTE, processes=1024, disk=10 * GIGABYTE)
"""Compilers and large packages need more than tests do."""

WEB_PORTS = (80, 443)
_UNGUARDED = b"[mission-control] nothing keeps this set-up from the servers of its host\n"

KEPT_BYTES = 20 * GIGABYTE
IDLE_SECONDS = 6 * 3600.0
"""An environment that was used so lately may still be in use by a mission between two commands."""


@dataclass(frozen=True)
class EnvironmentSpec:
    """What decides about an environment besides the files of the base commit.

    `setup` is the repository's own command, None to recognise one; `test` what will be run (None: pytest).
    """

    workspace_id: str
    setup: str | None = None
    test: str | None = None
    seconds: float = 1800


@dataclass(frozen=True)
class Environment:
    """A built environment, and how to use it in a worktree."""

    path: Path
    key: str
    seconds: float
    """How long it took to build, whenever that was."""
    from_cache: bool
    install: str = ""
    """The line that installs the project of a worktree into `/site`; empty when there is nothing to do."""
    env: dict[str, str] = field(default_factory=dict)

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """What every command in it sees."""
        return (Mount(self.path, ENV), SCRIPT)

    def mounts_with(self, site: Path) -> tuple[Mount, ...]:
        """The same with one worktree's own folder for what is installed from it; the folder must exist."""
        return (*self.mounts, Mount(site, SITE, writable=True))


class _Built(BaseModel):
    """What is written down when an environment is finished."""

    seconds: float
    bytes: int


class Environments:
    """The environments of this host, below `cache_dir`."""

    def __init__(
        self,
        cache_dir: Path,
        runner: CommandRunner,
        variables: Mapping[str, str] = os.environ,
        ports: Iterable[int] = (),
    ) -> None:
        """Take few of the worker's `variables` along; `ports` are those that set-ups reach besides the usual ones."""
        self._folder = cache_dir / "environments"
        self._runner = runner
        self._indexes = PackageIndexes.known_to(variables)
        self.ports = frozenset((*WEB_PORTS, *self._indexes.ports, *ports))

    async def ensure(self, spec: EnvironmentSpec, source: Path, fresh: Fresh, on_output: OnOutput) -> Environment:
        """Give the environment for the base checkout `source`, built now if there is none.

        Safe to repeat and to call from several processes at once: one builds, the others wait for it.

        Args:
            source: names the environment by its files, so nothing may ever have been run in it.
            fresh: makes another checkout of the same commit, for the set-up to write in.

        Raises:
            StageFailed: `environment_failed`, the set-up did not succeed; its output says why.
        """
        setup = setup_of(source, spec.setup, spec.test)
        key = self._key(spec, setup, source)
        home = self._folder / key
        async with exclusive(home) as lock:
            built = _built(home)
            from_cache = built is not None
            if built is None:
                await remove_tree(home / "env", lock)
                command = self._command(spec, setup, await fresh(), home / "env")
                built = await self._build(home, command, on_output)
            _ready(home).touch()
        if not from_cache:
            await self.prune()
        return Environment(home / "env", key, built.seconds, from_cache, setup.install, setup.env)

    async def install(self, environment: Environment, worktree: Path, site: Path, on_output: OnOutput) -> CommandResult:
        """Install the project of one worktree into its `site`, without network; a failure is a result."""
        mounts = (Mount(worktree, WORKSPACE, writable=True), *environment.mounts_with(site))
        return await self._runner.run(Command(environment.install or "true", mounts, environment.env), on_output)

    async def prune(self, max_bytes: int = KEPT_BYTES, idle_seconds: float = IDLE_SECONDS) -> None:
        """Delete what was used longest ago until `max_bytes` are left; nothing that was used within `idle_seconds`."""
        homes = [(used, home) for home in self._folder.iterdir() if (used := _last_use(home)) is not None]
        kept = sum(built.bytes for _, home in homes if (built := _built(home)))
        for used, home in sorted(homes):
            built = _built(home)
            if time.time() - used < idle_seconds or (built and kept <= max_bytes):
                continue
            kept -= built.bytes if built else 0
            await self._delete(home, used)

    async def _delete(self, home: Path, used: float) -> None:
        async with exclusive(home) as lock:
            # Somebody may have used it, or deleted it too, while we waited for it.
            if _last_use(home) == used:
                # First: broken off in the middle, what is left must not pass for whole.
                _ready(home).unlink(missing_ok=True)
                await remove_tree(home, lock)

    def _key(self, spec: EnvironmentSpec, setup: Setup, source: Path) -> str:
        facts = {"workspace": spec.workspace_id, "in_place": self._runner.isolation is Isolation.NONE}
        return digest_of(facts | setup.facts(source)).removeprefix("sha256:")

    def _command(self, spec: EnvironmentSpec, setup: Setup, tree: Path, env: Path) -> Command:
        own = (Mount(tree, WORKSPACE, writable=True), Mount(env, ENV, writable=True), SCRIPT)
        variables = {**self._indexes.variables, **setup.build_env}
        limits = replace(SETUP_LIMITS, seconds=spec.seconds)
        mounts = (*own, *self._indexes.mounts)
        return Command(setup.line, mounts, variables, network=True, ports=self.ports, limits=limits)

    async def _build(self, home: Path, command: Command, on_output: OnOutput) -> _Built:
        (home / "env").mkdir()
        if not self._runner.guards_ports and self._runner.isolation is not Isolation.NONE:
            await on_output(_UNGUARDED)
        output = self._indexes.hidden(on_output)
        result = await self._runner.run(command, output.write)
        await output.close()
        if not result.ok:
            how = f"was stopped: {result.stopped}" if result.stopped else f"ended with exit code {result.exit_code}"
            raise StageFailed("environment_failed", f"The set-up of the environment {how}; its output says why.")
        size, _ = await usage([home / "env"], BYTES)
        built = _Built(seconds=result.seconds, bytes=size)
        draft = home / "ready.new"
        draft.write_text(built.model_dump_json(), encoding="utf-8")
        draft.replace(_ready(home))
        return built


def _ready(home: Path) -> Path:
    """Written last: says that an environment is whole. Its time is that of the last use."""
    return home / "ready.json"


def _built(home: Path) -> _Built | None:
    try:
        return _Built.model_validate_json(_ready(home).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _last_use(home: Path) -> float | None:
    """When it was last used, or begun; None when it is gone: others delete too."""
    for place in (_ready(home), home):
        with suppress(FileNotFoundError):
            return place.stat().st_mtime
    return None
