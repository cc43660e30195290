"""Every act over HTTP leaves a row of the audit log that says what was done, with the id of its request (AUD-01)."""

import asyncio
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from sqlalchemy import text

from models.domain.events import NO_ACTS as REPORTS
from models.domain.stages import StageName
from models.store.database import Database
from tests.api.test_route_matrix import ROWS, WITHOUT_NAMES, a_key, ours, repo, service_key
from tests.fixtures.agents import registered
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo
from tests.fixtures.instant_ports import InstantPorts
from tests.fixtures.missions import body
from tests.fixtures.one_of_each import BODIES
from tests.fixtures.steering import in_tests, ports, ready, settings, when

__all__ = ["ours", "ports", "repo", "service_key", "settings"]

NO_ACTS = {
    "POST /events": "a report of what was seen",
    "POST /metrics/observations": "samples",
    "POST /policy/try": "nothing is kept of it",
    "POST /policy/explain": "nothing is kept of it",
    "POST /agents/{agent}/heartbeat": "that it lives",
    "POST /runs/{run_id}/costs": "the ledger keeps it (ADR 21)",
    "POST /runs/{run_id}/reservations": "the ledger keeps it (ADR 21)",
    "POST /runs/{run_id}/reservations/{cost_id}/settle": "the ledger keeps it (ADR 21)",
    "POST /runs/{run_id}/reservations/{cost_id}/release": "the ledger keeps it (ADR 21)",
    "POST /auth/session": "a key opens a browser: nothing changes but its last use",
    "DELETE /auth/session": "the browser forgets it",
}

STORY = """
POST   /repositories                          repository.registered
POST   /missions                              mission.created
POST   /missions/{mission_id}/candidates      mission.candidate_added
POST   /missions/{started}/execute            mission.execute_requested
POST   /missions/{started}/pause              mission.paused
POST   /missions/{started}/inject             mission.noted
POST   /missions/{started}/resume             mission.resumed
POST   /missions/{started}/cancel             mission.cancel_requested
POST   /missions/{mission_id}/cancel          mission.escalated
POST   /missions/{mission_id}/retry           mission.created
POST   /policy/versions                       policy.version_created
POST   /policy/versions/{version}/activate    policy.activated
POST   /decisions/{decision_id}/resolve       decision.approved
POST   /capa                                  capa.created
PATCH  /capa/{capa_id}                        capa.changed
POST   /memory                                memory.kept
DELETE /memory/{memory_id}                    memory.withdrawn
POST   /audit/{row_id}/redact                 audit.redacted
POST   /activity                              agent.decided
POST   /alerts/{alert_id}/ack                 alert.acknowledged
POST   /alerts/{alert_id}/resolve             alert.resolved
POST   /runs                                  run.started
POST   /runs/{run_id}/tool-calls              tool_call.pending
POST   /runs/{run_id}/tool-calls/{number}/end tool_call.success
POST   /runs/{run_id}/adjustments             budget.adjusted
PATCH  /runs/{run_id}                         run.ended
POST   /runs/{second_run}/end                 run.ended
PUT    /budgets                               budget.changed
PATCH  /budgets                               budget.changed
PUT    /workspaces/{workspace_id}/budget      budget.changed
POST   /keys                                  api_key.created
POST   /keys/{key_id}/rotate                  api_key.rotated
DELETE /keys/{key_id}                         api_key.revoked
POST   /principals                            principal.created
PUT    /workspaces/{workspace_id}/members/operator principal.role_changed
DELETE /workspaces/{workspace_id}/members/{name}   principal.deactivated
DELETE /principals/observer                   principal.deactivated
POST   /workspaces                            workspace.created
PATCH  /workspaces/{workspace_id}             workspace.changed
PUT    /workspaces/{workspace_id}/default     workspace.changed
POST   /agents                                agent.registered
POST   /agents/{wanted}/approve               agent.approved
POST   /agents/{unwanted}/reject              agent.rejected
PATCH  /agents/{agent}                        agent.changed
POST   /agents/{agent}/rotate-key             api_key.rotated
POST   /agents/{agent}/pause                  agent.status_changed
POST   /agents/{agent}/resume                 agent.status_changed
POST   /agents/{agent}/drain                  agent.status_changed
POST   /agents/{agent}/quarantine             agent.status_changed
POST   /agents/{agent}/stop                   agent.status_changed
DELETE /agents/{agent}                        agent.deactivated
"""
"""Each act with the action of its row, in an order in which all succeed. Two hands wrote it and the code."""


class Step(NamedTuple):
    """One act, and the action that its row names."""

    method: str
    path: str
    action: str


def steps() -> Iterator[Step]:
    for line in STORY.strip().splitlines():
        yield Step(*line.split())


OTHER_NAMES = {"started": "mission_id", "second_run": "run_id", "wanted": "agent", "unwanted": "agent"}
"""Parameters of the story that are no route's, and what they stand for."""
OTHERS = {"members/operator": "members/{name}", "/principals/observer": "/principals/{name}"}
VERBS = ("pause", "resume", "drain", "quarantine", "stop")


def route_of(step: Step) -> str:
    """The route of the table that it calls."""
    path = step.path
    for name, stands_for in OTHER_NAMES.items():
        path = path.replace(f"{{{name}}}", f"{{{stands_for}}}")
    for name, stands_for in OTHERS.items():
        path = path.replace(name, stands_for)
    for verb in VERBS:
        path = path.replace(f"/agents/{{agent}}/{verb}", "/agents/{agent}/{verb}")
    return f"{step.method} {path}"


def test_the_story_tells_of_every_act() -> None:
    routes = {f"{row.method} {row.path}" for row in ROWS if row.method != "GET"}
    assert {route_of(step) for step in steps()} == routes - NO_ACTS.keys()
    assert routes >= NO_ACTS.keys()


@pytest.fixture
async def world(client: Caller, team: Team, ours: dict[str, str], repo: Repo, ports: InstantPorts) -> dict[str, str]:
    """One of everything, with what the story needs twice: a mission whose tests run as long as it says."""
    api, stranger = client(team.admin), client(None)
    mission = await ready(api, repo)
    ports.script(mission["mission_id"]).blocks[StageName.RUN_TESTS] = asyncio.Event()
    run = (await api.post("/api/v1/runs", json={"agent_id": "agent"})).json()["data"]["run_id"]
    wanted, unwanted = [(await registered(stranger, team, name=name))["agent_id"] for name in ("one", "another")]
    return ours | {"started": mission["mission_id"], "second_run": run, "wanted": wanted, "unwanted": unwanted}


def body_of(step: Step, repo: Repo) -> dict[str, Any] | None:
    """A good body for an act."""
    method, path = route_of(step).split()
    if f"{method} {path}" == "POST /missions":
        return body(repo)
    return None if method == "DELETE" else WITHOUT_NAMES.get(f"{method} {path}") or BODIES[path]


@pytest.mark.timeout(120)
async def test_each_that_succeeds(client: Caller, team: Team, world: dict[str, str], repo: Repo, db: Database) -> None:
    admin, agent = client(await a_key(db, team, "P")), client(team.agent)
    wanted: dict[str, Step] = {}
    for step in steps():
        api = agent if step.path == "/activity" else admin
        answer = await api.request(step.method, f"/api/v1{step.path.format(**world)}", json=body_of(step, repo))
        assert answer.is_success, (step, answer.text)
        wanted[answer.headers["x-request-id"]] = step
        if step.path.endswith("{started}/execute"):
            await when(api, {"links": {"self": f"/api/v1/missions/{world['started']}"}}, in_tests)
    found = {step: await actions_of(db, request) for request, step in wanted.items()}
    assert {step: actions for step, actions in found.items() if step.action not in actions} == {}
    acts, rows = await events_and_rows(db, team.workspace_id)
    assert acts == rows, "ACTIVITY-08"


async def actions_of(db: Database, request: str) -> set[str]:
    """What the rows of a request say was done; what makes a workspace is kept in that one."""
    kept = text("SELECT action FROM audit WHERE correlation_id = :request")
    async with db.system() as session:
        return set((await session.execute(kept, {"request": request})).scalars())


async def events_and_rows(db: Database, workspace: str) -> tuple[dict[str, int], dict[str, int]]:
    """Count by kind, at one moment, the events of acts in a workspace and the rows of its log."""
    async with db.workspace(workspace) as session:
        found = (await session.execute(COUNTED)).all()
    events, rows = [{row.kind: row.many for row in found if row.place == place} for place in ("event", "audit")]
    return {kind: many for kind, many in events.items() if kind not in REPORTS}, rows


COUNTED = text(
    "SELECT 'event' AS place, type AS kind, count(*) AS many FROM event GROUP BY type"
    " UNION ALL SELECT 'audit', action, count(*) FROM audit GROUP BY action"
)
