"""Keys, cookies, and who may call what."""

import asyncio
import stat
from pathlib import Path

import pytest
from sqlalchemy import text

from models.domain.principals import Callers, Kind, Principal, Role
from models.settings import Settings
from models.store import keys
from models.store.database import Database
from models.store.first_start import ensure_first_admin
from tests.fixtures.access import make_key, make_workspace
from tests.fixtures.api import Caller, Team
from tests.fixtures.servers import PostgresServer

EVENT = {"type": "subsystem.report", "subject": {"kind": "subsystem", "id": "billing"}}


class TestKeys:
    async def test_bearer_and_header_are_the_same(self, client: Caller, team: Team) -> None:
        bearer = await client(team.service).post("/api/v1/events", json=EVENT)
        header = await client(None).post("/api/v1/events", json=EVENT, headers={"X-API-Key": team.service})
        assert (bearer.status_code, header.status_code) == (202, 202), bearer.text

    @pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer "}])
    async def test_without_a_key(self, client: Caller, headers: dict[str, str]) -> None:
        answer = await client(None).post("/api/v1/events", json=EVENT, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "api_key_required")
        assert answer.headers["www-authenticate"] == "Bearer"

    async def test_unknown_key(self, client: Caller) -> None:
        answer = await client("mc_nobody").post("/api/v1/events", json=EVENT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert "mc_nobody" not in answer.text

    async def test_revoked_key_is_refused_within_a_second(self, client: Caller, team: Team, db: Database) -> None:
        caller = client(team.service)
        assert (await caller.post("/api/v1/events", json=EVENT)).status_code == 202
        async with db.system() as session:
            await session.execute(
                text("UPDATE api_key SET revoked_at = now() WHERE digest = :digest"),
                {"digest": keys.digest(team.service)},
            )
        async with asyncio.timeout(3):
            while (await caller.post("/api/v1/events", json=EVENT)).status_code != 401:
                pass

    async def test_only_a_digest_is_stored(self, team: Team, db: Database) -> None:
        async with db.system() as session:
            rows = (await session.execute(text("SELECT api_key::text AS row FROM api_key"))).scalars()
            assert not any(team.admin in row for row in rows)
        assert team.admin.startswith("mc_")
        assert len(team.admin) >= 3 + 43

    async def test_role_too_low(self, client: Caller, team: Team) -> None:
        answer = await client(team.observer).post("/api/v1/events", json=EVENT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_permitted")

    async def test_the_caller_is_known_before_the_body_is_read(self, client: Caller) -> None:
        answer = await client(None).post("/api/v1/events", content=b"{" * 100)
        assert answer.status_code == 401


class TestCallers:
    @pytest.mark.parametrize(
        ("kind", "role", "admitted"),
        [
            (Kind.HUMAN, Role.ADMIN, True),
            (Kind.HUMAN, Role.OPERATOR, True),
            (Kind.HUMAN, Role.MEMBER, False),
            (Kind.HUMAN, Role.OBSERVER, False),
            (Kind.AGENT, None, True),
            (Kind.SERVICE, None, False),
        ],
    )
    def test_agents_or_operators(self, kind: Kind, role: Role | None, admitted: bool) -> None:
        principal = Principal("w", "p", kind, role, "k")
        assert Callers(Role.OPERATOR, agents=True).admit(principal) is admitted


class TestCookie:
    async def test_exchange_and_end(self, client: Caller, team: Team) -> None:
        browser = client(None)
        opened = await browser.post("/api/v1/auth/session", json={"key": team.admin})
        assert opened.status_code == 200
        assert opened.json()["data"] == {
            "principal": "admin",
            "workspace_id": team.workspace_id,
            "kind": "human",
            "role": "admin",
        }
        cookie = opened.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert team.admin not in cookie
        assert (await browser.post("/api/v1/events", json=EVENT)).status_code == 202
        assert (await browser.delete("/api/v1/auth/session")).status_code == 204
        browser.cookies.set("mission_control_session", cookie.split("=", 1)[1].split(";")[0])
        assert (await browser.post("/api/v1/events", json=EVENT)).status_code == 401

    async def test_its_opening_and_end_are_told(self, client: Caller, team: Team, db: Database) -> None:
        browser = client(None)
        await browser.post("/api/v1/auth/session", json={"key": team.operator})
        await browser.delete("/api/v1/auth/session")
        await client(team.operator).delete("/api/v1/auth/session")
        assert await told(db, team.workspace_id) == [("session.opened", "operator"), ("session.closed", "operator")]

    async def test_a_page_of_another_port_cannot_act_with_it(self, client: Caller, team: Team) -> None:
        browser = client(None)
        await browser.post("/api/v1/auth/session", json={"key": team.admin})
        answer = await browser.post("/api/v1/events", json=EVENT, headers={"Origin": "http://test:3000"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross_origin")
        assert (await browser.post("/api/v1/events", json=EVENT, headers={"Origin": "http://test"})).status_code == 202

    async def test_nor_take_work_by_a_get(self, client: Caller, team: Team) -> None:
        browser, taking = client(None), "/api/v1/queue/next?agent_id=agent&agent_role=coding"
        await browser.post("/api/v1/auth/session", json={"key": team.operator})
        for headers in ({}, {"Origin": "http://test:3000"}, {"Sec-Fetch-Site": "same-site"}):
            answer = await browser.get(taking, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross_origin")
            assert (await browser.get(f"{taking}&peek=true", headers=headers)).status_code == 200
        for headers in ({"Origin": "http://test"}, {"Sec-Fetch-Site": "same-origin"}):
            assert (await browser.get(taking, headers=headers)).status_code == 200
        assert (await client(team.operator).get(taking)).status_code == 200

    async def test_who_may_not_look_opens_none_and_ends_their_own(self, client: Caller, team: Team) -> None:
        root, browser, other = client(team.admin), client(None), client(None)
        narrow = await root.post("/api/v1/keys", json={"principal": "ivo", "role": "observer", "scopes": ["missions"]})
        await other.post("/api/v1/auth/session", json={"key": narrow.json()["data"]["secret"]})
        assert (await browser.post("/api/v1/auth/session", json={"key": team.agent})).status_code == 200
        agents = (await root.get("/api/v1/agents")).json()["data"]["items"]
        held = await root.post(f"/api/v1/agents/{agents[0]['agent_id']}/quarantine")
        assert held.status_code == 200, held.text
        refused = await client(None).post("/api/v1/auth/session", json={"key": team.agent})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "agent_not_active")
        assert [(await one.delete("/api/v1/auth/session")).status_code for one in (browser, other)] == [204, 204]

    async def test_it_ends_with_its_key(self, client: Caller, team: Team, db: Database) -> None:
        browser = client(None)
        await browser.post("/api/v1/auth/session", json={"key": team.operator})
        async with db.system() as session:
            await session.execute(
                text("UPDATE api_key SET revoked_at = now() WHERE digest = :digest"),
                {"digest": keys.digest(team.operator)},
            )
        assert (await browser.delete("/api/v1/auth/session")).status_code == 401

    async def test_wrong_key(self, client: Caller) -> None:
        answer = await client(None).post("/api/v1/auth/session", json={"key": "mc_wrong"})
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers


async def told(db: Database, workspace_id: str) -> list[tuple[str, str]]:
    """The workspace's events: what each is, and about what."""
    async with db.workspace(workspace_id) as session:
        rows = await session.execute(text("SELECT type, subject_id FROM event ORDER BY epoch, xid, id"))
        return [(row.type, row.subject_id) for row in rows]


class TestFirstStart:
    async def test_many_processes_make_one_key(
        self, postgres_server: PostgresServer, migrated_template: str, tmp_path: Path
    ) -> None:
        url = postgres_server.create_database(migrated_template)
        settings = Settings(DATABASE_URL=url, data_dir=tmp_path / "new")
        doors = [Database.from_settings(settings) for _ in range(4)]
        await asyncio.gather(*(ensure_first_admin(door, settings) for door in doors for _ in range(2)))
        secret = settings.key_file.read_text().strip()
        assert stat.S_IMODE(settings.key_file.stat().st_mode) == 0o600
        assert [path.name for path in settings.key_file.parent.iterdir()] == ["admin.key"]
        owner = await keys.find(doors[0], keys.digest(secret))
        async with doors[0].system() as session:
            assert (await session.execute(text("SELECT count(*) FROM api_key"))).scalar_one() == 1
        assert owner is not None
        assert await told(doors[0], "default") == [
            ("workspace.created", "default"),
            ("principal.created", "admin"),
            ("api_key.created", owner.key_id),
        ]
        assert (owner.workspace_id, owner.role) == ("default", Role.PLATFORM_ADMIN)
        for door in doors:
            await door.close()

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE api_key SET revoked_at = now()",
            "UPDATE api_key SET expires_at = now()",
            "UPDATE api_key SET expires_at = now() + interval '1 day'",
            """UPDATE api_key SET scopes = '["missions"]'""",
        ],
    )
    async def test_a_key_that_is_no_way_in_for_good_gets_a_successor(
        self, postgres_server: PostgresServer, migrated_template: str, tmp_path: Path, change: str
    ) -> None:
        settings = Settings(DATABASE_URL=postgres_server.create_database(migrated_template), data_dir=tmp_path)
        door, secrets = Database.from_settings(settings), []
        for before in ("SELECT 1", change, "SELECT 1"):
            async with door.system() as session:
                await session.execute(text(before))
            await ensure_first_admin(door, settings)
            secrets.append(settings.key_file.read_text())
        await door.close()
        assert secrets[0] != secrets[1] == secrets[2], "the second start makes one, the third finds it"

    async def test_another_admin_is_no_platform_admin(
        self, postgres_server: PostgresServer, migrated_template: str, tmp_path: Path
    ) -> None:
        settings = Settings(DATABASE_URL=postgres_server.create_database(migrated_template), data_dir=tmp_path)
        door = Database.from_settings(settings)
        await ensure_first_admin(door, settings)
        lost = settings.key_file.read_text()
        async with door.system() as session:
            await make_key(session, "default", "anna", role=Role.ADMIN)
            await session.execute(text("UPDATE api_key SET revoked_at = now() WHERE principal = 'admin'"))
        await ensure_first_admin(door, settings)
        found = await keys.find(door, keys.digest(settings.key_file.read_text().strip()))
        await door.close()
        assert settings.key_file.read_text() != lost
        assert found is not None
        assert (found.name, found.role) == ("admin", Role.PLATFORM_ADMIN)

    async def test_no_other_key_is_lifted(
        self, postgres_server: PostgresServer, migrated_template: str, tmp_path: Path
    ) -> None:
        """Somebody may be called `admin` without being one."""
        settings = Settings(DATABASE_URL=postgres_server.create_database(migrated_template), data_dir=tmp_path)
        door = Database.from_settings(settings)
        async with door.system() as session:
            await make_workspace(session, "default")
            secret = await make_key(session, "default", "admin", role=Role.OBSERVER)
        await ensure_first_admin(door, settings)
        assert await keys.find(door, keys.digest(secret)) is None
        first = await keys.find(door, keys.digest(settings.key_file.read_text().strip()))
        assert first is not None
        assert first.role is Role.PLATFORM_ADMIN
        types = [type for type, _ in await told(door, "default")]
        assert types == ["api_key.revoked", "principal.role_changed", "api_key.created"]
        await door.close()

    @pytest.mark.parametrize("kind", [Kind.AGENT, Kind.SERVICE])
    async def test_the_name_may_be_taken(
        self, kind: Kind, postgres_server: PostgresServer, migrated_template: str, tmp_path: Path
    ) -> None:
        settings = Settings(DATABASE_URL=postgres_server.create_database(migrated_template), data_dir=tmp_path)
        door = Database.from_settings(settings)
        async with door.system() as session:
            await make_workspace(session, "default")
            others = [await make_key(session, "default", name, kind=kind) for name in ("admin", "admin-2")]
        await ensure_first_admin(door, settings)
        first = await keys.find(door, keys.digest(settings.key_file.read_text().strip()))
        kept = [await keys.find(door, keys.digest(other)) for other in others]
        assert first is not None
        assert (first.name, first.role) == ("admin-3", Role.PLATFORM_ADMIN)
        assert [owner and owner.kind for owner in kept] == [kind, kind]
        await door.close()

    async def test_it_is_logged_without_the_key(
        self,
        postgres_server: PostgresServer,
        migrated_template: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        settings = Settings(DATABASE_URL=postgres_server.create_database(migrated_template), data_dir=tmp_path)
        door = Database.from_settings(settings)
        await ensure_first_admin(door, settings)
        await door.close()
        told = capsys.readouterr().out
        assert "first_admin_key_written" in told
        assert settings.key_file.read_text().strip() not in told
