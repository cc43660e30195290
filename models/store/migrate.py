"""Brings a database to the schema that this version of the program expects."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, create_engine, text

_SCRIPTS = Path(__file__).resolve().parents[2] / "deploy" / "migrations"
_LOCK = 0x4D43_0001
"""Advisory lock: two processes that start at once migrate one after the other."""


def migrate(url: str, revision: str = "head") -> str:
    """Upgrade (or downgrade to `base`) the database at `url`, its owner's; return the revision it has now."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as guard:
        guard.execution_options(isolation_level="AUTOCOMMIT")
        guard.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        with engine.begin() as connection:
            _run(connection, revision)
            _notice_restore(connection)
            _make_partitions(connection)
            return _current(connection)


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
