"""Every route, called by everybody: who gets in is what requirements section 3 says, and nowhere else."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from activities.workbench.signing import ServiceKey
from models.domain.principals import Kind, Role
from models.store import keys
from models.store.database import Database
from tests.fixtures.access import make_key
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo, make_repo
from tests.fixtures.missions import repo
from tests.fixtures.one_of_each import BODIES, one_of_each, v1_routes
from tests.fixtures.policies import SOURCE
from tests.fixtures.stages import service_key

__all__ = ["repo", "service_key"]

TABLE = """
GET    /status                                      A B M O D
GET    /metrics                                     A B M O D
POST   /metrics/observations                        A O D S
GET    /metrics/observations                        A B M O D
GET    /repositories                                A B M O D
GET    /repositories/{repository}                   A B M O D
POST   /repositories                                O D
GET    /missions                                    A B M O D
GET    /missions/{mission_id}                       A B M O D
GET    /missions/{mission_id}/candidates            A B M O D
GET    /missions/{mission_id}/stages                A B M O D
GET    /missions/{mission_id}/stages/{stage}        A B M O D
GET    /missions/{mission_id}/stages/{stage}/log    A B M O D
GET    /missions/{mission_id}/evidence              A B M O D
GET    /missions/{mission_id}/diff                  A B M O D
GET    /missions/{mission_id}/blobs/{digest}        A B M O D
POST   /missions                                    A O D S
POST   /missions/{mission_id}/candidates            A O D
POST   /missions/{mission_id}/execute               A O D
POST   /missions/{mission_id}/pause                 O D
POST   /missions/{mission_id}/resume                O D
POST   /missions/{mission_id}/inject                O D
POST   /missions/{mission_id}/cancel                O D
POST   /missions/{mission_id}/retry                 O D
GET    /queue/next                                  A O D
GET    /decisions                                   A B M O D
GET    /decisions/{decision_id}                     A B M O D
GET    /decisions/counts                            A B M O D
GET    /policy                                      A B M O D
GET    /policy/versions                             A B M O D
GET    /policy/versions/{version}                   A B M O D
GET    /policy/verdicts                             A B M O D
POST   /policy/versions                             D
POST   /policy/versions/{version}/activate          D
POST   /policy/try                                  O D
POST   /policy/explain                              A B M O D
POST   /decisions/{decision_id}/resolve             a O D
GET    /capa                                        A B M O D
GET    /capa/{capa_id}                              A B M O D
POST   /capa                                        O D S
PATCH  /capa/{capa_id}                              O D
GET    /memory                                      A B M O D
GET    /memory/{memory_id}                          A B M O D
POST   /memory                                      A M O D S
GET    /events                                      A B M O D
POST   /events                                      A D S
GET    /audit                                       B M O D
GET    /audit/export                                D
GET    /audit/verify                                O D
GET    /audit/checkpoints                           B M O D
GET    /audit/consistency                           B M O D
GET    /audit/{row_id}                              B M O D
GET    /audit/{row_id}/proof                        B M O D
POST   /audit/{row_id}/redact                       D
GET    /activity                                    A B M O D
POST   /activity                                    A S
GET    /runs                                        A B M O D
GET    /runs/{run_id}                               A B M O D
POST   /runs                                        A D S
PATCH  /runs/{run_id}                               A D S
POST   /runs/{run_id}/end                           A D S
POST   /runs/{run_id}/costs                         A D S
POST   /runs/{run_id}/reservations                  A D S
POST   /runs/{run_id}/reservations/{cost_id}/settle A D S
POST   /runs/{run_id}/reservations/{cost_id}/release A D S
POST   /runs/{run_id}/adjustments                   D
POST   /runs/{run_id}/tool-calls                    A D S
GET    /runs/{run_id}/tool-calls                    A B M O D
GET    /runs/{run_id}/tool-calls/{number}           A B M O D
POST   /runs/{run_id}/tool-calls/{number}/end       A D S
GET    /budgets                                     A B M O D
PUT    /budgets                                     D
PATCH  /budgets                                     D
GET    /budgets/spending                            A B M O D
GET    /costs                                       A B M O D
GET    /alerts                                      A B M O D
GET    /alerts/{alert_id}                           A B M O D
POST   /alerts/{alert_id}/ack                       O D
POST   /alerts/{alert_id}/resolve                   O D
GET    /keys                                        D
GET    /keys/{key_id}                               D
POST   /keys                                        D
POST   /keys/{key_id}/rotate                        A B M O D S
GET    /principals                                  A B M O D
GET    /principals/{name}                           A B M O D
POST   /principals                                  D
GET    /workspaces                                  A B M O D
GET    /workspaces/{workspace_id}                   A B M O D
GET    /workspaces/{workspace_id}/members           A B M O D
POST   /workspaces                                  B M O D
PATCH  /workspaces/{workspace_id}                   D
PUT    /workspaces/{workspace_id}/default           P
PUT    /workspaces/{workspace_id}/budget            D
PUT    /workspaces/{workspace_id}/members/{name}    D
DELETE /workspaces/{workspace_id}/members/{name}    D
GET    /trust-scores                                A B M O D
GET    /trust-scores/{agent}                        A B M O D
GET    /trust-scores/{agent}/changes                A B M O D
GET    /agents                                      A B M O D
GET    /agents/{agent}                              A B M O D
POST   /agents                                      A D -
PATCH  /agents/{agent}                              A D
POST   /agents/{agent}/approve                      D
POST   /agents/{agent}/reject                       D
POST   /agents/{agent}/heartbeat                    A
POST   /agents/{agent}/rotate-key                   A D
POST   /agents/{agent}/{verb}                       O D
POST   /auth/session                                A B M O D S -
DELETE /auth/session                                A B M O D S
DELETE /principals/{name}                           D
DELETE /keys/{key_id}                               D
DELETE /agents/{agent}                              D
DELETE /memory/{memory_id}                          O D
"""
"""Callers: A agent, a one that the policy names, B observer, M member, O operator, D admin, P platform admin (may do
all that D may), S service, - no key. From requirements section 3; `GET …/{id}` as its list, `POST /events` for D, too.
"""

WITHOUT_NAMES: dict[str, dict[str, Any]] = {
    "POST /metrics/observations": {"metric_id": "p95", "value": 1},
    "POST /repositories": {"url": "https://example.org/x.git"},
    "POST /missions": {"subsystem_id": "s", "severity": "low", "repository": "nowhere"},
    "POST /policy/versions": {"source": SOURCE},
    "POST /policy/try": {"source": SOURCE},
    "POST /policy/explain": {"action": "mission.merge", "as": {"kind": "service"}},
    "POST /activity": {"agent_id": "agent", "input": "i", "reasoning": "r", "output": "o"},
    "POST /runs": {"agent_id": "agent"},
    "PUT /budgets": {"scope": "run", "owner": "level", "name": "lead", "cap_usd": "2", "cap_tokens": None},
    "PATCH /budgets": {"scope": "run", "owner": "level", "name": "lead", "cap_usd": "2"},
    "POST /capa": {"title": "t", "cause": "c", "severity": "low"},
    "POST /memory": {"kind": "playbook_note", "title": "t", "body": "b"},
    "POST /events": {"type": "subsystem.report", "subject": {"kind": "s", "id": "x"}},
    "POST /keys": {"principal": "new", "role": "observer"},
    "POST /principals": {"name": "newer", "role": "observer"},
    "POST /workspaces": {"slug": "a-new-one", "name": "New"},
    "POST /agents": {"name": "newest", "endpoint": "https://example.org"},
    "POST /auth/session": {"key": "mc_unknown"},
}
QUERIES = {
    "GET /queue/next": "?agent_id=agent&agent_role=coding&peek=true",
    "GET /events": "?type=no.such",
    "GET /audit/consistency": "?from=0&to=0",
}
"""A stream would never end: what is wrong with its query is told once the caller is admitted."""

REPORTS = {
    "PATCH /runs/{run_id}",
    "POST /runs/{run_id}/end",
    "POST /runs/{run_id}/costs",
    "POST /runs/{run_id}/reservations/{cost_id}/settle",
    "POST /runs/{run_id}/reservations/{cost_id}/release",
    "POST /runs/{run_id}/tool-calls/{number}/end",
}
FINISHES = {
    "POST /runs/{run_id}/tool-calls",
    "POST /runs/{run_id}/reservations",
    "POST /missions/{mission_id}/candidates",
    "POST /missions/{mission_id}/execute",
    "POST /memory",
}
HELD = {"paused": REPORTS, "drained": REPORTS | FINISHES, "quarantined": set[str](), "stopped": set[str]()}
"""What a held agent may do besides looking around, which it may not, either, in the last two states."""


@dataclass(frozen=True)
class Row:
    """A route and the letters of those who may call it."""

    method: str
    path: str
    callers: frozenset[str]

    @property
    def body(self) -> dict[str, Any] | None:
        """A good one."""
        if self.method in ("GET", "DELETE"):
            return None
        return WITHOUT_NAMES.get(f"{self.method} {self.path}") or BODIES[self.path]

    def serves(self, letter: str) -> bool:
        """Whether the table says so."""
        return letter in self.callers or (letter == "P" and "D" in self.callers)

    def knows(self, letter: str) -> bool:
        """Whether it looks for what is named before it says who may."""
        return self.serves(letter) or letter.lower() in self.callers


def rows() -> Iterator[Row]:
    for line in TABLE.strip().splitlines():
        method, path, *letters = line.split()
        yield Row(method, path, frozenset(letters))


ROWS = list(rows())
ROLES = {"B": Role.OBSERVER, "M": Role.MEMBER, "O": Role.OPERATOR, "D": Role.ADMIN, "P": Role.PLATFORM_ADMIN}
KINDS = {"A": Kind.AGENT, "S": Kind.SERVICE}
NAMES = {"A": "agent", "S": "service"}


def test_the_table_lists_every_route_once() -> None:
    existing = sorted((method, route.path) for route in v1_routes() for method in route.methods or ())
    assert sorted((row.method, row.path) for row in ROWS) == existing


def test_what_the_lower_roles_may_is_what_the_docs_say() -> None:
    """`docs/governance.md`, the table of roles."""
    may = {letter: {f"{row.method} {row.path}" for row in ROWS if row.serves(letter)} for letter in ROLES}
    reads = {f"{row.method} {row.path}" for row in ROWS if row.method == "GET"}
    hidden = {"GET /keys", "GET /keys/{key_id}", "GET /audit/export", "GET /audit/verify"}
    assert reads - may["B"] - {"GET /queue/next"} == hidden
    assert may["M"] - may["B"] == {"POST /memory"}
    assert hidden & (may["O"] - may["M"]) == {"GET /audit/verify"}
    assert "POST /workspaces" in may["B"]


@pytest.fixture
async def ours(client: Caller, team: Team, db: Database, repo: Repo, service_key: ServiceKey) -> dict[str, str]:
    """One of everything in the caller's own workspace."""
    return (await one_of_each(client(team.admin), team, db, repo, service_key)).ids


@pytest.fixture
async def theirs(
    client: Caller, other_team: Team, db: Database, tmp_path: Path, service_key: ServiceKey
) -> dict[str, str]:
    """One of everything in another workspace, under other names than in our own."""
    repo = make_repo(tmp_path / "theirs")
    return (await one_of_each(client(other_team.admin), other_team, db, repo, service_key)).ids


async def a_key(db: Database, team: Team, letter: str) -> str:
    """Make a key of the team's for a kind of caller."""
    role, kind = ROLES.get(letter), KINDS.get(letter, Kind.HUMAN)
    async with db.system() as session:
        name = NAMES.get(letter, f"caller-{letter}")
        return await make_key(session, team.workspace_id, name, kind=kind, role=role)


async def key_id_of(db: Database, secret: str) -> str:
    """Name a key as lists do."""
    owner = await keys.find(db, keys.digest(secret))
    assert owner
    return owner.key_id


async def call(api: httpx2.AsyncClient, row: Row, ids: dict[str, str], **headers: str) -> tuple[int, str]:
    """Call a route about these things; the answer's status and error code."""
    path = f"/api/v1{row.path.format(**ids)}{QUERIES.get(f'{row.method} {row.path}', '')}"
    answer = await api.request(row.method, path, json=row.body, headers=headers)
    code = "" if answer.is_success else answer.json()["error"]["code"]
    return answer.status_code, code


def is_own(row: Row, status: int, code: str) -> bool:
    """Whether an answer is that of a route which serves the caller, about something of its own workspace."""
    if row.method == "GET":
        return status == 200 or code in ("unknown_event_type", "audit_not_sealed")
    if row.path == "/auth/session":
        return status in (204, 401)  # the key in its body is none
    return status in (200, 201, 202, 409, 503) or code in ("repository_not_found", "member_not_found")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("letter", [*ROLES, *KINDS])
async def test_each_caller_in_its_own_workspace(
    letter: str, client: Caller, team: Team, ours: dict[str, str], db: Database
) -> None:
    secret = await a_key(db, team, letter)
    own = {"key_id": await key_id_of(db, secret)}
    api = client(secret)
    for row in ROWS:
        status, code = await call(api, row, ours | (own if row.path.endswith("/rotate") else {}))
        if row.serves(letter):
            assert is_own(row, status, code), (row, status, code)
        else:
            assert (status, code) == (403, "not_permitted"), row


@pytest.mark.timeout(120)
@pytest.mark.parametrize("status", HELD)
async def test_a_held_agent(status: str, client: Caller, team: Team, ours: dict[str, str], db: Database) -> None:
    """Requirements 4.6 and V-33; a stopped agent has no keys, and were there one, it would open nothing."""
    async with db.system() as session:
        hold = text("UPDATE agent SET status = :status WHERE name = 'agent' AND workspace_id = :here")
        await session.execute(hold, {"status": status, "here": team.workspace_id})
    api = client(await a_key(db, team, "A"))
    looks = status in ("paused", "drained")
    for row in (row for row in ROWS if row.knows("A") and row.path != "/auth/session"):
        name, asked = f"{row.method} {row.path}", await call(api, row, ours)
        may = name in HELD[status] or (looks and (row.method == "GET" or name == "POST /policy/explain"))
        may |= name == "POST /agents/{agent}/heartbeat" and status != "stopped"
        if may and name != "GET /queue/next":
            assert asked[1] != "agent_not_active", row
            assert is_own(row, *asked), (row, asked)
        else:
            assert asked == (409, "agent_not_active"), row


@pytest.mark.timeout(120)
@pytest.mark.parametrize("letter", [*ROLES, *KINDS])
async def test_each_caller_about_another_workspaces_things(
    letter: str, client: Caller, team: Team, theirs: dict[str, str], db: Database
) -> None:
    """A platform admin goes to another workspace by its path or `X-Workspace`; its things are not elsewhere, either."""
    api = client(await a_key(db, team, letter))
    for row in (row for row in ROWS if "{" in row.path):
        status, code = await call(api, row, theirs)
        if not row.knows(letter):
            assert (status, code) == (403, "not_permitted"), row
        elif letter == "P" and "{workspace_id}" in row.path:
            assert is_own(row, status, code), (row, status, code)
        else:
            assert (status, code.endswith("_not_found")) == (404, True), (row, status, code)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("letter", [*ROLES, *KINDS])
async def test_each_caller_asks_to_enter_another_workspace(
    letter: str, client: Caller, team: Team, other_team: Team, theirs: dict[str, str], db: Database
) -> None:
    api = client(await a_key(db, team, letter))
    for row in (row for row in ROWS if "{workspace_id}" not in row.path and "-" not in row.callers):
        status, code = await call(api, row, theirs, **{"X-Workspace": other_team.workspace_id})
        if not row.knows(letter):
            assert (status, code) == (403, "not_permitted"), row
        elif letter == "P":
            assert is_own(row, status, code), (row, status, code)
        else:
            assert (status, code) == (404, "workspace_not_found"), (row, status, code)


@pytest.mark.parametrize("ended", ["", "revoked_at", "expires_at", "unknown"])
async def test_nobody_comes_in_without_a_good_key(
    ended: str, client: Caller, team: Team, ours: dict[str, str], db: Database
) -> None:
    secret = None
    if ended:
        secret = "mc_unknown" if ended == "unknown" else await a_key(db, team, "P")
        async with db.system() as session:
            await session.execute(
                text("UPDATE api_key SET revoked_at = now() WHERE digest = :digest")
                if ended == "revoked_at"
                else text("UPDATE api_key SET expires_at = now() WHERE digest = :digest"),
                {"digest": keys.digest(secret)},
            )
    api = client(secret)
    for row in ROWS:
        status, code = await call(api, row, ours)
        if "-" in row.callers and not (secret and row.path == "/agents"):
            assert status in (201, 401, 409), (row, status, code)
            assert code != "api_key_required"
        else:
            assert (status, code) == (401, "invalid_api_key" if secret else "api_key_required"), row
