"""Brings a database to the schema that this version of the program expects."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import ArgumentError, OperationalError, ProgrammingError

from models.domain.errors import Misconfigured

_SCRIPTS = Path(__file__).resolve().parents[2] / "deploy" / "migrations"
_LOCK = 0x4D43_0001
"""Advisory lock: two processes that start at once migrate one after the other."""
CONNECT_SECONDS = 10


def migrate(url: str, revision: str = "head") -> str:
    """Upgrade (or downgrade to `base`) the database at `url`, its owner's; return the revision it has now.

    Raises:
        Misconfigured: `database_unreachable`, `schema_unknown` or `schema_differs`.
    """
    with reach(url) as guard, _told():
        guard.execution_options(isolation_level="AUTOCOMMIT")
        guard.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        with guard.engine.begin() as connection:
            _run(connection, revision)
            _notice_restore(connection)
            _make_partitions(connection)
            return _current(connection)


@contextmanager
def _told() -> Iterator[None]:
    """Say what to do where a database cannot be brought to our schema."""
    another = "start that version, restore a dump (docs/runbook.md), or start on another database or data folder"
    try:
        yield
    except CommandError as error:
        raise Misconfigured(
            "schema_unknown", f"another version made the database's schema ({error}): {another}"
        ) from None
    except ProgrammingError as error:
        said = str(error.orig).splitlines()[0]
        message = f"the database is not like the schema that it says it has ({said}); nothing was changed: {another}"
        raise Misconfigured("schema_differs", message) from None


def reach(url: str) -> Connection:
    """Connect to the database that the settings name.

    Raises:
        Misconfigured: `database_unreachable`, with the reason and without the password.
    """
    try:
        return create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_SECONDS}).connect()
    except (ArgumentError, OperationalError, ValueError) as error:
        said = str(error.orig).splitlines()[0] if isinstance(error, OperationalError) else "it is no PostgreSQL URL"
        reason = re.sub(
            r"[^\s\"']*@", "", said
        )  # of a password with an unescaped @ the driver takes a part for the host
    raise Misconfigured(
        "database_unreachable",
        f"the database of DATABASE_URL cannot be reached: {reason}; see that it runs and that the URL is right",
    )


def pending(url: str) -> tuple[str | None, str]:
    """Tell which revision the database has, and which this program expects."""
    with create_engine(url, poolclass=NullPool).connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current, expected_revision()


def expected_revision() -> str:
    """Name the schema that this version of the program is written for."""
    return ScriptDirectory(str(_SCRIPTS)).get_current_head() or ""


def _run(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["connection"] = connection
    (command.downgrade if revision == "base" else command.upgrade)(config, revision)


def _current(connection: Connection) -> str:
    return MigrationContext.configure(connection).get_current_revision() or "base"


def _make_partitions(connection: Connection) -> None:
    """Have this month's event partition before the first event comes, also after a long time off."""
    if _current(connection) != "base":
        connection.execute(text("SELECT mc_event_partitions(3)"))


def _notice_restore(connection: Connection) -> None:
    """Raise the epoch when the data came from another cluster, whose transaction ids mean nothing here."""
    if _current(connection) == "base":
        return
    connection.execute(
        text(
            "UPDATE installation SET epoch = epoch + 1, system_identifier = c.system_identifier::text"
            " FROM pg_control_system() c WHERE installation.system_identifier <> c.system_identifier::text"
        )
    )
