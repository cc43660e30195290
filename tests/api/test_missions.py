"""Filing missions, finding them, and filing them again."""

import asyncio
import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from models.store import missions
from models.store.database import Database
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo, make_repo
from tests.fixtures.missions import DIFF, SEED, body, filed, refusal, repo

__all__ = ["repo"]

SEED_KEYS = [
    "mission_id",
    "subsystem_id",
    "severity",
    "status",
    "context",
    "symptoms",
    "acceptance_criteria",
    "workspace",
    "trust_requirements",
    "remediation_history",
    "crypto_signatures",
]


class TestCreate:
    async def test_takes_the_older_documents_own_example(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        answer = await api.post("/api/v1/missions", json=SEED | {"workspace_repo_path": str(repo.path)})
        mission = answer.json()["data"]
        assert answer.status_code == 201
        assert (mission["status"], mission["workspace"]["repo_path"]) == ("open", str(repo.path))
        assert mission["workspace"]["working_branch"] == "main"
        assert (mission["detected_by"], mission["assigned_to"]) == ("monitoring_loop", "elite_coding_agent")
        assert list(mission)[:11] == SEED_KEYS

    async def test_takes_camel_case(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        camel = {
            "subsystemId": "mesh",
            "severity": "low",
            "workspaceRepoPath": str(repo.path),
            "symptoms": [{"description": "slow", "metricId": "p95"}],
            "acceptanceCriteria": {"mustPassTests": ["test_a"], "observationWindowMinutes": 0.5},
        }
        answer = await api.post("/api/v1/missions", json=camel)
        assert answer.status_code == 201
        assert answer.json()["data"]["acceptance_criteria"]["must_pass_tests"] == ["test_a"]

    async def test_numbers_missions_by_day(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        made = [(await filed(api, repo))["mission_id"] for _ in range(3)]
        day = f"{datetime.now(UTC):%Y%m%d}"
        assert made == [f"mission_{day}_{number:03d}" for number in (1, 2, 3)]

    async def test_gives_no_number_twice(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        made = await asyncio.gather(*(filed(api, repo) for _ in range(20)))
        assert len({mission["mission_id"] for mission in made}) == 20
        listed = (await api.get("/api/v1/repositories")).json()["data"]["items"]
        assert len(listed) == 1, "twenty callers at once register a path once"

    async def test_two_workspaces_count_for_themselves(
        self, client: Caller, team: Team, other_team: Team, repo: Repo
    ) -> None:
        other = make_repo(repo.path.parent / "other")
        ours, theirs = await filed(client(team.admin), repo), await filed(client(other_team.admin), other)
        assert ours["mission_id"] == theirs["mission_id"]

    async def test_inherits_the_catalogs_target(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        symptoms = [{"description": "hot", "metric_id": "infra.cpu_utilization"}, {"description": "odd"}]
        mission = await filed(api, repo, symptoms=symptoms, acceptance_criteria={})
        assert mission["acceptance_criteria"]["metric_targets"] == [
            {
                "metric_id": "infra.cpu_utilization",
                "comparator": "<",
                "target": 70.0,
                "rolling_window_minutes": 10,
            }
        ]
        assert mission["acceptance_criteria"]["observation_window_minutes"] == 30

    async def test_keeps_a_target_of_its_own(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        mission = await filed(api, repo)
        assert mission["acceptance_criteria"] == SEED["acceptance_criteria"] | {"pass_to_pass": False}

    async def test_links_lead_somewhere(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        mission = await filed(api, repo, patch_candidates=[{"diff": DIFF}])
        for name, place in mission["links"].items():
            if name != "events":
                assert (await api.get(place)).status_code == 200, name

    async def test_writes_its_event(self, api: httpx2.AsyncClient, repo: Repo, db: Database, team: Team) -> None:
        mission = await filed(api, repo)
        async with db.workspace(team.workspace_id) as session:
            rows = await session.execute(
                text(
                    "SELECT actor, correlation_id, data FROM event WHERE type = 'mission.created' AND subject_id = :id"
                ),
                {"id": mission["mission_id"]},
            )
        [row] = rows.all()
        assert (row.actor, row.data["severity"]) == ("admin", "high")
        assert row.correlation_id

    async def test_a_repetition_is_answered_though_the_folder_is_gone(
        self, api: httpx2.AsyncClient, repo: Repo
    ) -> None:
        headers = {"Idempotency-Key": "file-1"}
        first = await api.post("/api/v1/missions", json=body(repo), headers=headers)
        repo.path.rename(repo.path.with_name("elsewhere"))
        again = await api.post("/api/v1/missions", json=body(repo), headers=headers)
        assert (again.status_code, again.json()) == (201, first.json())
        registered = await api.post("/api/v1/missions", json=body(repo))
        assert registered.status_code == 201, "a place that is registered is known by its name"
        (repo.path.parent / "link").symlink_to(repo.path)
        unknown = await api.post("/api/v1/missions", json=body(Repo(repo.path.parent / "link")))
        assert refusal(unknown) == (422, "repository_not_git")

    async def test_a_repetition_files_one(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        headers = {"Idempotency-Key": "file-1"}
        first, second = [await api.post("/api/v1/missions", json=body(repo), headers=headers) for _ in range(2)]
        assert first.json() == second.json()
        other = await api.post("/api/v1/missions", json=body(repo, severity="low"), headers=headers)
        assert refusal(other) == (409, "idempotency_key_reused")


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"severity": "urgent"}, "invalid_input"),
            ({"unheard_of": 1}, "invalid_input"),
            ({"symptoms": [{"metric_id": "x"}]}, "invalid_input"),
            ({"symptoms": [{"description": 7}]}, "invalid_input"),
            ({"acceptance_criteria": {"observation_window_minutes": 0}}, "invalid_input"),
            (
                {"acceptance_criteria": {"metric_targets": [{"metric_id": "x", "comparator": "~", "target": 1}]}},
                "invalid_input",
            ),
            ({"mission_type": "poetry"}, "invalid_input"),
            ({"workspace_repo_path": None}, "invalid_input"),
            ({"repository": "app"}, "invalid_input"),
            ({"workspace_branch": "--upload-pack=x"}, "ref_invalid"),
            ({"workspace_repo_path": "/etc"}, "repository_outside_roots"),
            ({"workspace_repo_path": "ext::sh -c true"}, "repository_scheme_not_allowed"),
            ({"patch_candidates": [{"diff": ""}]}, "patch_empty"),
            ({"patch_candidates": [{"diff": "hello"}]}, "patch_not_a_diff"),
            ({"patch_candidates": [{"diff": DIFF.replace("README.md", "../x")}]}, "patch_escapes"),
            ({"patch_candidates": [{"diff": DIFF, "ref": "main"}]}, "invalid_input"),
            ({"patch_candidates": [{}]}, "invalid_input"),
            ({"patch_candidates": [{"ref": "a..b"}]}, "ref_invalid"),
            ({"patch_candidates": [{"ref": "main"}] * 21}, "invalid_input"),
            ({"overrides": {"tset": "x"}}, "invalid_input"),
            ({"approval_timeout_minutes": -1}, "invalid_input"),
        ],
    )
    async def test_names_what_is_wrong(
        self, api: httpx2.AsyncClient, repo: Repo, changes: dict[str, Any], code: str
    ) -> None:
        answer = await api.post("/api/v1/missions", json=body(repo, **changes))
        assert refusal(answer) == (422, code)
        assert (await api.get("/api/v1/missions")).json()["data"]["items"] == [], "nothing is left behind"

    async def test_a_link_out_of_the_roots_is_outside(
        self, api: httpx2.AsyncClient, tmp_path: Path, server_dir: Path
    ) -> None:
        outside = make_repo(server_dir / "outside")
        (tmp_path / "link").symlink_to(outside.path)
        answer = await api.post("/api/v1/missions", json=body(Repo(tmp_path / "link")))
        assert refusal(answer) == (422, "repository_outside_roots")

    async def test_unknown_dependencies_and_repositories_are_not_found(
        self, api: httpx2.AsyncClient, repo: Repo
    ) -> None:
        lost = await api.post("/api/v1/missions", json=body(repo, dependencies=["mission_20250110_001"]))
        assert refusal(lost) == (404, "mission_not_found")
        unregistered = body(repo, workspace_repo_path=None, repository="https://example.com/x.git")
        assert refusal(await api.post("/api/v1/missions", json=unregistered)) == (404, "repository_not_found")

    async def test_only_operators_override_commands(self, client: Caller, team: Team, repo: Repo) -> None:
        overriding = body(repo, overrides={"test": "true"})
        for key in (team.agent, team.service):
            answer = await client(key).post("/api/v1/missions", json=overriding)
            assert refusal(answer) == (403, "overrides_need_operator")
        answer = await client(team.operator).post("/api/v1/missions", json=overriding)
        assert answer.json()["data"]["overrides"] == {"test": "true"}

    async def test_an_observer_files_nothing(self, client: Caller, team: Team, repo: Repo) -> None:
        answer = await client(team.observer).post("/api/v1/missions", json=body(repo))
        assert refusal(answer) == (403, "not_permitted")


class TestRepository:
    async def test_a_mission_has_its_repositorys_protection(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        new = {"url": str(repo.path), "name": "app", "target_branch": "release", "protected": True, "env": "prod"}
        registered = (await api.post("/api/v1/repositories", json=new)).json()["data"]
        for named in (
            {"repository": "app"},
            {"repository": registered["repository_id"]},
            {"repository": str(repo.path)},
        ):
            mission = await filed(api, repo, workspace_repo_path=None, workspace_branch=None, **named)
            assert mission["repository_id"] == registered["repository_id"]
            assert mission["workspace"]["working_branch"] == "release"

    @pytest.mark.parametrize(
        ("kind", "branch", "chosen"),
        [
            ("agent", "main", True),
            ("service", "main", True),
            ("operator", "main", False),
            ("agent", "develop", False),
            ("agent", None, False),
        ],
    )
    async def test_another_branch_is_protected_unless_an_operator_names_it(
        self, client: Caller, team: Team, db: Database, repo: Repo, kind: str, branch: str | None, chosen: bool
    ) -> None:
        new = {"url": str(repo.path), "name": "app", "target_branch": "develop"}
        await client(team.operator).post("/api/v1/repositories", json=new)
        mission = await filed(client(getattr(team, kind)), repo, workspace_branch=branch)
        assert mission["workspace"]["working_branch"] == (branch or "develop")
        assert await judged_so(db, team, mission) == (chosen, chosen)
        await client(team.operator).post(f"/api/v1/missions/{mission['mission_id']}/cancel", json={})
        again = await client(team.operator).post(f"/api/v1/missions/{mission['mission_id']}/retry")
        assert await judged_so(db, team, again.json()["data"]) == (chosen, chosen), "who retries it chose no branch"


async def judged_so(db: Database, team: Team, mission: dict[str, Any]) -> tuple[bool, bool]:
    """Whether a mission's branch was chosen, and whether it is judged as protected."""
    async with db.workspace(team.workspace_id) as session:
        row = await missions.require(session, team.workspace_id, mission["mission_id"])
    return row.chosen_branch, row.protected


class TestRoom:
    """What agents have filed stands before what is less severe."""

    async def test_so_many_of_an_agent_s_are_open_and_no_more(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(missions, "MAX_OPEN_MISSIONS", 2)
        await filed(api, repo)
        agent = client(team.agent)
        first, _ = [await filed(agent, repo) for _ in range(2)]
        refused = await agent.post("/api/v1/missions", json=body(repo))
        assert refusal(refused) == (409, "too_many_missions")
        assert [(await filed(one, repo))["created_by"] for one in (api, client(team.service))]
        assert (await api.post(f"/api/v1/missions/{first['mission_id']}/cancel", json={})).is_success
        await filed(agent, repo)

    async def test_they_are_found_by_who_filed_them(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, repo: Repo
    ) -> None:
        await filed(api, repo)
        wanted = await filed(client(team.agent), repo)
        found = (await api.get("/api/v1/missions?created_by=agent")).json()["data"]["items"]
        assert [mission["mission_id"] for mission in found] == [wanted["mission_id"]]


class TestList:
    async def test_filters(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        await filed(api, repo, severity="low")
        wanted = await filed(api, repo, severity="high", subsystem_id="other")
        found = (await api.get("/api/v1/missions?status=open&severity=high&subsystemId=other")).json()["data"]["items"]
        assert [mission["mission_id"] for mission in found] == [wanted["mission_id"]]
        assert (await api.get("/api/v1/missions?status=resolved")).json()["data"]["items"] == []
        assert (await api.get("/api/v1/missions?severity=urgent")).status_code == 422
        assert refusal(await api.get("/api/v1/missions?colour=red")) == (422, "unknown_parameter")

    @pytest.mark.parametrize("sort", ["created_at", "-created_at", "severity", "-severity"])
    async def test_pages_show_each_mission_once(self, api: httpx2.AsyncClient, repo: Repo, sort: str) -> None:
        severities = ["low", "critical", "high", "low", "medium", "critical", "high"]
        made = [await filed(api, repo, severity=severity) for severity in severities]
        ranks = {"critical": 0, "high": 1, "medium": 2, "low": 3}
        ordered = sorted(made, key=lambda m: (ranks[m["severity"]] if "severity" in sort else 0, m["mission_id"]))
        expected = [m["mission_id"] for m in (ordered[::-1] if sort.startswith("-") else ordered)]
        found, cursor = [], None
        while True:
            after = f"&cursor={cursor}" if cursor else ""
            page = (await api.get(f"/api/v1/missions?limit=3&sort={sort}{after}")).json()["data"]
            found += [mission["mission_id"] for mission in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert found == expected

    async def test_a_forged_cursor_is_refused(self, api: httpx2.AsyncClient) -> None:
        forged = base64.urlsafe_b64encode(json.dumps(["-created_at", "x", "y"]).encode()).decode()
        assert refusal(await api.get(f"/api/v1/missions?cursor={forged}")) == (422, "invalid_cursor")

    async def test_each_order_is_read_from_an_index(self, db: Database, team: Team) -> None:
        statements = {
            "mission_newest": "ORDER BY created_at DESC, seq DESC",
            "mission_by_status": "AND status = 'open' ORDER BY created_at DESC, seq DESC",
            "mission_by_severity": "ORDER BY severity_rank, created_at, seq",
        }
        async with db.workspace(team.workspace_id) as session:
            await session.execute(text("SET LOCAL enable_seqscan = off"))
            await session.execute(text("SET LOCAL enable_sort = off"))
            for index, rest in statements.items():
                plan = await session.execute(
                    text(f"EXPLAIN SELECT * FROM mission WHERE workspace_id = 'w' {rest} LIMIT 50")  # noqa: S608  # ours
                )
                assert index in "\n".join(plan.scalars())


class TestGet:
    async def test_unknown_is_404(self, api: httpx2.AsyncClient) -> None:
        assert refusal(await api.get("/api/v1/missions/mission_20250110_001")) == (404, "mission_not_found")

    async def test_everyone_of_the_workspace_reads(self, client: Caller, team: Team, repo: Repo) -> None:
        await client(team.operator).post("/api/v1/repositories", json={"url": str(repo.path)})
        mission = await filed(client(team.service), repo)
        for key in (team.observer, team.agent, team.operator):
            found = await client(key).get(f"/api/v1/missions/{mission['mission_id']}")
            assert found.json()["data"]["created_by"] == "service"


class TestRetry:
    async def test_only_ended_missions(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        mission = await filed(api, repo)
        answer = await api.post(f"/api/v1/missions/{mission['mission_id']}/retry")
        assert refusal(answer) == (409, "mission_not_ended")

    async def test_files_the_same_package_again(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        candidates = [{"diff": DIFF, "author": "ada"}, {"ref": "topic"}]
        overrides = {"timeout": 5.0}
        first = await filed(api, repo, patch_candidates=candidates, overrides=overrides, approval_timeout_minutes=3)
        await api.post(f"/api/v1/missions/{first['mission_id']}/cancel", json={})
        answer = await api.post(f"/api/v1/missions/{first['mission_id']}/retry")
        again = answer.json()["data"]
        assert answer.status_code == 201
        assert (again["retry_of"], again["status"], again["outcome"]) == (first["mission_id"], "open", None)
        same = ("symptoms", "acceptance_criteria", "workspace", "overrides", "approval_timeout_minutes", "severity")
        assert {name: again[name] for name in same} == {name: first[name] for name in same}
        tried = await api.get(again["links"]["candidates"])
        assert [c["author"] for c in tried.json()["data"]["items"]] == ["ada", "admin"]
