"""Registering the repositories that missions may change."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest

from models.domain.principals import Role
from models.domain.repositories import RepositoryUrl
from models.schemas.repositories import RepositoryCreate
from models.settings import Settings
from models.store import repositories
from models.store.connections import plain
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.access import make_key
from tests.fixtures.api import Caller, Team, make_app, running
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import body, filed, refusal, repo
from tests.fixtures.waiting import eventually, somebody_waits

__all__ = ["repo"]

PLACE = "/api/v1/repositories"


async def rules(db: Database, team: Team, mission: dict[str, Any]) -> dict[str, Any]:
    """What holds for a mission's merge."""
    asked = "SELECT env, protected FROM mission WHERE mission_id = %(mission_id)s"
    [row] = await db.alone(team.workspace_id, asked, {"mission_id": mission["mission_id"]})
    return row


class TestRegister:
    async def test_a_local_path(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        commands = {"test": "python -m pytest", "junit": "out/*.xml", "timeout": "10m", "test_paths": ["tests/"]}
        answer = await api.post(PLACE, json={"url": str(repo.path), "protected": True, "commands": commands})
        added = answer.json()["data"]
        assert answer.status_code == 201
        assert (added["name"], added["target_branch"], added["env"], added["protected"]) == ("app", "main", "dev", True)
        assert added["commands"] == commands | {"timeout": 600.0}
        for named in (added["repository_id"], "app"):
            assert (await api.get(f"{PLACE}/{named}")).json()["data"] == added
        assert (await api.get(f"{PLACE}?name=app")).json()["data"]["items"] == [added]

    @pytest.mark.parametrize(
        ("url", "name"),
        [
            ("https://example.com/team/invoices.git", "invoices"),
            ("ssh://git@example.com/team/ledger", "ledger"),
            ("git@example.com:team/tax.git", "tax"),
        ],
    )
    async def test_a_remote_one(self, api: httpx2.AsyncClient, url: str, name: str) -> None:
        answer = await api.post(PLACE, json={"url": url})
        assert (answer.status_code, answer.json()["data"]["name"]) == (201, name)

    @pytest.mark.parametrize("env", ["production", "Prod", "PROD"])
    async def test_production_has_one_name(self, api: httpx2.AsyncClient, env: str) -> None:
        answer = await api.post(PLACE, json={"url": f"https://example.com/{uuid4()}", "env": env})
        assert (answer.status_code, answer.json()["data"]["env"]) == (201, "prod")
        assert len((await api.get(PLACE, params={"env": env})).json()["data"]["items"]) == 1

    @pytest.mark.parametrize("ours", ["prod", "Production", "staging"])
    @pytest.mark.parametrize("said", [{}, {"env": None}])
    async def test_without_an_environment_it_is_of_the_installations(
        self, settings: Settings, team: Team, repo: Repo, ours: str, said: dict[str, Any]
    ) -> None:
        application = make_app(settings.model_copy(update={"env": ours}))
        transport, headers = httpx2.ASGITransport(application), {"X-API-Key": team.operator}
        async with (
            running(application),
            httpx2.AsyncClient(transport=transport, base_url="http://test", headers=headers) as api,
        ):
            added = await api.post(PLACE, json={"url": str(repo.path)} | said)
            other = await api.post(PLACE, json={"url": f"https://example.com/{uuid4()}", "env": "dev"})
        named = "prod" if ours == "Production" else ours
        assert (added.json()["data"]["env"], other.json()["data"]["env"]) == (named, "dev")

    @pytest.mark.parametrize(
        ("new", "code"),
        [
            ({"url": "/etc"}, "repository_outside_roots"),
            ({"url": "file:///etc"}, "repository_outside_roots"),
            ({"url": "ext::sh -c true"}, "repository_scheme_not_allowed"),
            ({"url": "http://example.com/x"}, "repository_scheme_not_allowed"),
            ({"url": "https://ada:secret@example.com/x"}, "repository_credentials_in_url"),
            ({"url": "https://example.com/x", "target_branch": "-x"}, "ref_invalid"),
            ({"url": "https://example.com/x", "name": "a/b"}, "invalid_input"),
            ({"url": "https://example.com/x", "env": "Prod!"}, "invalid_input"),
            ({"url": "https://example.com/x", "commands": {"deploy": "x"}}, "invalid_input"),
            ({"url": "https://example.com/x", "commands": {"timeout": 0}}, "invalid_input"),
        ],
    )
    async def test_names_what_is_wrong(self, api: httpx2.AsyncClient, new: dict[str, Any], code: str) -> None:
        answer = await api.post(PLACE, json=new)
        assert refusal(answer) == (422, code)
        assert "secret" not in answer.text
        assert (await api.get(PLACE)).json()["data"]["items"] == []

    async def test_a_folder_without_git(self, api: httpx2.AsyncClient, tmp_path: Path) -> None:
        (tmp_path / "plain").mkdir()
        answer = await api.post(PLACE, json={"url": str(tmp_path / "plain")})
        assert refusal(answer) == (422, "repository_not_git")

    async def test_a_name_and_a_place_once(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        await api.post(PLACE, json={"url": str(repo.path)})
        place, name = {"url": str(repo.path), "name": "other"}, {"url": "https://example.com/once/app"}
        for again, said in ((place, "that place is registered already, as 'app'"), (name, "has the name 'app'")):
            answer = await api.post(PLACE, json=again)
            assert refusal(answer) == (409, "repository_exists")
            assert said in answer.json()["error"]["message"]

    @pytest.mark.parametrize("spelt", ["{}/", "{}/.git", "file://{}/.git", "{}/../app/.git/"])
    async def test_a_path_once_however_it_is_spelt(self, api: httpx2.AsyncClient, repo: Repo, spelt: str) -> None:
        await api.post(PLACE, json={"url": str(repo.path)})
        again = {"url": spelt.format(repo.path), "name": "other", "protected": False}
        assert refusal(await api.post(PLACE, json=again)) == (409, "repository_exists")

    async def test_a_linked_worktree_is_its_repository(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        await api.post(PLACE, json={"url": str(repo.path)})
        repo.git("worktree", "add", "-q", str(repo.path.parent / "beside"))
        again = {"url": str(repo.path.parent / "beside")}
        assert refusal(await api.post(PLACE, json=again)) == (409, "repository_exists")

    @pytest.mark.parametrize("spelt", ["https://EXAMPLE.org:443/{}/App.git/", "git@example.org:{}/app"])
    async def test_a_url_once_however_it_is_spelt(self, api: httpx2.AsyncClient, spelt: str) -> None:
        of = uuid4()
        added = (await api.post(PLACE, json={"url": f"https://example.org/{of}/app"})).json()
        answer = await api.post(PLACE, json={"url": spelt.format(of), "name": "other"})
        assert refusal(answer) == (409, "repository_exists")
        assert added["data"]["repository_id"] in answer.json()["error"]["message"]

    async def test_only_operators(self, client: Caller, team: Team, repo: Repo) -> None:
        for key in (team.observer, team.agent, team.service):
            assert (await client(key).post(PLACE, json={"url": str(repo.path)})).status_code == 403


class TestAnotherWorkspace:
    """A place belongs to the workspace where it is registered, until a platform admin says otherwise."""

    @pytest.fixture
    async def theirs(self, client: Caller, other_team: Team, repo: Repo) -> httpx2.AsyncClient:
        """The other workspace, where the repository is protected."""
        theirs = client(other_team.admin)
        new = {"url": str(repo.path), "name": "payroll", "protected": True, "env": "prod"}
        assert (await theirs.post(PLACE, json=new)).status_code == 201
        return theirs

    @pytest.mark.usefixtures("theirs")
    @pytest.mark.parametrize("spelt", ["{}", "{}/.git"])
    async def test_may_not_register_it(self, api: httpx2.AsyncClient, other_team: Team, repo: Repo, spelt: str) -> None:
        path = spelt.format(repo.path)
        for answer in (
            await api.post(PLACE, json={"url": path}),
            await api.post("/api/v1/missions", json=body(repo, workspace_repo_path=path)),
            await api.post("/api/v1/missions", json=body(repo, workspace_repo_path=None, repository=path)),
        ):
            assert refusal(answer) == (409, "repository_elsewhere")
            assert not [word for word in ("payroll", other_team.workspace_id, "prod ") if word in answer.text]
            assert "a platform admin may register it here, too" in answer.text
        assert (await api.get(PLACE)).json()["data"]["items"] == []
        assert (await api.get("/api/v1/missions")).json()["data"]["items"] == []

    async def test_nor_a_url(self, client: Caller, team: Team, other_team: Team) -> None:
        url = f"https://example.com/{team.workspace_id}"
        assert (await client(other_team.operator).post(PLACE, json={"url": url})).status_code == 201
        assert refusal(await client(team.admin).post(PLACE, json={"url": f"{url}.git"})) == (
            409,
            "repository_elsewhere",
        )

    @pytest.mark.usefixtures("theirs")
    async def test_but_a_platform_admin_may(
        self, client: Caller, team: Team, api: httpx2.AsyncClient, db: Database, repo: Repo
    ) -> None:
        async with db.system() as session:
            root = client(await make_key(session, team.workspace_id, "root", role=Role.PLATFORM_ADMIN))
        by_mission = await root.post("/api/v1/missions", json=body(repo))
        assert refusal(by_mission) == (409, "repository_elsewhere"), "nobody shares a repository by the way"
        added = (await root.post(PLACE, json={"url": str(repo.path)})).json()["data"]
        assert (added["env"], added["protected"]) == ("dev", False)
        mission = await filed(api, repo)
        assert mission["repository_id"] == added["repository_id"]
        assert await rules(db, team, mission) == {"env": "prod", "protected": True}, "nobody makes an exception"

    async def test_nor_does_whoever_came_first(
        self, client: Caller, team: Team, other_team: Team, db: Database, repo: Repo
    ) -> None:
        first = client(other_team.operator)
        before = await filed(first, repo)
        assert await rules(db, other_team, before) == {"env": "dev", "protected": False}
        async with db.system() as session:
            root = client(await make_key(session, team.workspace_id, "root", role=Role.PLATFORM_ADMIN))
        new = {"url": str(repo.path), "protected": True, "env": "prod"}
        assert (await root.post(PLACE, json=new)).status_code == 201
        assert await rules(db, other_team, await filed(first, repo)) == {"env": "prod", "protected": True}

    @pytest.mark.usefixtures("theirs")
    async def test_an_agent_learns_nothing_of_it(self, client: Caller, team: Team, repo: Repo) -> None:
        refused = await client(team.agent).post("/api/v1/missions", json=body(repo))
        assert refusal(refused) == (404, "repository_not_found")

    async def test_of_two_at_once_one_has_it(
        self, client: Caller, team: Team, other_team: Team, api: httpx2.AsyncClient, repo: Repo
    ) -> None:
        asking = [client(one.operator) for one in (team, other_team)] * 5
        answers = await asyncio.gather(
            *(one.post("/api/v1/missions", json=body(repo)) for one in asking[:4]),
            *(one.post(PLACE, json={"url": f"{repo.path}/.git"}) for one in asking[4:]),
        )
        held = [len((await one.get(PLACE)).json()["data"]["items"]) for one in asking[:2]]
        assert sorted(held) == [0, 1]
        assert {answer.status_code for answer in answers} <= {201, 409}
        refused = {refusal(answer)[1] for answer in answers if answer.status_code == 409}
        assert "repository_elsewhere" in refused

    async def test_whoever_comes_while_another_registers_waits(
        self, client: Caller, team: Team, other_team: Team, db: Database, database_url: str, repo: Repo
    ) -> None:
        new, there = RepositoryCreate(url=str(repo.path)), RepositoryUrl(str(repo.path), repo.path)
        theirs, asking = other_team.workspace_id, client(team.operator)
        async with (
            await psycopg.AsyncConnection.connect(plain(database_url)) as watching,
            db.workspace(theirs) as session,
        ):
            await repositories.register(session, theirs, new, there, "dev", Actor("olga", "request-1"))
            coming = asyncio.create_task(asking.post(PLACE, json={"url": str(repo.path)}))
            await eventually(lambda: somebody_waits(watching))
        assert refusal(await coming) == (409, "repository_elsewhere")


class TestOnTheFly:
    async def test_a_missions_path_is_registered_unprotected(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        mission = await filed(api, repo)
        added = (await api.get(f"{PLACE}/{mission['repository_id']}")).json()["data"]
        assert (added["url"], added["protected"], added["env"]) == (str(repo.path), False, "dev")

    @pytest.mark.parametrize("kind", ["agent", "service"])
    async def test_only_for_an_operator(
        self, client: Caller, team: Team, api: httpx2.AsyncClient, repo: Repo, kind: str
    ) -> None:
        other = client(getattr(team, kind))
        refused = await other.post("/api/v1/missions", json=body(repo))
        assert refusal(refused) == (404, "repository_not_found")
        assert "ask an operator to register it" in refused.json()["error"]["message"]
        assert (await api.get(PLACE)).json()["data"]["items"] == []
        await api.post(PLACE, json={"url": str(repo.path)})
        await filed(other, repo)

    async def test_a_registered_place_keeps_its_protection(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        added = (await api.post(PLACE, json={"url": str(repo.path), "protected": True})).json()["data"]
        mission = await filed(api, repo, workspace_repo_path=f"{repo.path}/../app/")
        assert mission["repository_id"] == added["repository_id"]

    async def test_it_keeps_it_however_it_is_spelt(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        new = {"url": str(repo.path), "protected": True, "env": "prod"}
        added = (await api.post(PLACE, json=new)).json()["data"]
        repo.git("worktree", "add", "-q", str(repo.path.parent / "beside"))
        for path in (f"{repo.path}/.git", str(repo.path.parent / "beside")):
            mission = await filed(api, repo, workspace_repo_path=path)
            assert mission["repository_id"] == added["repository_id"]
        assert len((await api.get(PLACE)).json()["data"]["items"]) == 1
