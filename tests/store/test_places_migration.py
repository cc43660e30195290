"""Repositories that were registered before their spellings were compared keep their rows, and get one place."""

import pytest

from models.domain.repositories import RepositoryUrl
from models.schemas.missions import MissionCreate
from models.store import missions, repositories
from models.store.database import Database
from models.store.events import Actor
from models.store.migrate import migrate
from models.tables.workspaces import Repository
from tests.fixtures.api import Team
from tests.fixtures.servers import PostgresServer
from tests.fixtures.sql import rows

OLGA = Actor("olga", "request-1")
OLD = """
INSERT INTO workspace (workspace_id, slug, name) VALUES ('a', 'a', 'A');
INSERT INTO repository (workspace_id, repository_id, name, url, target_branch, protected, env, created_by)
SELECT 'a', 'r' || number, url, url, 'main', false, 'dev', 'x' FROM unnest(ARRAY[
    '/srv/app', '/srv/app/.git', 'https://Example.com/app.git', 'git@example.com:app', 'ext::odd'
]) WITH ORDINALITY AS t (url, number);
"""
SAME = """
INSERT INTO repository (workspace_id, repository_id, name, url, place, target_branch, protected, env, created_by)
SELECT '{0}', name, name, url, '/srv/app', 'main', protected, env, 'x' FROM (VALUES
    ('weak', '/srv/app/.git', false, 'dev'), ('strict', '/srv/app', {1}), ('late', '/srv/late', false, 'dev')
) AS t (name, url, protected, env);
"""


def test_each_gets_its_place(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    migrate(url, "0035")
    rows(url, OLD)
    migrate(url)
    places = [place for (place,) in rows(url, "SELECT place FROM repository ORDER BY repository_id")]
    assert places == ["/srv/app", "/srv/app", "example.com/app", "example.com/app", "ext::odd"]


@pytest.mark.parametrize("rules", ["true, 'dev'", "false, 'prod'"])
@pytest.mark.parametrize("wanted", ["weak", "late", "/srv/app/.git", "/srv/app", "/elsewhere/link"])
async def test_missions_get_the_strictest(db: Database, database_url: str, team: Team, wanted: str, rules: str) -> None:
    rows(database_url, SAME.format(team.workspace_id, rules))
    place = RepositoryUrl("/srv/app")
    async with db.workspace(team.workspace_id) as session:
        found = await repositories.resolve(session, team.workspace_id, wanted, place, "dev", OLGA, may_register=True)
    assert found.name == "strict"


MISSIONS = """
INSERT INTO workspace (workspace_id, slug, name) VALUES ('a', 'a', 'A');
INSERT INTO principal (workspace_id, name, kind, role, created_by) VALUES
    ('a', 'olga', 'human', 'operator', 'x'), ('a', 'probe', 'agent', 'agent', 'x'),
    ('a', 'ci', 'service', 'service', 'x');
INSERT INTO repository (workspace_id, repository_id, name, url, target_branch, protected, env, created_by)
VALUES ('a', 'r', 'r', '/r', 'develop', false, 'dev', 'x');
INSERT INTO mission (workspace_id, mission_id, repository_id, subsystem_id, severity, severity_rank, status, outcome,
    ended_at, paused, control_version, mission_type, branch, env, protected, created_by, correlation_id)
SELECT 'a', id, 'r', 's', 'low', 3, status, outcome, CASE WHEN outcome IS NOT NULL THEN now() END, false, 0, 'coding',
    branch, 'dev', false, who, 'c'
FROM (VALUES
    ('1', 'probe', 'main', 'open', NULL), ('2', 'ci', 'main', 'open', NULL), ('3', 'olga', 'main', 'open', NULL),
    ('4', 'probe', 'develop', 'open', NULL), ('5', 'probe', 'main', 'resolved', 'merged')
) AS t (id, who, branch, status, outcome);
"""


def test_missions_that_wait_are_held_to_their_branch(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    migrate(url, "0035")
    rows(url, MISSIONS)
    migrate(url)
    found = rows(url, "SELECT mission_id, chosen_branch, protected FROM mission ORDER BY 1")
    assert found == [("1", True, True), ("2", True, True), ("3", False, False), ("4", False, False), ("5", True, False)]


async def test_a_mission_filed_again_gets_them_too(db: Database, database_url: str, team: Team) -> None:
    rows(database_url, SAME.format(team.workspace_id, "true, 'prod'"))
    new = MissionCreate.model_validate({"subsystem_id": "s", "severity": "low", "repository": "weak"})
    async with db.workspace(team.workspace_id) as session:
        weak = await session.get_one(Repository, (team.workspace_id, "weak"))
        mission = await missions.create(session, team.workspace_id, new, weak, OLGA)
        await missions.cancel_open(session, team.workspace_id, mission.mission_id, "", OLGA)
    async with db.workspace(team.workspace_id) as session:
        again = await missions.retry(session, team.workspace_id, mission.mission_id, OLGA)
    assert (mission.repository_id, mission.protected, mission.env) == ("weak", True, "prod")
    assert (again.repository_id, again.protected, again.env) == ("strict", True, "prod")
