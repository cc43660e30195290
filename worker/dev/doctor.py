"""`mission-control doctor`: looks at every part by using it, and says how to mend what does not work."""

import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
from pydantic import SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.service import RPCError

from activities.workbench.command import Isolation
from activities.workbench.environments import Environments
from activities.workbench.sandbox import Sandbox
from models.domain.errors import Misconfigured, MissionControlError
from models.settings import Settings
from models.store.migrate import pending
from worker.dev.audit_health import MEND as AUDIT_MEND
from worker.dev.audit_health import audit_health
from worker.dev.ports import USUAL, asked_port, holder, is_free, listens
from worker.dev.postgres import MAJOR, EmbeddedPostgres
from worker.dev.programs import is_ready, pollers
from worker.dev.roots import MEND, outside
from worker.dev.state import leftovers, read_state, running_up
from worker.dev.temporal_cli import CLI_VERSION, available_cli, go_command
from worker.own_ports import UNGUARDED, require_apart
from workflows.client import connect, plainly
from workflows.queues import control_queue

FREE_GIB = 2
"""A test environment, a mirror and a day of history fit in this."""
OLDEST_GIT = (2, 38)
"""The first with `git merge-tree --write-tree`."""
NOT_RUNNING = "not running; `mission-control up` starts it"


@dataclass(frozen=True)
class Check:
    """What one look found. `mend` says what to do; it is empty where `ok`."""

    name: str
    ok: bool
    detail: str
    mend: str = ""


async def check(settings: Settings) -> list[Check]:
    """Look at everything. A server that `up` would start, and that does not run, is no fault."""
    running = as_running(settings)
    tools = [_python(), _git(), _ssh_keygen(), *await _isolation(settings), _temporal_cli(settings)]
    folders = [_folder("data folder", settings.data_dir), _folder("cache folder", settings.cache_dir)]
    looks = (_postgres, _migrations, _repositories, _audit_log, _temporal, _worker, _api)
    servers = await asyncio.gather(*(_looked(look, running) for look in looks))
    return [*tools, *folders, *_key_files(settings), *_ports(settings), *servers]


def as_running(settings: Settings) -> Settings:
    """The settings with the addresses and the roots of the `up` that runs on the data folder, if one does."""
    state = running_up(settings.data_dir)
    if state is None:
        return settings
    found = state.addresses.model_dump(exclude_none=True)
    if state.repository_roots is not None:
        found["repository_roots"] = state.repository_roots
    if port := state.addresses.postgres_port:
        found["database_url"] = SecretStr(EmbeddedPostgres(settings.data_dir, settings.cache_dir, port).url)
    return settings.model_copy(update=found)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return _judge("Python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer, then `make setup`")


def _git() -> Check:
    said = _output("git", "--version")
    numbers = re.findall(r"\d+", said)
    ok = tuple(map(int, numbers[:2])) >= OLDEST_GIT
    return _judge("git", ok, said or "not found", "install git 2.38 or newer: it makes the merge commits")


def _ssh_keygen() -> Check:
    path = shutil.which("ssh-keygen")
    return _judge("ssh-keygen", path is not None, path or "not found", "install openssh-client: it signs the commits")


async def _isolation(settings: Settings) -> list[Check]:
    """What the sandbox can do here, found by running a command in each kind."""
    mend = (
        "install bubblewrap, or allow user namespaces: without either, tests run beside everything else on this machine"
    )
    try:
        sandbox = await asyncio.to_thread(Sandbox.detect, settings.sandbox)
    except MissionControlError as error:
        return [Check("isolation", False, error.message, mend)]
    if sandbox.isolation is Isolation.NONE:
        return [Check("isolation", False, sandbox.isolation.value, mend)]
    return [Check("isolation", True, sandbox.isolation.value), _set_ups(settings, sandbox)]


def _set_ups(settings: Settings, sandbox: Sandbox) -> Check:
    """Whether set-ups, which have a network, are kept from our own servers."""
    if not sandbox.guards_ports:
        return Check("set-ups", False, "they reach every port of this host", UNGUARDED)
    ports = Environments(settings.cache_dir, sandbox, ports=settings.setup_ports).ports
    try:
        require_apart(settings, ports)
    except Misconfigured as error:
        return Check("set-ups", False, "they reach our own servers", error.message)
    return Check("set-ups", True, f"they reach the TCP ports {', '.join(map(str, sorted(ports)))} and no others")


def _temporal_cli(settings: Settings) -> Check:
    try:
        if cli := available_cli(settings):
            return Check("Temporal CLI", True, f"{cli.version} (server {cli.server}), {cli.path}")
        how = " ".join(go_command())
    except MissionControlError as error:
        return Check("Temporal CLI", settings.temporal_address is not None, "not found", error.message)
    return Check(
        "Temporal CLI", True, f"not here yet; the first start downloads {CLI_VERSION}, or builds it with {how}"
    )


def _folder(name: str, folder: Path) -> Check:
    place = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            free = shutil.disk_usage(place).free / 1024**3
    except OSError as error:
        return Check(
            name, False, f"{folder}: {error.strerror}", "make it writable, or set MC_DATA_DIR and MC_CACHE_DIR"
        )
    mend = f"free some space: less than {FREE_GIB} GiB are left"
    return _judge(name, free >= FREE_GIB, f"{folder}, {free:.0f} GiB free", mend)


def _key_files(settings: Settings) -> list[Check]:
    files = (settings.signing_key, settings.key_file, settings.data_dir / "postgres.password")
    return [_key_file(file) for file in files if file.exists()]


def _key_file(file: Path) -> Check:
    mode = file.stat().st_mode & 0o777
    return _judge(f"{file.name} is private", mode & 0o077 == 0, f"mode {mode:o}", f"chmod 600 {file}")


def _ports(settings: Settings) -> list[Check]:
    """The ports the next start asks for; while one runs they are its own."""
    if running_up(settings.data_dir):
        return []
    return [_port(settings, field, usual) for field, usual in USUAL.items()]


def _port(settings: Settings, field: str, usual: int) -> Check:
    asked = asked_port(settings, field)
    port = usual if asked is None else asked
    if port == 0 or is_free(port):
        return Check(f"port {port}", True, "free")
    if _is_left(settings, port):
        return Check(f"port {port}", True, f"taken by {holder(port)}, left by an earlier `up`; the next one ends it")
    # A usual port that is taken is no fault: the start picks another and says so.
    return _judge(f"port {port}", not asked, f"taken by {holder(port)}", f"stop it, or change MC_{field.upper()}")


def _is_left(settings: Settings, port: int) -> bool:
    """Whether what listens there is a part of an `up` that was killed, which the next one takes over."""
    state = read_state(settings.data_dir)
    return state is not None and any(listens(left.pid, port) for left in leftovers(state.children).values())


async def _looked(look: Callable[[Settings], Awaitable[Check]], settings: Settings) -> Check:
    """One look at a server, with an answer also when the server gives none."""
    name = look.__name__.removeprefix("_")
    try:
        return await asyncio.wait_for(look(settings), 10)
    except (MissionControlError, RPCError, RuntimeError, psycopg.Error, SQLAlchemyError, TimeoutError) as error:
        what = plainly(error) if isinstance(error, RuntimeError) else str(error) or "no answer within 10 s"
        return Check(
            name, False, what.splitlines()[0], "see that it runs and that its address in the settings is right"
        )


async def _postgres(settings: Settings) -> Check:
    if settings.database_url is None:
        return Check("postgres", True, NOT_RUNNING)
    url = make_url(settings.database_url.get_secret_value()).set(drivername="postgresql")
    conninfo = url.render_as_string(hide_password=False)
    async with await psycopg.AsyncConnection.connect(conninfo, connect_timeout=5) as connection:
        version = connection.info.server_version // 10_000
    mend = f"upgrade the server of DATABASE_URL to PostgreSQL {MAJOR}"
    return _judge("postgres", version >= MAJOR, f"PostgreSQL {version} at {url.host}:{url.port}", mend)


async def _migrations(settings: Settings) -> Check:
    if settings.database_url is None:
        return Check("migrations", True, NOT_RUNNING)
    current, head = await asyncio.to_thread(pending, settings.database_url.get_secret_value())
    return _judge("migrations", current == head, f"{current}, newest {head}", "run `mission-control migrate`")


async def _repositories(settings: Settings) -> Check:
    """Whether missions may use what is registered; without a schema nothing is."""
    if settings.database_url is None:
        return Check("repositories", True, NOT_RUNNING)
    current, _ = await asyncio.to_thread(pending, settings.database_url.get_secret_value())
    found = await outside(settings) if current else ""
    return _judge("repositories", not found, f"outside MC_REPOSITORY_ROOTS: {found}" if found else "allowed", MEND)


async def _audit_log(settings: Settings) -> Check:
    """Whether acts are sealed and mirrored, and nothing contradicts what was signed."""
    name = "audit log"
    if settings.database_url is None:
        return Check(name, True, NOT_RUNNING)
    current, head = await asyncio.to_thread(pending, settings.database_url.get_secret_value())
    if current != head:
        return Check(name, True, "not looked at before the migrations")
    found = await audit_health(settings)
    return _judge(name, not found.trouble, found.trouble or found.standing, AUDIT_MEND)


async def _temporal(settings: Settings) -> Check:
    if settings.temporal_address is None:
        return Check("temporal", True, NOT_RUNNING)
    client = await connect(settings)
    info = await client.workflow_service.get_system_info(GetSystemInfoRequest())
    return Check("temporal", True, f"server {info.server_version} at {settings.temporal_address}")


async def _worker(settings: Settings) -> Check:
    if settings.temporal_address is None:
        return Check("worker", True, NOT_RUNNING)
    found = await pollers(await connect(settings), control_queue(settings.task_queue_prefix))
    return _judge("worker", bool(found), f"{len(found)} polled lately", "start one: `mission-control worker`")


async def _api(settings: Settings) -> Check:
    if settings.temporal_address is None:
        return Check("api", True, NOT_RUNNING)
    ready = await is_ready(settings)
    return _judge("api", ready, settings.api_url, "start it: `mission-control api`; its log says why it is not ready")


def _judge(name: str, ok: bool, detail: str, mend: str) -> Check:
    return Check(name, ok, detail, "" if ok else mend)


def _output(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
