"""What becomes of open streams when the database dies, comes back, or is another one."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import psycopg
import pytest
from pydantic import SecretStr

from models.settings import Settings
from models.store.connections import plain
from models.store.database import Database
from models.store.migrate import migrate
from tests.fixtures.api import make_team, served
from tests.fixtures.watching import tell, watching
from worker.dev.ports import free_port
from worker.dev.postgres import EmbeddedPostgres, installed_binaries


@pytest.fixture
async def own_postgres(open_dir: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A server that the test may kill."""
    async with EmbeddedPostgres(open_dir, Settings().cache_dir, free_port()) as server:
        await asyncio.to_thread(migrate, server.url)
        yield server


def on(settings: Settings, server: EmbeddedPostgres) -> Settings:
    """The settings, with another database."""
    return settings.model_copy(update={"database_url": SecretStr(server.url)})


async def kill(server: EmbeddedPostgres) -> None:
    """SIGKILL the server and all its backends."""
    assert server.child
    await server.child.kill()


async def test_postgres_is_killed_and_comes_back(settings: Settings, own_postgres: EmbeddedPostgres) -> None:
    theirs = on(settings, own_postgres)
    db = Database.from_settings(theirs)
    team = await make_team(db)
    async with served(theirs) as address, watching(address, team.observer) as watch:
        await tell(db, team.workspace_id, "before")
        assert await watch.subjects(1) == ["before"]
        await kill(own_postgres)
        await own_postgres.start()
        await db.close()
        db = Database.from_settings(theirs)
        await tell(db, team.workspace_id, "after", "and more")
        assert await watch.subjects(2) == ["after", "and more"]
    await db.close()


async def test_an_api_that_starts_before_its_database(settings: Settings, own_postgres: EmbeddedPostgres) -> None:
    theirs = on(settings, own_postgres)
    db = Database.from_settings(theirs)
    team = await make_team(db)
    await db.close()
    await own_postgres.stop()
    async with served(theirs) as address:
        await own_postgres.start()
        async with watching(address, team.observer) as watch:
            db = Database.from_settings(theirs)
            await tell(db, team.workspace_id, "first")
            assert await watch.subjects(1) == ["first"]
            await db.close()


async def test_dump_restore_into_a_new_cluster_and_the_stream_goes_on(
    settings: Settings, own_postgres: EmbeddedPostgres, open_dir: Path
) -> None:
    old = on(settings, own_postgres)
    db = Database.from_settings(old)
    team = await make_team(db)
    use_transaction_ids(own_postgres, 2000)
    last_seen = await tell(db, team.workspace_id, "seen")
    await tell(db, team.workspace_id, "missed")
    await db.close()
    async with EmbeddedPostgres(open_dir / "new", Settings().cache_dir, free_port()) as target:
        move(own_postgres, target, open_dir / "dump")
        new = on(settings, target)
        async with served(new) as address, httpx2.AsyncClient() as anyone:
            answer = await anyone.get(f"{address}/readyz")
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "restored_dump")
        await asyncio.to_thread(migrate, target.url)
        db = Database.from_settings(new)
        async with served(new) as address, watching(address, team.observer, last_id=str(last_seen)) as watch:
            place = await tell(db, team.workspace_id, "new")
            assert await watch.subjects(2) == ["missed", "new"]
            await tell(db, team.workspace_id, "newer")
            assert await watch.subjects(1) == ["newer"]
        assert place.epoch == last_seen.epoch + 1
        assert place.xid < last_seen.xid, "the new cluster counts transactions from the beginning: what epochs are for"
        await db.close()


def use_transaction_ids(server: EmbeddedPostgres, count: int) -> None:
    """Move the cluster's transaction ids on, as use does."""
    with psycopg.connect(plain(server.url), autocommit=True) as connection:
        for _ in range(count):
            connection.execute("SELECT pg_current_xact_id()")


def move(source: EmbeddedPostgres, target: EmbeddedPostgres, file: Path) -> None:
    """Move a database as an operator does, with the tools of the server's own version: roles first, then the rest."""
    binaries = installed_binaries()
    roles = run(binaries / "pg_dumpall", "--roles-only", f"--dbname={plain(source.url)}")
    ours = "\n".join(line for line in roles.splitlines() if "mission_control_" in line)
    run(binaries / "psql", "--set=ON_ERROR_STOP=1", plain(target.url), given=ours)
    run(binaries / "pg_dump", "--format=custom", f"--file={file}", plain(source.url))
    run(binaries / "pg_restore", "--exit-on-error", f"--dbname={plain(target.url)}", str(file))


def run(*argv: str | Path, given: str = "") -> str:
    """Run a tool that must succeed; what it said."""
    done = subprocess.run([str(part) for part in argv], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
