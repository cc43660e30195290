"""Who is in a workspace, in which role; and who can never be locked out of it."""

import asyncio
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from models.domain.principals import Role
from models.store import keys, workspaces
from models.store.database import Database
from tests.fixtures.access import make_key
from tests.fixtures.agents import PROBE, WHY, events_of, registered
from tests.fixtures.api import Caller, Team
from tests.fixtures.missions import refusal


async def key_for(api: httpx2.AsyncClient, client: Caller, name: str, **body: Any) -> httpx2.AsyncClient:
    """Give a principal a key, and be it."""
    made = await api.post("/api/v1/keys", json={"principal": name} | body)
    assert made.status_code == 201, made.text
    return client(made.json()["data"]["secret"])


@pytest.fixture
def members(team: Team) -> str:
    """Where the team's members are."""
    return f"/api/v1/workspaces/{team.workspace_id}/members"


@pytest.fixture
async def root(client: Caller, db: Database) -> httpx2.AsyncClient:
    """A platform admin, at home in the default workspace."""
    async with db.system() as session:
        name = f"root-{keys.new_secret()[-8:]}"
        return client(await make_key(session, "default", name, role=Role.PLATFORM_ADMIN))


@pytest.mark.parametrize("name", ["olga, peter", "olga\uff0c peter"])
async def test_nobody_new_is_called_like_two(api: httpx2.AsyncClient, members: str, name: str) -> None:
    for method, path, body in (
        ("POST", "/api/v1/principals", {"name": name, "role": "observer"}),
        ("POST", "/api/v1/keys", {"principal": name, "role": "observer"}),
        ("POST", "/api/v1/agents", PROBE | {"name": name}),
        ("PUT", f"{members}/{name}", {"role": "observer"}),
    ):
        answer = await api.request(method, path, json=body)
        assert refusal(answer) == (422, "invalid_input"), path
        assert "a name holds no comma" in answer.json()["error"]["message"]
    assert (await api.get(f"/api/v1/principals/{name}")).status_code == 404


class TestMembers:
    async def test_a_role_holds_for_all_keys_at_once(
        self, api: httpx2.AsyncClient, client: Caller, members: str
    ) -> None:
        assert (await api.put(f"{members}/olga", json={"role": "observer"})).json()["data"]["role"] == "observer"
        callers = [await key_for(api, client, "olga") for _ in range(2)]
        event = {"principal": "x", "role": "observer"}
        for caller in callers:
            assert refusal(await caller.post("/api/v1/keys", json=event)) == (403, "not_permitted")
        await api.put(f"{members}/olga", json={"role": "admin"})
        async with asyncio.timeout(3):
            while [(await caller.get("/api/v1/keys")).status_code for caller in callers] != [200, 200]:
                pass
        listed = (await api.get("/api/v1/keys?principal=olga")).json()["data"]["items"]
        assert {key["role"] for key in listed} == {"admin"}

    async def test_a_removed_one_is_out_and_may_come_back_without_the_old_keys(
        self, api: httpx2.AsyncClient, client: Caller, members: str
    ) -> None:
        await api.put(f"{members}/olga", json={"role": "operator"})
        olga = await key_for(api, client, "olga")
        assert (await api.delete(f"{members}/olga")).status_code == 200
        renewed = await api.post("/api/v1/keys", json={"principal": "olga"})
        assert refusal(renewed) == (409, "principal_deactivated")
        assert "`mission-control member set olga ROLE` brings them back" in renewed.json()["error"]["message"]
        assert (await olga.get("/api/v1/missions")).status_code == 401
        assert "olga" not in (await api.get(members)).text
        assert "olga" in (await api.get("/api/v1/principals")).text
        await api.put(f"{members}/olga", json={"role": "observer"})
        assert (await olga.get("/api/v1/missions")).status_code == 401
        assert (await (await key_for(api, client, "olga")).get("/api/v1/missions")).status_code == 200

    async def test_each_change_is_told(self, api: httpx2.AsyncClient, members: str, db: Database, team: Team) -> None:
        for role in ("observer", "operator"):
            await api.put(f"{members}/olga", json={"role": role})
        await api.delete(f"{members}/olga")
        async with db.workspace(team.workspace_id) as session:
            told = (await session.execute(text("SELECT type, actor, subject_id FROM event ORDER BY id"))).all()
        types = ["principal.created", "principal.role_changed", "principal.deactivated"]
        assert [tuple(row) for row in told] == [(kind, "admin", "olga") for kind in types]

    async def test_of_several_at_once_one_makes_it(
        self, client: Caller, members: str, db: Database, team: Team
    ) -> None:
        for name in ("olga", "peter", "maria"):
            callers = [client(team.admin) for _ in range(6)]
            puts = [caller.put(f"{members}/{name}", json={"role": "member"}) for caller in callers]
            answers = await asyncio.gather(*puts)
            assert [(answer.status_code, answer.json()["data"]["role"]) for answer in answers] == [(200, "member")] * 6
        async with db.workspace(team.workspace_id) as session:
            told = (await session.execute(text("SELECT type, subject_id FROM event ORDER BY id"))).all()
        assert [tuple(row) for row in told] == [("principal.created", name) for name in ("olga", "peter", "maria")]

    async def test_only_humans_are_members(self, api: httpx2.AsyncClient, members: str) -> None:
        assert refusal(await api.put(f"{members}/service", json={"role": "admin"})) == (409, "not_a_human")
        gone = await api.delete(f"{members}/service")
        assert refusal(gone) == (404, "member_not_found")
        listed = f"`GET {members.removeprefix('/api/v1')}` lists who is one"
        assert gone.json()["error"]["message"] == f"there is no member 'service'; {listed}"
        names = [row["name"] for row in (await api.get(f"{members}?sort=created_at")).json()["data"]["items"]]
        assert sorted(names) == ["admin", "member", "observer", "operator"]

    async def test_one_spelling_of_a_name(self, api: httpx2.AsyncClient, members: str) -> None:
        await api.put(f"{members}/\uff4flga", json={"role": "observer"})
        assert (await api.get("/api/v1/principals/olga")).status_code == 200
        assert refusal(await api.post("/api/v1/principals", json={"name": "olga", "role": "admin"})) == (
            409,
            "principal_exists",
        )
        assert refusal(await api.put(f"{members}/{'x' * 10_000}", json={"role": "observer"})) == (422, "invalid_input")


class TestLastAdmin:
    async def test_stays(self, api: httpx2.AsyncClient, members: str) -> None:
        for answer in (
            await api.put(f"{members}/admin", json={"role": "operator"}),
            await api.delete(f"{members}/admin"),
            await api.delete("/api/v1/principals/admin"),
        ):
            assert refusal(answer) == (409, "last_admin")

    async def test_another_needs_a_key_to_be_one(self, api: httpx2.AsyncClient, client: Caller, members: str) -> None:
        await api.put(f"{members}/anna", json={"role": "admin"})
        assert refusal(await api.delete(f"{members}/admin")) == (409, "last_admin"), "anna has no key"
        await key_for(api, client, "anna", scopes=["missions"])
        assert refusal(await api.delete(f"{members}/admin")) == (409, "last_admin"), "anna's key is for missions"
        anna = await key_for(api, client, "anna")
        assert (await anna.delete(f"{members}/admin")).status_code == 200

    async def test_of_two_who_end_each_other_one_stays(
        self, api: httpx2.AsyncClient, client: Caller, members: str
    ) -> None:
        anna = await key_for(api, client, "anna", role="admin")
        answers = await asyncio.gather(
            api.put(f"{members}/anna", json={"role": "observer"}), anna.delete(f"{members}/admin")
        )
        assert sorted(answer.status_code for answer in answers) in ([200, 401], [200, 403])


class TestPower:
    async def test_nobody_gives_more_than_it_has(
        self, api: httpx2.AsyncClient, client: Caller, members: str, team: Team, db: Database
    ) -> None:
        async with db.system() as session:
            root = client(await make_key(session, team.workspace_id, "root", role=Role.PLATFORM_ADMIN))
        [own] = (await root.get("/api/v1/keys?principal=root")).json()["data"]["items"]
        for answer in (
            await api.post("/api/v1/keys", json={"principal": "root"}),
            await api.post("/api/v1/keys", json={"principal": "me", "role": "platform_admin"}),
            await api.post("/api/v1/principals", json={"name": "me", "role": "platform_admin"}),
            await api.post(f"/api/v1/keys/{own['key_id']}/rotate", json={}),
            await api.delete(f"/api/v1/keys/{own['key_id']}"),
            await api.put(f"{members}/root", json={"role": "observer"}),
            await api.put(f"{members}/me", json={"role": "platform_admin"}),
            await api.delete(f"{members}/root"),
        ):
            assert refusal(answer) == (403, "platform_admins_only")
        assert (await root.put(f"{members}/admin", json={"role": "platform_admin"})).status_code == 200

    async def test_a_narrowed_key_gives_no_wider_one(self, api: httpx2.AsyncClient, client: Caller, team: Team) -> None:
        narrow = await key_for(api, client, "anna", role="admin", scopes=["keys", "missions"])
        for scopes, status in [([], 403), (["events"], 403), (["missions"], 201), (["keys", "missions"], 201)]:
            answer = await narrow.post("/api/v1/keys", json={"principal": "anna", "scopes": scopes})
            assert answer.status_code == status, answer.text
        [own] = (await api.get("/api/v1/keys?principal=admin")).json()["data"]["items"]
        assert refusal(await narrow.post(f"/api/v1/keys/{own['key_id']}/rotate", json={})) == (403, "out_of_scope")

    @pytest.mark.parametrize("new", [{"role": "admin"}, {"role": "observer"}, {"kind": "agent"}])
    async def test_a_narrowed_key_makes_nobody_with_a_role_and_lets_no_agent_in(
        self, api: httpx2.AsyncClient, client: Caller, new: dict[str, str]
    ) -> None:
        scoped = ["keys", "principals"]
        narrow = await key_for(api, client, "anna", role="admin", scopes=scoped)
        for noun, name, more in [("principals", "name", {}), ("keys", "principal", {"scopes": scoped})]:
            body = {"kind": "human", name: "puppet"} | new | more
            assert refusal(await narrow.post(f"/api/v1/{noun}", json=body)) == (403, "out_of_scope")
        made = await narrow.post("/api/v1/principals", json={"name": "robot", "kind": "service"})
        assert made.status_code == 201

    async def test_a_narrowed_key_gives_no_role(self, api: httpx2.AsyncClient, client: Caller, members: str) -> None:
        """A role is all its keys', and one of those may be without scopes."""
        narrowed = await key_for(api, client, "admin", scopes=["workspaces"])
        for name in ("admin", "olga", "observer"):
            answer = await narrowed.put(f"{members}/{name}", json={"role": "admin"})
            assert refusal(answer) == (403, "out_of_scope"), name

    async def test_a_narrowed_key_lets_no_agent_in(self, api: httpx2.AsyncClient, client: Caller, team: Team) -> None:
        """An agent's key is without scopes, and who let it in may have its token."""
        made = await registered(client(None), team)
        approve = f"/api/v1/agents/{made['agent_id']}/approve"
        resolve = f"/api/v1/decisions/{made['agent_id']}.registration/resolve"
        yes = {"decision": "approve", "explanation": "known to us"}
        for scope, place, body in (("agents", approve, WHY), ("decisions", resolve, yes)):
            narrowed = await key_for(api, client, "anna", role="admin", scopes=[scope])
            assert refusal(await narrowed.post(place, json=body)) == (403, "out_of_scope")
        keeper = await key_for(api, client, "anna", scopes=["agents"])
        assert (await keeper.post(f"/api/v1/agents/{made['agent_id']}/reject", json=WHY)).status_code == 200

    async def test_a_narrowed_key_makes_no_workspace(self, api: httpx2.AsyncClient, client: Caller, team: Team) -> None:
        """Whoever makes one gets a key to it that is without scopes."""
        narrowed = await key_for(api, client, "observer", scopes=["workspaces"])
        made = await narrowed.post("/api/v1/workspaces", json={"slug": f"new-{team.workspace_id}", "name": "Search"})
        assert refusal(made) == (403, "out_of_scope")

    async def test_a_principal_is_what_it_is(self, api: httpx2.AsyncClient) -> None:
        for body in ({"kind": "agent"}, {"role": "observer"}):
            answer = await api.post("/api/v1/keys", json={"principal": "operator"} | body)
            assert refusal(answer) == (409, "principal_differs")
        assert refusal(await api.post("/api/v1/keys", json={"principal": "nobody"})) == (422, "role_required")


class TestWorkspaces:
    async def test_whoever_makes_one_is_its_admin(self, client: Caller, team: Team, root: httpx2.AsyncClient) -> None:
        founder, slug = client(team.observer), f"new-{team.workspace_id}"
        body = {"slug": slug, "name": "Search", "mission_statement": "Find.", "emoji": "\U0001f50d", "color": "#12ab9f"}
        made = (await founder.post("/api/v1/workspaces", json=body)).json()["data"]
        assert {name: made[name] for name in body} == body
        inside = client(made["secret"])
        assert [row["slug"] for row in (await inside.get("/api/v1/workspaces")).json()["data"]["items"]] == [slug]
        renamed = await inside.patch(f"/api/v1/workspaces/{slug}", json={"name": "Seek"})
        assert renamed.json()["data"]["name"] == "Seek"
        for nothing in ({}, {"name": None, "emoji": None}):
            asked = await inside.patch(f"/api/v1/workspaces/{slug}", json=nothing)
            assert refusal(asked) == (422, "nothing_to_change")
        assert refusal(await founder.get(f"/api/v1/workspaces/{slug}")) == (404, "workspace_not_found")
        assert refusal(await founder.post("/api/v1/workspaces", json=body)) == (409, "workspace_exists")
        again, body = {"Idempotency-Key": "k"}, {"slug": f"{slug}-2", "name": "Twice"}
        first, second = [await founder.post("/api/v1/workspaces", json=body, headers=again) for _ in range(2)]
        assert first.status_code == second.status_code == 201
        assert second.json()["data"] == first.json()["data"] | {"secret": None}
        every = (await root.get("/api/v1/workspaces")).json()["data"]["items"]
        assert {slug, team.workspace_id} <= {row["slug"] for row in every}

    async def test_a_platform_admin_pages_through_all_and_nobody_else_does(
        self, client: Caller, team: Team, other_team: Team, root: httpx2.AsyncClient
    ) -> None:
        async def listed(by: httpx2.AsyncClient, size: int, sort: str) -> list[str]:
            found: list[str] = []
            asked: dict[str, str | int] = {"limit": size, "sort": sort}
            while True:
                page = (await by.get("/api/v1/workspaces", params=asked)).json()["data"]
                found += [row["workspace_id"] for row in page["items"]]
                if not page["next_cursor"]:
                    return found
                asked["cursor"] = page["next_cursor"]

        newest = await listed(root, 200, "-created_at")
        assert {team.workspace_id, other_team.workspace_id} <= set(newest)
        assert await listed(root, 1, "-created_at") == newest
        assert await listed(root, 2, "created_at") == newest[::-1]
        assert await listed(client(team.admin), 1, "created_at") == [team.workspace_id]

    async def test_its_log_knows_who_made_it(
        self, client: Caller, team: Team, root: httpx2.AsyncClient, db: Database
    ) -> None:
        for number, founder in enumerate((client(team.observer), root)):
            slug = f"{team.workspace_id}-log-{number}"
            assert (await founder.post("/api/v1/workspaces", json={"slug": slug, "name": "New"})).status_code == 201
            async with db.workspace(slug) as session:
                kinds = await session.execute(text("SELECT action, actor_kind FROM audit ORDER BY id"))
                told = {row.action: row.actor_kind for row in kinds}
            assert told == dict.fromkeys(("principal.created", "workspace.created", "api_key.created"), "human")

    @pytest.mark.parametrize(
        "change", [{"slug": "A b"}, {"slug": ""}, {"name": " "}, {"color": "red"}, {"mission_statement": "x" * 10_000}]
    )
    async def test_what_makes_no_sense_is_refused(self, api: httpx2.AsyncClient, change: dict[str, str]) -> None:
        body = {"slug": "fine", "name": "Fine"} | change
        assert refusal(await api.post("/api/v1/workspaces", json=body)) == (422, "invalid_input")

    async def test_a_visitor_is_named_with_its_home(
        self, root: httpx2.AsyncClient, team: Team, members: str, db: Database
    ) -> None:
        assert (await root.put(f"{members}/olga", json={"role": "observer"})).status_code == 200
        async with db.workspace(team.workspace_id) as session:
            actor = (await session.execute(text("SELECT actor FROM event"))).scalar_one()
        assert actor.startswith("default/root-")
        listed = await root.get("/api/v1/principals", headers={"X-Workspace": team.workspace_id})
        assert "olga" in listed.text
        assert "olga" not in (await root.get("/api/v1/principals")).text

    async def test_who_names_no_workspace_is_in_that_of_its_key(
        self, root: httpx2.AsyncClient, client: Caller, team: Team, other_team: Team, db: Database
    ) -> None:
        """Whichever is the default one: that is for requests without a key."""
        async with db.system() as session:
            here = client(await make_key(session, team.workspace_id, "anna", role=Role.PLATFORM_ADMIN))
        chosen = await here.put(f"/api/v1/workspaces/{other_team.workspace_id}/default")
        probe = {"name": "probe", "endpoint": "https://agents.example.org/probe", "capabilities": ["coding"]}
        asked = await client(None).post("/api/v1/agents", json=probe)
        await root.put("/api/v1/workspaces/default/default")
        assert (chosen.status_code, asked.status_code) == (200, 201)
        for caller, found in ((here, False), (client(team.admin), False), (client(other_team.observer), True)):
            agents = (await caller.get("/api/v1/agents")).json()["data"]["items"]
            assert ("probe" in [agent["name"] for agent in agents]) is found
        there = await here.get("/api/v1/agents", headers={"X-Workspace": other_team.workspace_id})
        assert "probe" in there.text

    async def test_the_default_one_is_told_of_once(
        self, root: httpx2.AsyncClient, team: Team, other_team: Team, db: Database
    ) -> None:
        for place, key in [(team, "one"), (team, "two"), (other_team, "three"), (team, "one")]:
            chosen = f"/api/v1/workspaces/{place.workspace_id}/default"
            answer = await root.put(chosen, headers={"Idempotency-Key": f"{team.workspace_id}-{key}"})
            assert answer.status_code == 200
        assert answer.headers["idempotency-replayed"] == "true"
        assert await events_of(db, team, "workspace.%") == ["workspace.changed"]
        assert await events_of(db, other_team, "workspace.%") == ["workspace.changed"]
        async with db.system() as session:
            assert await workspaces.default(session) == other_team.workspace_id
        await root.put("/api/v1/workspaces/default/default")

    async def test_a_visitors_session_is_at_home(self, client: Caller, team: Team, db: Database) -> None:
        async with db.system() as session:
            secret = await make_key(session, "default", "admin", role=Role.PLATFORM_ADMIN)
        browser = client(None)
        await browser.post("/api/v1/auth/session", json={"key": secret})
        ended = await browser.delete("/api/v1/auth/session", headers={"X-Workspace": team.workspace_id})
        assert ended.status_code == 204
        async with db.system() as session:
            told = "SELECT workspace_id, actor FROM event WHERE type = 'session.closed'"
            assert [tuple(row) for row in await session.execute(text(told))] == [("default", "admin")]

    async def test_so_many_come_of_one_human(self, client: Caller, team: Team, root: httpx2.AsyncClient) -> None:
        """Also by way of those whom it lets into a workspace that it made."""
        founder, places = client(team.observer), [f"of-one-{number}" for number in range(22)]
        first = await founder.post("/api/v1/workspaces", json={"slug": places[0], "name": "First"})
        inside = client(first.json()["data"]["secret"])
        guest = await key_for(inside, client, "guest", role="observer")
        for number, slug in enumerate(places[1:20]):
            caller = (founder, inside, guest)[number % 3]
            made = await caller.post("/api/v1/workspaces", json={"slug": slug, "name": "N"})
            assert made.status_code == 201, made.text
        body = {"slug": places[20], "name": "N"}
        for caller in (founder, inside, guest):
            answer = await caller.post("/api/v1/workspaces", json=body)
            assert refusal(answer) == (409, "too_many_workspaces")
            assert team.workspace_id not in answer.text, "the guest is not at home there"
        assert (await client(team.member).post("/api/v1/workspaces", json=body)).status_code == 201
        assert (await root.post("/api/v1/workspaces", json=body | {"slug": places[21]})).status_code == 201
