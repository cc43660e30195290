import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from models.domain.errors import Conflict, InvalidInput, Unavailable
from models.settings import Settings
from models.store.connections import plain
from tests.fixtures.servers import PostgresServer
from tests.fixtures.waiting import until
from worker.dev.ports import free_port
from worker.dev.postgres import EmbeddedPostgres, installed_binaries, processes_in, reachable_binaries
from worker.dev.process import RunAs

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as another user")


@pytest.fixture
async def server(open_dir: Path) -> AsyncIterator[EmbeddedPostgres]:
    async with EmbeddedPostgres(open_dir, Settings().cache_dir) as server:
        yield server


def ask(server: EmbeddedPostgres | PostgresServer, question: str) -> str:
    with psycopg.connect(plain(server.url)) as connection:
        row = connection.execute(question).fetchone()
    return str(row[0]) if row else ""


def test_each_test_may_have_a_database_of_its_own(postgres_server: PostgresServer) -> None:
    first, second = postgres_server.create_database(), postgres_server.create_database()
    with psycopg.connect(plain(first)) as connection:
        connection.execute("CREATE TABLE mine ()")
    with psycopg.connect(plain(second)) as connection:
        assert connection.execute("SELECT to_regclass('mine')").fetchone() == (None,)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("fsync", "on"), ("listen_addresses", "127.0.0.1"), ("unix_socket_directories", ""), ("data_checksums", "on")],
)
def test_it_is_durable_and_listens_on_loopback_only(postgres_server: PostgresServer, setting: str, value: str) -> None:
    assert ask(postgres_server, f"SELECT current_setting('{setting}')") == value


def test_a_wrong_password_is_refused(postgres_server: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(plain(postgres_server.url), password="wrong")


async def test_the_password_file_is_private(server: EmbeddedPostgres, open_dir: Path) -> None:
    assert (open_dir / "postgres.password").stat().st_mode & 0o777 == 0o600


async def test_data_survives_a_stop(server: EmbeddedPostgres) -> None:
    with psycopg.connect(plain(server.url)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    await server.stop()
    await server.start()
    assert ask(server, "SELECT n FROM kept") == "7"


async def test_data_survives_sigkill(server: EmbeddedPostgres) -> None:
    with psycopg.connect(plain(server.url)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    assert server.child
    await server.child.kill()
    await server.start()
    assert ask(server, "SELECT n FROM kept") == "7"


async def test_a_lock_file_that_names_a_living_stranger_does_not_block(server: EmbeddedPostgres) -> None:
    assert server.child
    await server.child.kill()
    lock = server.cluster / "postmaster.pid"
    lock.write_text(lock.read_text().replace(str(server.child.pid), str(os.getpid()), 1))
    await server.start()
    assert ask(server, "SELECT 1") == "1"


async def test_a_half_made_cluster_is_made_again(open_dir: Path) -> None:
    (open_dir / "postgres.partial").mkdir()
    (open_dir / "postgres.partial" / "PG_VERSION").write_text("18")
    async with EmbeddedPostgres(open_dir, Settings().cache_dir) as server:
        assert ask(server, "SELECT 1") == "1"


async def test_another_major_version_is_refused_and_left_alone(open_dir: Path) -> None:
    cluster = open_dir / "postgres"
    cluster.mkdir(mode=0o755)
    (cluster / "PG_VERSION").write_text("16\n")
    with pytest.raises(Conflict, match=r"PostgreSQL 16.*PostgreSQL 18.*pg_dump"):
        await EmbeddedPostgres(open_dir, Settings().cache_dir).start()
    assert [file.name for file in cluster.iterdir()] == ["PG_VERSION"]


async def test_a_lost_password_is_an_error_that_says_so(server: EmbeddedPostgres, open_dir: Path) -> None:
    await server.stop()
    (open_dir / "postgres.password").write_text("another")
    with pytest.raises(Conflict, match=r"postgres\.password"):
        await server.start()
    assert processes_in(server.cluster) == []


async def test_it_ends_cleanly_when_its_owner_is_killed(open_dir: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OWNER, str(open_dir), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout
    assert await owner.stdout.readline() == b"ready\n"
    owner.kill()
    await owner.wait()
    await until(lambda: not processes_in(open_dir / "postgres"))
    assert not (open_dir / "postgres" / "postmaster.pid").exists()


_OWNER = """
import asyncio, sys
from pathlib import Path
from models.settings import Settings
from worker.dev.postgres import EmbeddedPostgres

async def main():
    async with EmbeddedPostgres(Path(sys.argv[1]), Settings().cache_dir):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@as_root
def test_binaries_that_its_user_cannot_reach_are_copied_once(tmp_path: Path, open_dir: Path) -> None:
    shutil.copytree(installed_binaries().parent, tmp_path / "closed" / "install", symlinks=True)
    (tmp_path / "closed").chmod(0o700)
    found = reachable_binaries(tmp_path / "closed" / "install" / "bin", RunAs(65534, 65534), open_dir / "cache")
    assert found.is_relative_to(open_dir / "cache")
    assert found.stat().st_ino == reachable_binaries(tmp_path, RunAs(65534, 65534), open_dir / "cache").stat().st_ino


@as_root
async def test_a_folder_its_user_cannot_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    with pytest.raises(InvalidInput, match="MC_DATA_DIR"):
        await EmbeddedPostgres(tmp_path / "closed" / "data", Settings().cache_dir).start()


@as_root
async def test_a_user_without_a_name_is_told_what_to_do(open_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nameless = SimpleNamespace(pw_uid=54_321, pw_gid=54_321)
    monkeypatch.setattr("worker.dev.postgres._system_account", lambda: nameless)
    with pytest.raises(Unavailable, match="give this user id a line in /etc/passwd"):
        await EmbeddedPostgres(open_dir, Settings().cache_dir, free_port()).start()
