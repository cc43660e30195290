"""Row-level security, tried: raw SQL as the app's role sees and changes nothing of another workspace, in no table."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import ProgrammingError
from sqlmodel import SQLModel

from models.tables import agents, alerts, events, memory, missions, policies, workspaces

__all__ = ["agents", "alerts", "events", "memory", "missions", "policies", "workspaces"]
"""Their import makes the metadata whole."""

TABLES = sorted(
    {name for name, table in SQLModel.metadata.tables.items() if "workspace_id" in table.columns} | {"event"}
)
UNREAD = frozenset({"browser_session"})
"""Tables that the app may not read at all, of its own workspace neither."""
DENIED = "42501"
"""Postgres' code for what a role may not do, by grant or by policy."""

COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped AND attidentity = '' AND attgenerated = ''
    AND attname <> 'workspace_id'
"""
VALUES = {
    "text": "'a'",
    "integer": "1",
    "bigint": "1",
    "boolean": "false",
    "double precision": "1",
    "numeric": "1",
    "numeric(3,2)": "1",
    "jsonb": "'[]'",
    "bytea": "'a'",
    "timestamp with time zone": "now()",
    "xid8": "'9'",
}


@pytest.fixture(scope="module")
def engine(database_url: str) -> Iterator[Engine]:
    """The database, with a row of workspace `theirs` in every table."""
    made = create_engine(database_url)
    with made.begin() as connection:
        # Rows that refer to nothing and keep to no rule will do: it is who sees them that is tried.
        connection.execute(text("SET session_replication_role = replica"))
        for table in TABLES:
            for check in _checks(connection, table):
                connection.execute(text(f'ALTER TABLE {table} DROP CONSTRAINT "{check}"'))
            _insert(connection, table, "theirs")
    yield made
    made.dispose()


def _checks(connection: Connection, table: str) -> list[str]:
    statement = "SELECT conname FROM pg_constraint WHERE conrelid = to_regclass(:table) AND contype = 'c'"
    return list(connection.execute(text(statement), {"table": table}).scalars())


def _insert(connection: Connection, table: str, workspace: str) -> None:
    columns = {name: VALUES[kind] for name, kind in connection.execute(text(COLUMNS), {"table": table})}
    names, values = ", ".join(["workspace_id", *columns]), ", ".join([f"'{workspace}'", *columns.values()])
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"))  # noqa: S608  # of the catalog


@pytest.fixture(params=["ours", "", None], ids=["wrong", "empty", "none"])
def app(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """The app's role in another workspace, or in none; nothing it does stays."""
    with engine.connect() as connection:
        connection.execute(text("SET ROLE mission_control_app"))
        if request.param is not None:
            connection.execute(text("SELECT set_config('app.workspace', :name, false)"), {"name": request.param})
        yield connection
        connection.rollback()


def count(engine: Engine, table: str) -> int:
    """How many rows of theirs there are, as the superuser sees it."""
    with engine.connect() as connection:
        statement = f"SELECT count(*) FROM {table} WHERE workspace_id = 'theirs'"  # noqa: S608  # of the catalog
        return int(connection.execute(text(statement)).scalar_one())


def test_no_table_is_left_out(engine: Engine) -> None:
    statement = """
        SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attname = 'workspace_id'
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
    """
    with engine.connect() as connection:
        assert sorted(connection.execute(text(statement)).scalars()) == TABLES


@pytest.mark.parametrize("table", TABLES)
class TestTable:
    def test_there_is_something_to_see(self, engine: Engine, table: str) -> None:
        assert count(engine, table) == 1

    def test_its_own_workspace_sees_it(self, engine: Engine, table: str) -> None:
        with engine.connect() as connection:
            connection.execute(text("SET ROLE mission_control_app"))
            connection.execute(text("SELECT set_config('app.workspace', 'theirs', false)"))
            seen = "denied" if table in UNREAD else 1
            assert tried(connection, f"SELECT workspace_id FROM {table}") == seen  # noqa: S608  # of the catalog

    @pytest.mark.parametrize(
        "statement",
        [
            "SELECT workspace_id FROM {table}",
            "SELECT workspace_id FROM {table} WHERE workspace_id = 'theirs'",
            "UPDATE {table} SET workspace_id = 'ours'",
            "UPDATE {table} SET workspace_id = workspace_id WHERE workspace_id = 'theirs'",
            "DELETE FROM {table}",
            "DELETE FROM {table} WHERE workspace_id = 'theirs'",
        ],
    )
    def test_nobody_else_sees_or_changes_it(self, app: Connection, engine: Engine, table: str, statement: str) -> None:
        assert tried(app, statement.format(table=table)) in (0, "denied")
        app.rollback()
        assert count(engine, table) == 1

    def test_nobody_else_adds_to_it(self, app: Connection, table: str) -> None:
        with pytest.raises(ProgrammingError) as refused:
            _insert(app, table, "theirs")
        assert getattr(refused.value.orig, "sqlstate", "") == DENIED


def tried(connection: Connection, statement: str) -> int | str:
    """How many rows a statement was about, or that the role may not do such a thing."""
    try:
        return connection.execute(text(statement)).rowcount
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", "") != DENIED:
            raise
        return "denied"
