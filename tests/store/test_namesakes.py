"""What is done in all workspaces at once tells those apart whose missions, agents and runs are called the same.

Row security does not hold for the system door: each of its statements must compare the workspaces itself.
"""

from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from models.domain.events import EventType
from models.domain.principals import Kind, Role
from models.domain.repositories import RepositoryUrl
from models.schemas.missions import MissionCreate
from models.schemas.repositories import RepositoryCreate
from models.store import blocks, budgets, claims, governance, missions, repositories, runs
from models.store.connections import plain
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.access import make_key
from tests.fixtures.api import Team, add_agents
from tests.fixtures.budgets import OLGA, start
from tests.fixtures.missions import SEED

TABLES = ("repository", "mission", "run", "budget", "decision")
COLUMNS = """
    SELECT column_name FROM information_schema.columns WHERE table_name = %s AND is_generated = 'NEVER'
    AND is_identity = 'NO'
"""


class Namesakes:
    """Two workspaces: `here` has a mission, a run of it, one of its own, and an agent; `there` has their copies."""

    def __init__(self, here: str, there: str, url: str) -> None:
        self.here, self.there, self._url = here, there, url
        self.mission = self.of_mission = self.of_agent = ""

    def copy(self) -> None:
        """Make the copies."""
        with psycopg.connect(plain(self._url), autocommit=True) as connection:
            for table in TABLES:
                names = [sql.Identifier(name) for (name,) in connection.execute(COLUMNS, [table]) if name != "seq"]
                columns = sql.SQL(", ").join(names)
                copied = "INSERT INTO {0} ({1}) SELECT {1} FROM (SELECT (jsonb_populate_record(t, {2})).* FROM {0} t"
                statement = sql.SQL(copied + " WHERE workspace_id = {3}) c").format(
                    sql.Identifier(table), columns, sql.Literal(f'{{"workspace_id": "{self.there}"}}'), self.here
                )
                connection.execute(statement)

    def change(self, where: str, statement: str) -> None:
        """Change rows of one of them, past all that the product sees to."""
        with psycopg.connect(plain(self._url), autocommit=True) as connection:
            done = statement.replace(":w", f"'{where}'").replace("AGO", "now() - interval '1 hour'")
            connection.execute(f"SET session_replication_role = replica; {done}".encode())


@pytest.fixture
async def both(db: Database, team: Team, other_team: Team, database_url: str, tmp_path: Path) -> Namesakes:
    """The two, as alike as can be."""
    made = Namesakes(team.workspace_id, other_team.workspace_id, database_url)
    for workspace in (made.here, made.there):
        async with db.system() as session:
            await make_key(session, workspace, "same", kind=Kind.AGENT)
            await add_agents(session, workspace, "same")
    async with db.workspace(made.here) as session:
        place = RepositoryUrl(str(tmp_path), tmp_path)
        new = RepositoryCreate(url=place.url, name="app")
        repository = await repositories.register(session, made.here, new, place, "dev", OLGA)
        wanted = MissionCreate.model_validate(SEED | {"assigned_to": "same", "workspace_repo_path": place.url})
        made.mission = (await missions.create(session, made.here, wanted, repository, OLGA)).mission_id
    made.of_mission = await start(db, made.here, mission_id=made.mission)
    made.of_agent = await start(db, made.here, agent_id="same")
    made.copy()
    return made


async def test_runs_of_who_has_ended_elsewhere_go_on(db: Database, both: Namesakes) -> None:
    both.change(both.there, "UPDATE mission SET ended_at = AGO WHERE workspace_id = :w")
    both.change(both.there, "UPDATE agent SET registration = 'deactivated' WHERE workspace_id = :w AND name = 'same'")
    async with db.system() as session:
        found = await runs.orphans(session, 1000)
    assert sorted(row for row in found if row[0] in (both.here, both.there)) == sorted(
        [
            (both.there, both.of_mission, "its mission has ended"),
            (both.there, both.of_agent, "its agent was deactivated"),
        ]
    )


ASKED = """
    INSERT INTO decision (workspace_id, decision_id, kind, mission_id, binding, round, candidate, status, risk,
        requested_by)
    SELECT w, d, k, m, b, 0, 0, 'pending', 'RED', 'same' FROM unnest(ARRAY['{here}', '{there}']) w, (VALUES
        ('{mission}.governance.0.0', 'governance', '{mission}', jsonb_build_object()),
        ('call', 'tool_action', NULL, jsonb_build_object('run_id', '{run}'))
    ) AS q (d, k, m, b)
"""


async def test_questions_of_what_has_ended_elsewhere_stay(db: Database, both: Namesakes) -> None:
    both.change("", ASKED.format(here=both.here, there=both.there, mission=both.mission, run=both.of_mission))
    both.change(both.there, "UPDATE mission SET ended_at = AGO WHERE workspace_id = :w")
    async with db.system() as session:
        found = await governance.asked_of_ended(session, 1000)
    mine = sorted(row for row in found if row[0] in (both.here, both.there))
    assert mine == sorted([(both.there, "call"), (both.there, f"{both.mission}.governance.0.0")])


@pytest.mark.parametrize(("column", "value"), [("registration", "deactivated"), ("status", "stopped")])
async def test_what_an_agent_was_given_stays_with_it(db: Database, both: Namesakes, column: str, value: str) -> None:
    for workspace in (both.here, both.there):
        both.change(workspace, "UPDATE mission SET claimed_at = now(), filed_for = NULL WHERE workspace_id = :w")
    both.change(both.there, f"UPDATE agent SET {column} = '{value}' WHERE workspace_id = :w")  # noqa: S608  # constants
    async with db.system() as session:
        await claims.give_back(session, Actor("reconciler", "a pass"))
    assert [await assigned(db, workspace, both.mission) for workspace in (both.here, both.there)] == ["same", None]


async def assigned(db: Database, workspace_id: str, mission_id: str) -> str | None:
    async with db.workspace(workspace_id) as session:
        return (await missions.require(session, workspace_id, mission_id)).assigned_to


LIMITS = """
    INSERT INTO decision (workspace_id, decision_id, kind, round, candidate, status, risk, requested_by, binding)
    SELECT w, 'budget.run.{run}.1', 'budget', 0, 0, 'pending', 'RED', 'same',
    '{{"scope": "run", "subject": "{run}"}}' FROM unnest(ARRAY['{here}', '{there}']) w;
    UPDATE budget SET crossed = true, crossings = 1 WHERE scope = 'run' AND subject = '{run}'
    AND workspace_id IN ('{here}', '{there}')
"""


async def test_questions_of_limits_that_are_open_elsewhere_stay(db: Database, both: Namesakes) -> None:
    both.change("", LIMITS.format(here=both.here, there=both.there, run=both.of_agent))
    both.change(both.there, "UPDATE budget SET crossed = false WHERE workspace_id = :w AND scope = 'run'")
    async with db.system() as session:
        found = await budgets.asked_of_open(session, 1000)
    assert [row for row in found if row[0] in (both.here, both.there)] == [(both.there, "run", both.of_agent)]
    both.change(both.there, "DELETE FROM decision WHERE workspace_id = :w")
    async with db.system() as session:
        found = await budgets.asked_of_open(session, 1000)
    assert not [row for row in found if row[0] in (both.here, both.there)]


async def test_questions_of_runs_that_have_ended_elsewhere_stay(db: Database, both: Namesakes) -> None:
    both.change("", LIMITS.format(here=both.here, there=both.there, run=both.of_agent))
    both.change(both.there, "UPDATE run SET ended_at = AGO, status = 'failed' WHERE workspace_id = :w")
    async with db.system() as session:
        found = await budgets.asked_of_ended(session, 1000)
    assert [row for row in found if row[0] in (both.here, both.there)] == [(both.there, both.of_agent)]


async def test_a_mission_hears_of_its_own_runs(db: Database, both: Namesakes) -> None:
    for workspace in (both.here, both.there):
        both.change(workspace, "UPDATE mission SET status = 'in_progress', run_id = 'r' WHERE workspace_id = :w")
    blocked = "UPDATE run SET status = 'blocked', reason = 'spent', blocked_by = 'run'"
    both.change(both.there, f"{blocked} WHERE workspace_id = :w AND mission_id = '{both.mission}'")
    async with db.system() as session:
        found = await blocks.to_tell(session)
    assert [row for row in found if row[0] in (both.here, both.there)] == [(both.there, both.mission)]


async def test_an_act_is_of_the_kind_of_who_did_it_here(db: Database, both: Namesakes) -> None:
    async with db.system() as session:
        await make_key(session, both.here, "twin", role=Role.OPERATOR)
        await make_key(session, both.there, "twin", kind=Kind.SERVICE)
    for workspace, kind in ((both.here, "human"), (both.there, "service")):
        async with db.workspace(workspace) as session:
            await missions.tell(
                session, workspace, both.mission, EventType.MISSION_NOTED, Actor("twin", "request-3"), {}
            )
        found = await db.alone(workspace, "SELECT actor_kind FROM audit WHERE actor = 'twin'", {})
        assert [row["actor_kind"] for row in found] == [kind]
