"""Registering the repositories that missions may change."""

from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import body, filed, refusal, repo

__all__ = ["repo"]

PLACE = "/api/v1/repositories"


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
        answer = await api.post(PLACE, json={"url": "https://example.com/x", "env": env})
        assert (answer.status_code, answer.json()["data"]["env"]) == (201, "prod")
        assert len((await api.get(PLACE, params={"env": env})).json()["data"]["items"]) == 1

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
        place, name = {"url": str(repo.path), "name": "other"}, {"url": "https://example.com/app"}
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

    @pytest.mark.parametrize("spelt", ["https://EXAMPLE.org:443/one/App.git/", "git@example.org:one/app"])
    async def test_a_url_once_however_it_is_spelt(self, api: httpx2.AsyncClient, spelt: str) -> None:
        added = (await api.post(PLACE, json={"url": "https://example.org/one/app", "name": f"a{hash(spelt)}"})).json()
        answer = await api.post(PLACE, json={"url": spelt, "name": "other"})
        assert refusal(answer) == (409, "repository_exists")
        assert added["data"]["repository_id"] in answer.json()["error"]["message"]

    async def test_two_workspaces_may_share_a_place(
        self, client: Caller, team: Team, other_team: Team, repo: Repo
    ) -> None:
        for key in (team.admin, other_team.admin):
            assert (await client(key).post(PLACE, json={"url": str(repo.path)})).status_code == 201

    async def test_only_operators(self, client: Caller, team: Team, repo: Repo) -> None:
        for key in (team.observer, team.agent, team.service):
            assert (await client(key).post(PLACE, json={"url": str(repo.path)})).status_code == 403


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
