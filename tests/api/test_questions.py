"""Questions of all kinds: each is one decision with one event that tells the same, and one answer with its deed."""

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from models.contracts.pipeline import StageRef
from models.domain.decisions import Terms
from models.domain.policy_names import KINDS
from models.domain.principals import Role
from models.domain.stages import StageName
from models.domain.states import DecisionKind, DecisionStatus
from models.store import answers, governance
from models.store.connections import plain
from models.store.database import Database
from models.store.events import Actor
from models.store.governance import Matter
from tests.fixtures.api import Caller, Team
from tests.fixtures.budgets import told
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, repo
from tests.fixtures.policies import merge_verdict, put
from tests.fixtures.runs import human

__all__ = ["repo"]

STORE = Path(__file__).parents[2] / "models" / "store"
KEYS = {"mission_id", "kind", "risk", "reasons", "binding", "requested_by", "expires_at"}
KEYS |= {"explanation", "single_operator"}
WAITED_FOR = {"agent_question", "rollback", "ticket_done", "tool_action", "wiki_change"}
"""Kinds of which whoever asked reads the answer, and acts."""
FIRST_CAP = Decimal("0.25")
DONE = """
    SELECT (SELECT registration FROM agent WHERE name = 'newcomer'), (SELECT state FROM memory_note), cap_usd, crossed
    FROM budget WHERE scope = 'run'
"""
Asked = list[tuple[dict[str, Any], dict[str, Any]]]
"""Questions: their rows and their events."""


async def of_the_mission(db: Database, team: Team, mission_id: str) -> None:
    """Ask for a merge, and about a rollback."""
    ref = StageRef(workspace_id=team.workspace_id, mission_id=mission_id, stage=StageName.GOVERNANCE)
    verdict, worker = merge_verdict(protected=True), Actor("worker", "mission")
    async with db.workspace(team.workspace_id) as session:
        await put(session, ref, verdict)
        await governance.ask(session, Matter(ref, DecisionKind.ROLLBACK, verdict, {}, Terms(), repeat=1), worker)


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
async def asked(api: httpx2.AsyncClient, client: Caller, repo: Repo, db: Database, team: Team) -> Asked:
    """Every kind of question that there is: its row and its event."""
    await of_the_mission(db, team, (await filed(api, repo))["mission_id"])
    await of_agents(client(team.agent), client(None), team)
    rows = await db.alone(team.workspace_id, "SELECT * FROM decision ORDER BY decision_id", {})
    events = {event["subject_id"]: event for event in await told(db, team.workspace_id, "decision.requested")}
    assert list(events) == [event["subject_id"] for event in await told(db, team.workspace_id, "decision.%")]
    assert set(events) == {row["decision_id"] for row in rows}
    return [(row, events[row["decision_id"]]) for row in rows]


async def test_every_kind_tells_the_same_of_itself(asked: Asked) -> None:
    kinds = sorted(row["kind"] for row, _ in asked)
    assert kinds == ["budget", "governance", "governance", "registration", "rollback", "tool_action"]
    for row, event in asked:
        said = event["data"]
        assert set(said) == KEYS, row["kind"]
        same = KEYS - {"expires_at"}
        assert {name: said[name] for name in same} == {name: row[name] for name in same}
        assert (said["expires_at"] and datetime.fromisoformat(said["expires_at"])) == row["expires_at"]


async def test_all_wait_for_their_answer(asked: Asked) -> None:
    for row, _ in asked:
        assert row["status"] == "pending"
        assert {row[name] for name in ("resolved_by", "resolved_at", "acknowledged_at")} == {None}
        assert row["reasons"], row["kind"]
        assert row["terms"]["role"] in ("operator", "admin"), row["kind"]


async def answer_all(db: Database, asked: Asked, by: str, status: DecisionStatus) -> tuple[Any, ...]:
    """Answer every question as an admin; what is so of agent, note and cap then."""
    for row, _ in asked:
        async with db.workspace(row["workspace_id"]) as session:
            admin = human(row["workspace_id"], by, Role.ADMIN)
            await answers.give(session, admin, row["decision_id"], status, "read it", "request-2")
    [done] = await db.alone(asked[0][0]["workspace_id"], DONE, {})
    return tuple(done.values())


def proposed(asked: Asked) -> Decimal:
    """The cap that a question proposes."""
    return next(Decimal(row["binding"]["cap_usd"]) for row, _ in asked if row["kind"] == "budget")


async def test_an_approval_does_what_its_kind_says(db: Database, asked: Asked) -> None:
    approved = await answer_all(db, asked, "anna", DecisionStatus.APPROVED)
    assert approved == ("approved", "kept", proposed(asked), False)


async def test_a_denial_does_what_its_kind_says(db: Database, asked: Asked) -> None:
    assert await answer_all(db, asked, "anna", DecisionStatus.DENIED) == ("rejected", "refused", FIRST_CAP, True)


async def test_the_first_of_two_who_approve_does_nothing_yet(db: Database, asked: Asked, database_url: str) -> None:
    with psycopg.connect(plain(database_url)) as owner:
        owner.execute("SET session_replication_role = replica")  # no trigger keeps the terms as they were put
        owner.execute("""UPDATE decision SET terms = terms || '{"people": 2}'""")
    first = await answer_all(db, asked, "anna", DecisionStatus.APPROVED)
    assert first == ("pending", "proposed", FIRST_CAP, True)
    second = await answer_all(db, asked, "bert", DecisionStatus.APPROVED)
    assert second == ("approved", "kept", proposed(asked), False)


def test_of_every_kind_it_is_said_what_an_answer_does() -> None:
    assert set(answers.DEEDS) | WAITED_FOR == KINDS


@pytest.mark.parametrize("module", sorted(STORE.glob("*.py")), ids=lambda path: path.stem)
def test_nothing_else_answers_one(module: Path) -> None:
    source = module.read_text()
    assert ("insert(DecisionAnswer)" in source) == (module.stem == "answers")
    assert "INSERT INTO decision_answer" not in source


@pytest.mark.parametrize("module", sorted(STORE.glob("*.py")), ids=lambda path: path.stem)
def test_nothing_else_puts_one(module: Path) -> None:
    source = module.read_text()
    assert ("INSERT INTO decision (" in source) == (module.stem == "questions")
    assert "insert(Decision)" not in source
