"""Notes in the store: what nobody decides is refused once, and what was written is never changed."""

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from sqlalchemy import text

from models.domain.memory import NoteKind, NoteState
from models.domain.principals import Kind, Principal
from models.domain.states import DecisionStatus
from models.schemas.memory import MemoryCreate
from models.settings import Settings
from models.store import answers, decisions, governance, memory
from models.store.connections import plain
from models.store.database import Database
from models.store.events import Actor
from models.store.policies import PolicyBook
from models.tables.memory import MemoryNote
from models.tables.missions import Decision
from tests.fixtures.api import Team
from tests.fixtures.clocks import Clock, clock
from tests.fixtures.runs import human

__all__ = ["clock"]
RECONCILER = Actor("reconciler", "pass-1")
NEW = MemoryCreate(kind=NoteKind.PLAYBOOK_NOTE, title="t", body="b")


async def proposed(db: Database, team: Team) -> MemoryNote:
    """A note of an intern."""
    agent = Principal(team.workspace_id, "agent", Kind.AGENT, None, "k")
    async with db.workspace(team.workspace_id) as session:
        book = PolicyBook(Settings().config_dir)
        verdict, law = await memory.judge(session, "memory_1", None, agent, book)
        resolvers, actor = law.policy.resolvers(memory.KIND), Actor("agent", "request-1")
        return await memory.write(session, team.workspace_id, "memory_1", NEW, verdict, resolvers, actor)


async def one_pass(db: Database, *, is_killed: bool = False) -> tuple[int, int]:
    """What the reconciler does: decisions that expired, notes that were refused."""
    async with db.system() as session:
        expired = await governance.expire_overdue(session, RECONCILER, 100)
        refused = await memory.refuse_expired(session, RECONCILER)
        if is_killed:
            raise RuntimeError("killed before the commit")
        return expired, refused


async def now(db: Database, note: MemoryNote) -> tuple[str, str, bool, list[str]]:
    """How note and decision stand, whether that is acknowledged, and what was told of the note."""
    async with db.workspace(note.workspace_id) as session:
        row = await session.get_one(MemoryNote, (note.workspace_id, note.memory_id))
        decision = await session.get_one(Decision, (note.workspace_id, note.decision_id))
        told = await session.execute(
            text("SELECT type FROM event WHERE subject_id = :id ORDER BY id"), {"id": note.memory_id}
        )
        return row.state, decision.status, decision.acknowledged_at is not None, list(told.scalars())


async def test_what_nobody_answers_is_refused_once(db: Database, team: Team, clock: Clock) -> None:
    note = await proposed(db, team)
    passes = []
    for hours in (0, 167, 169, -24, 169):
        clock.show(hours)
        passes.append(await one_pass(db))
    assert passes == [(0, 0), (0, 0), (1, 1), (0, 0), (0, 0)]
    assert await now(db, note) == ("refused", "expired", True, ["memory.proposed", "memory.refused"])


async def test_expiry_and_refusal_are_one_transaction(db: Database, team: Team, clock: Clock) -> None:
    note = await proposed(db, team)
    clock.show(169)
    with pytest.raises(RuntimeError, match="killed"):
        await one_pass(db, is_killed=True)
    assert await now(db, note) == ("proposed", "pending", False, ["memory.proposed"])
    assert await one_pass(db) == (1, 1)


async def test_an_answer_s_deed_done_again_changes_nothing(db: Database, team: Team) -> None:
    note = await proposed(db, team)
    async with db.workspace(team.workspace_id) as session:
        anna, approved = human(team.workspace_id, "anna"), DecisionStatus.APPROVED
        decision = await answers.give(session, anna, note.decision_id or "", approved, "read it")
        await memory.conclude(session, decision, Actor("anna", "request-2"))
    first = await now(db, note)
    assert first == ("kept", "approved", True, ["memory.proposed", "memory.kept"])
    async with db.workspace(team.workspace_id) as session:
        await memory.withdraw(session, human(team.workspace_id, "anna"), note.memory_id, Actor("anna", "request-3"))
        again = await decisions.require(session, team.workspace_id, decision.decision_id)
        await memory.conclude(session, again, Actor("anna", "request-2"))
    assert (await now(db, note))[0] == NoteState.WITHDRAWN


@pytest.mark.parametrize("column", ["body", "title", "digest", "written_by", "decision_id", "mission_id", "kind"])
@pytest.mark.parametrize("role", ["mission_control_app", "mission_control_system"])
def test_no_role_changes_what_a_note_says(database_url: str, role: str, column: str) -> None:
    with psycopg.connect(plain(database_url)) as connection:
        connection.execute(SQL("SET ROLE {}").format(Identifier(role)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(SQL("UPDATE memory_note SET {} = 'x'").format(Identifier(column)))
