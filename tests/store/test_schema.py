"""The schema that migrations make: what the tables' classes say, closed to other workspaces, and reversible."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, inspect, text
from sqlalchemy.dialects import postgresql
from sqlmodel import SQLModel

from models.store.migrate import expected_revision, migrate
from models.tables import agents, alerts, audit, budgets, events, memory, missions, policies, workspaces
from tests.fixtures.servers import PostgresServer

__all__ = ["agents", "alerts", "audit", "budgets", "events", "memory", "missions", "policies", "workspaces"]
"""Their import makes the metadata whole."""

TABLES = SQLModel.metadata.tables
WITHOUT_CLASS = {"alembic_version", "event"}
POLICY = ("policy_version", "verdict", "decision_answer")
MONEY = ("ledger",)
NEVER_CHANGED = (
    *("event", "evidence", "test_result", "metric_observation", "remediation_event", "blob"),
    *POLICY,
    *MONEY,
)
"""What happened: rows are added, and nobody changes or removes one."""

SPELT = {"varchar": "text", "float": "double precision", "numeric(3, 2)": "numeric(3,2)"}
"""Types that Postgres names otherwise than SQLAlchemy."""


@pytest.fixture(scope="module")
def engine(database_url: str) -> Iterator[Engine]:
    """The migrated database, as its owner's login sees it."""
    made = create_engine(database_url)
    yield made
    made.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A look at it."""
    with engine.connect() as opened:
        yield opened


def of_database(connection: Connection, statement: str, **values: str) -> list[tuple[Any, ...]]:
    """Rows of Postgres' own catalog."""
    return [tuple(row) for row in connection.execute(text(statement), values)]


COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
    WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped
"""
TABLE_NAMES = """
    SELECT relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
"""


def test_every_table_has_its_class(connection: Connection) -> None:
    assert {name for (name,) in of_database(connection, TABLE_NAMES)} == set(TABLES) | WITHOUT_CLASS


@pytest.mark.parametrize("table", TABLES)
class TestTable:
    def test_columns(self, connection: Connection, table: str) -> None:
        declared = set()
        for column in TABLES[table].columns:
            name = column.type.compile(dialect=postgresql.dialect()).lower()  # type: ignore[no-untyped-call]
            declared.add((column.name, SPELT.get(name, name), not column.nullable))
        assert set(of_database(connection, COLUMNS, table=table)) == declared

    def test_keys(self, connection: Connection, table: str) -> None:
        found = inspect(connection)
        primary = [column.name for column in TABLES[table].primary_key]
        assert found.get_pk_constraint(table)["constrained_columns"] == primary
        declared = {
            (tuple(constraint.column_keys), constraint.referred_table.name)
            for constraint in TABLES[table].foreign_key_constraints
        }
        foreign = {(tuple(key["constrained_columns"]), key["referred_table"]) for key in found.get_foreign_keys(table)}
        assert foreign == declared


WORKSPACE_TABLES = """
    SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attname = 'workspace_id'
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
"""


def test_every_table_with_a_workspace_forces_row_security(connection: Connection) -> None:
    open_ones = of_database(connection, f"{WORKSPACE_TABLES} AND NOT (relrowsecurity AND relforcerowsecurity)")
    assert open_ones == []
    assert len(of_database(connection, WORKSPACE_TABLES)) > len(NEVER_CHANGED)


def test_every_table_with_a_workspace_shows_the_app_only_that_one(connection: Connection) -> None:
    policies = of_database(
        connection,
        "SELECT tablename, qual, with_check FROM pg_policies WHERE 'mission_control_app' = ANY(roles::text[])",
    )
    scoped = "(workspace_id = current_setting('app.workspace'::text, true))"
    parents = of_database(connection, f"{WORKSPACE_TABLES} AND NOT relispartition")
    assert set(policies) == {(name, scoped, scoped) for (name,) in parents}


MAY_ADD = "SELECT has_table_privilege(:role, :table, 'INSERT')"
MAY_CHANGE = """
    SELECT relname FROM pg_class
    WHERE (oid = to_regclass(:table) OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass(:table)))
    AND has_table_privilege(:role, oid, 'UPDATE, DELETE, TRUNCATE')
"""


@pytest.mark.parametrize("role", ["mission_control_app", "mission_control_system"])
@pytest.mark.parametrize("table", NEVER_CHANGED)
def test_what_happened_is_only_added_to(connection: Connection, table: str, role: str) -> None:
    assert of_database(connection, MAY_ADD, table=table, role=role) == [(True,)]
    assert of_database(connection, MAY_CHANGE, table=table, role=role) == []


def test_the_app_owns_no_table(connection: Connection) -> None:
    owners = of_database(
        connection,
        "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'",
    )
    assert owners == [("mission_control_owner",)]


OBJECTS = """
    SELECT 'relation', relname, relkind::text FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE 'alembic_version%'
    UNION ALL SELECT 'function', proname, '' FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    ORDER BY 1, 2
"""


def test_down_leaves_nothing_and_up_again_makes_the_same(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    assert migrate(url) == expected_revision()
    engine = create_engine(url)
    with engine.connect() as connection:
        made = of_database(connection, OBJECTS)
    assert migrate(url, "base") == "base"
    with engine.connect() as connection:
        assert of_database(connection, OBJECTS) == []
    assert migrate(url) == expected_revision()
    with engine.connect() as connection:
        assert of_database(connection, OBJECTS) == made
    engine.dispose()
