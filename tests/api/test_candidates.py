"""Adding changes to try."""

import asyncio

import httpx2
import pytest

from api.app import create_app
from models.domain.canonical import sha256_digest
from models.domain.patches import MAX_PATCH_BYTES
from models.settings import Settings
from tests.fixtures.api import Caller, Team, running
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import DIFF, filed, refusal, repo

__all__ = ["repo"]


class TestAdd:
    async def test_keeps_them_in_order_by_digest(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        mission = await filed(api, repo, patch_candidates=[{"ref": "topic"}])
        place = mission["links"]["candidates"]
        added = await api.post(place, json={"diff": DIFF})
        assert added.status_code == 201
        assert added.json()["data"]["digest"] == sha256_digest(DIFF.encode())
        listed = (await api.get(place)).json()["data"]["items"]
        assert [(c["number"], c["ref"], bool(c["digest"])) for c in listed] == [(0, "topic", False), (1, None, True)]
        assert (await api.get(listed[1]["links"]["diff"])).text == DIFF
        package = (await api.get(mission["links"]["self"])).json()["data"]["workspace"]["patch_candidates"]
        assert [(c["id"], c["ref"]) for c in package] == [("0", "topic"), ("1", sha256_digest(DIFF.encode()))]

    async def test_two_at_once_get_two_numbers(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        place = (await filed(api, repo))["links"]["candidates"]
        answers = await asyncio.gather(*(api.post(place, json={"ref": f"topic-{n}"}) for n in range(5)))
        assert sorted(answer.json()["data"]["number"] for answer in answers) == [0, 1, 2, 3, 4]

    async def test_a_refusal_does_not_echo_a_huge_name(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        place = (await filed(api, repo))["links"]["candidates"]
        name = "y" * 200_000
        header = f"diff --git a/x b/../{name}\nnew file mode 100644\n--- /dev/null\n+++ b/../{name}\n"
        for body in ({"diff": f"{header}@@ -0,0 +1 @@\n+a\n"}, {"diff": DIFF, name: 1}, {"ref": name}):
            answer = await api.post(place, json=body)
            assert (answer.status_code, len(answer.content) < 10_000) == (422, True), answer.text[:200]

    async def test_a_mission_has_at_most_twenty(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        mission = await filed(api, repo, patch_candidates=[{"ref": "topic"}] * 20)
        answer = await api.post(mission["links"]["candidates"], json={"ref": "one-more"})
        assert refusal(answer) == (409, "too_many_candidates")

    async def test_none_after_the_end(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        mission = await filed(api, repo)
        await api.post(f"{mission['links']['self']}/cancel", json={})
        answer = await api.post(mission["links"]["candidates"], json={"diff": DIFF})
        assert refusal(answer) == (409, "mission_not_open")

    @pytest.mark.parametrize(
        ("diff", "code"),
        [
            (DIFF.replace("README.md", ".git/config"), "patch_escapes"),
            (
                "diff --git a/x b/x\nnew file mode 120000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+/etc/passwd\n",
                "patch_symlink_escape",
            ),
            (
                "diff --git a/x b/x\nindex 1..2 100644\nGIT binary patch\nliteral 1\nIcmZ>B0000000000\n\n",
                "patch_binary",
            ),
        ],
    )
    async def test_refuses_what_is_unsafe(self, api: httpx2.AsyncClient, repo: Repo, diff: str, code: str) -> None:
        mission = await filed(api, repo)
        assert refusal(await api.post(mission["links"]["candidates"], json={"diff": diff})) == (422, code)
        assert (await api.get(mission["links"]["candidates"])).json()["data"]["items"] == []


class TestWho:
    async def test_an_agent_adds_to_its_own_missions_in_its_own_name(
        self, client: Caller, team: Team, repo: Repo
    ) -> None:
        mine = await filed(client(team.operator), repo, assigned_to="agent")
        others = await filed(client(team.operator), repo, assigned_to="operator")
        change = {"ref": "topic", "author": "ada"}
        added = await client(team.agent).post(mine["links"]["candidates"], json=change)
        assert added.json()["data"]["author"] == "agent"
        refused = await client(team.agent).post(others["links"]["candidates"], json=change)
        assert refusal(refused) == (403, "not_assigned")
        by_operator = await client(team.operator).post(others["links"]["candidates"], json=change)
        assert by_operator.json()["data"]["author"] == "ada"
        assert by_operator.json()["data"]["added_by"] == "operator"


async def test_takes_sixteen_megabytes_and_no_more(settings: Settings, team: Team, repo: Repo) -> None:
    line = "+" + "x" * 1022 + "\n"
    room = MAX_PATCH_BYTES // len(line) - 1
    app = create_app(settings.model_copy(update={"max_body_bytes": 64 * 1024 * 1024}))
    transport = httpx2.ASGITransport(app)
    headers = {"X-API-Key": team.admin}
    async with running(app), httpx2.AsyncClient(transport=transport, base_url="http://test", headers=headers) as api:
        place = (await filed(api, repo))["links"]["candidates"]
        for lines, status in ((room, 201), (room + 2, 422)):
            diff = f"--- /dev/null\n+++ b/big.txt\n@@ -0,0 +1,{lines} @@\n{line * lines}"
            answer = await api.post(place, json={"diff": diff})
            assert answer.status_code == status, answer.text[:300]
        assert answer.json()["error"]["code"] == "patch_too_large"
        digest = (await api.get(place)).json()["data"]["items"][0]["digest"]
        assert len((await api.get(f"{place.removesuffix('candidates')}blobs/{digest}")).content) > room * len(line)
