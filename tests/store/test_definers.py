"""Functions that act with their owner's rights are no way to those rights."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import Connection
from psycopg.errors import InsufficientPrivilege

from models.store.connections import plain
from models.store.database import Database
from tests.fixtures.api import Team
from tests.fixtures.audit import act, fresh_log

__all__ = ["fresh_log"]

DEFINERS = """
    SELECT proname, proconfig FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace ORDER BY proname
"""
STAND_IN = """
    CREATE TEMP TABLE {table} (LIKE public.{table});
    GRANT ALL ON {table} TO mission_control_owner;
    CREATE FUNCTION pg_temp.as_owner() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        EXECUTE 'GRANT DELETE ON public.audit TO mission_control_app';
        RETURN NULL;
    END $$;
    CREATE TRIGGER as_owner BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION pg_temp.as_owner()
"""
ACT = """
    INSERT INTO public.event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
    VALUES (%s, 'mission.noted', 'mission', 'm', 'olga', 'r', '{}') RETURNING id
"""


@pytest.fixture
def app(database_url: str, team: Team) -> Iterator[Connection]:
    """The app's role in the team's workspace, with what SQL it likes; nothing of it stays."""
    with psycopg.connect(plain(database_url)) as connection:
        connection.execute("SET LOCAL ROLE mission_control_app")
        connection.execute("SELECT set_config('app.workspace', %s, true)", [team.workspace_id])
        yield connection
        connection.rollback()


async def test_each_looks_among_temporary_tables_last(app: Connection) -> None:
    found: dict[str, list[str]] = dict(app.execute(DEFINERS).fetchall())
    assert "mc_redact_audit" in found
    assert {name for name, config in found.items() if config != ["search_path=public, pg_temp"]} == set()


async def test_no_temporary_table_stands_in_for_the_events(db: Database, team: Team, app: Connection) -> None:
    await act(db, team.workspace_id)
    app.execute(STAND_IN.format(table="event").encode())
    row = app.execute("SELECT max(id) FROM public.audit").fetchone()
    assert row
    app.execute("SELECT mc_redact_audit(%s, 'mallory', 'r', 'mine')", row)
    told = "SELECT count(*) FROM public.audit WHERE action = 'audit.redacted' AND subject_id = %s"
    assert app.execute(told, [str(row[0])]).fetchone() == (1,)
    with pytest.raises(InsufficientPrivilege):
        app.execute("DELETE FROM public.audit")


async def test_none_takes_an_act_s_row(app: Connection) -> None:
    app.execute(STAND_IN.format(table="audit").encode())
    acted = app.execute(ACT.encode(), [team_of(app)]).fetchone()
    assert acted
    assert app.execute("SELECT count(*) FROM public.audit WHERE id = %s", acted).fetchone() == (1,)
    with pytest.raises(InsufficientPrivilege):
        app.execute("DELETE FROM public.audit")


def team_of(app: Connection) -> str:
    found = app.execute("SELECT current_setting('app.workspace')").fetchone()
    assert found
    return str(found[0])
