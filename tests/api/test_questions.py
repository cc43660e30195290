"""Questions of all kinds: each is one decision with one event, and their events tell the same of each."""

from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from models.contracts.pipeline import StageRef
from models.domain.decisions import Terms
from models.domain.stages import StageName
from models.store import governance
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.api import Caller, Team
from tests.fixtures.budgets import told
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, repo
from tests.fixtures.policies import merge_verdict, put

__all__ = ["repo"]

STORE = Path(__file__).parents[2] / "models" / "store"
KEYS = {"mission_id", "kind", "risk", "reasons", "binding", "requested_by", "expires_at"}
KEYS |= {"explanation", "single_operator"}


async def of_the_mission(db: Database, team: Team, mission_id: str) -> None:
    """Ask for a merge, and about a rollback."""
    ref = StageRef(workspace_id=team.workspace_id, mission_id=mission_id, stage=StageName.GOVERNANCE)
    verdict, worker = merge_verdict(protected=True), Actor("worker", "mission")
    async with db.workspace(team.workspace_id) as session:
        await put(session, ref, verdict)
        await governance.ask(
            session, ref, "rollback", verdict, {}, None, terms=Terms(), expires_in=None, actor=worker, repeat=1
        )


async def of_agents(agent: httpx2.AsyncClient, stranger: httpx2.AsyncClient, team: Team) -> None:
    """Propose a note, want to call a tool, cross the cap of a run, and ask to be let in."""
    note = {"kind": "playbook_note", "title": "t", "body": "b"}
    run = f"/api/v1/runs/{(await agent.post('/api/v1/runs', json={})).json()['data']['run_id']}"
    new = {"name": "newcomer", "endpoint": "https://example.org", "workspace": team.workspace_id}
    for who, path, body, status in (
        (agent, "/api/v1/memory", note, 201),
        (agent, f"{run}/tool-calls", {"tool": "shell"}, 201),
        (agent, f"{run}/costs", {"usd": "1"}, 409),
        (stranger, "/api/v1/agents", new, 201),
    ):
        answer = await who.post(path, json=body)
        assert answer.status_code == status, answer.text


@pytest.fixture
async def asked(
    api: httpx2.AsyncClient, client: Caller, repo: Repo, db: Database, team: Team
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every kind of question that there is: its row and its event."""
    await of_the_mission(db, team, (await filed(api, repo))["mission_id"])
    await of_agents(client(team.agent), client(None), team)
    rows = await db.alone(team.workspace_id, "SELECT * FROM decision ORDER BY decision_id", {})
    events = {event["subject_id"]: event for event in await told(db, team.workspace_id, "decision.requested")}
    assert list(events) == [event["subject_id"] for event in await told(db, team.workspace_id, "decision.%")]
    assert set(events) == {row["decision_id"] for row in rows}
    return [(row, events[row["decision_id"]]) for row in rows]


async def test_every_kind_tells_the_same_of_itself(asked: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    kinds = sorted(row["kind"] for row, _ in asked)
    assert kinds == ["budget", "governance", "governance", "registration", "rollback", "tool_action"]
    for row, event in asked:
        said = event["data"]
        assert set(said) == KEYS, row["kind"]
        same = KEYS - {"expires_at"}
        assert {name: said[name] for name in same} == {name: row[name] for name in same}
        assert (said["expires_at"] and datetime.fromisoformat(said["expires_at"])) == row["expires_at"]


async def test_all_wait_for_their_answer(asked: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    for row, _ in asked:
        assert row["status"] == "pending"
        assert {row[name] for name in ("resolved_by", "resolved_at", "acknowledged_at")} == {None}
        assert row["reasons"], row["kind"]
        assert row["terms"]["role"] in ("operator", "admin"), row["kind"]


@pytest.mark.parametrize("module", sorted(STORE.glob("*.py")), ids=lambda path: path.stem)
def test_nothing_else_puts_one(module: Path) -> None:
    source = module.read_text()
    assert ("INSERT INTO decision (" in source) == (module.stem == "questions")
    assert "insert(Decision)" not in source
