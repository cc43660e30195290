"""The first start waits for what may come after it, and for nothing else."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from models.domain.errors import Misconfigured, Unavailable
from models.settings import Settings
from models.store.connections import plain
from models.store.database import Database
from models.store.first_start import keep_trying_first_start
from models.store.migrate import migrate
from tests.fixtures.logs import Lines
from tests.fixtures.servers import PostgresServer
from tests.fixtures.waiting import until

PROGRAM = Path(sys.executable).with_name("mission-control")
BROKEN = "ALTER TABLE principal RENAME COLUMN role TO rank"


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    """A database of the test's own, without a schema."""
    return postgres_server.create_database()


@pytest.fixture
async def fresh(settings: Settings, url: str) -> AsyncIterator[tuple[Database, Settings]]:
    """An installation that begins on it."""
    own = settings.model_copy(update={"database_url": SecretStr(url)})
    database = Database.from_settings(own)
    yield database, own
    await database.close()


def alter(url: str, statement: str) -> None:
    """Change a database as its owner may by hand."""
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute(statement.encode())


async def test_a_database_that_is_migrated_later_is_waited_for(
    fresh: tuple[Database, Settings], url: str, logged: Callable[[], Lines]
) -> None:
    lines, (db, settings) = logged(), fresh
    trying = asyncio.create_task(keep_trying_first_start(db, settings))
    await until(lambda: any(line["event"] == "first_start_waits" for line in lines()))
    await asyncio.to_thread(migrate, url)
    await trying
    assert settings.key_file.exists()


async def test_a_file_that_cannot_be_written_ends_it(db: Database, settings: Settings) -> None:
    unwritable = settings.model_copy(update={"api_key_file": Path("/proc/x/key")})
    with pytest.raises(Unavailable, match="set MC_API_KEY_FILE"):
        await keep_trying_first_start(db, unwritable)


async def test_a_schema_that_is_not_what_it_says_ends_it(fresh: tuple[Database, Settings], url: str) -> None:
    await asyncio.to_thread(migrate, url)
    alter(url, BROKEN)
    with pytest.raises(Misconfigured, match=r"principal.role does not exist.*Restore it from a dump") as told:
        await keep_trying_first_start(*fresh)
    assert told.value.code == "schema_differs"


def test_the_api_then_ends_with_a_line_that_says_what_to_do(url: str, tmp_path: Path) -> None:
    migrate(url)
    alter(url, BROKEN)
    env = {"DATABASE_URL": url, "TEMPORAL_ADDRESS": "127.0.0.1:1", "MC_DATA_DIR": str(tmp_path), "MC_API_PORT": "0"}
    ended = subprocess.run([PROGRAM, "api"], env=os.environ | env, capture_output=True, text=True, check=False)
    [told] = ended.stderr.splitlines()
    assert (ended.returncode, told.startswith("schema_differs: ")) == (2, True)
    assert "Traceback" not in ended.stdout


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "schema_unknown", "9999"),
        ("DROP TABLE installation", "schema_differs", 'relation "installation" does not exist'),
    ],
)
def test_what_cannot_be_migrated_is_told_with_what_to_do(url: str, change: str, code: str, named: str) -> None:
    migrate(url)
    alter(url, change)
    with pytest.raises(Misconfigured) as told:
        migrate(url)
    assert (told.value.code, named in told.value.message) == (code, True), told.value.message
    assert "restore a dump" in told.value.message
