"""The memory of a workspace: notes written, proposed to people, found, and withdrawn."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, insert, or_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer
from sqlmodel import col, select

from models.domain.actions import WRITE_MEMORY, WRITE_MISSION_MEMORY
from models.domain.canonical import digest_of
from models.domain.decisions import Terms
from models.domain.errors import Conflict, InvalidInput
from models.domain.events import EventType, Subject
from models.domain.memory import (
    MAX_PROPOSED,
    MAX_WORDS,
    NOTE_TRANSITIONS,
    PROPOSAL_LASTS,
    NoteState,
    may_see,
    may_see_all,
)
from models.domain.policy import Act, Context, Fact, Resolvers, Verdict
from models.domain.principals import Principal
from models.domain.refusals import missing
from models.domain.states import DecisionKind, DecisionStatus, require_transition, sources
from models.schemas.memory import MemoryCreate
from models.schemas.pagination import PageRequest
from models.store import agents, events, governance, lists, missions, pagination, questions
from models.store.events import Actor
from models.store.pagination import Rows
from models.store.policies import InForce, PolicyBook
from models.store.questions import Question
from models.tables.memory import MemoryNote
from models.tables.missions import Decision, Mission

KIND = DecisionKind.GOVERNANCE
"""Of the decision on a proposed note (APPR-07)."""
_TOLD = {
    NoteState.PROPOSED: EventType.MEMORY_PROPOSED,
    NoteState.KEPT: EventType.MEMORY_KEPT,
    NoteState.REFUSED: EventType.MEMORY_REFUSED,
    NoteState.WITHDRAWN: EventType.MEMORY_WITHDRAWN,
}


async def judge(
    session: AsyncSession, memory_id: str, mission: Mission | None, by: Principal, book: PolicyBook
) -> tuple[Verdict, InForce]:
    """Ask the policy in force about writing a note, and keep its verdict under the note's id."""
    who = (await agents.doer(session, by, by.own_agent)).who
    name = f"{memory_id}.write"
    if mission is None:
        act = Act(action=WRITE_MEMORY, principal=who, context=Context())
        return await book.judge(session, by.workspace_id, act, name)
    is_own = await agents.among(session, by.workspace_id, await missions.filers(session, mission))
    action = WRITE_MEMORY if is_own else WRITE_MISSION_MEMORY  # what an agent filed lets none do more than on its own
    facts: dict[str, Fact] = {"mission_id": mission.mission_id, "filed_by": mission.created_by}
    place = Context(env=mission.env, protected=mission.protected, facts=facts)
    act = Act(action=action, principal=who, context=place)
    return await book.judge(session, by.workspace_id, act, name, mission.mission_id)


async def write(
    session: AsyncSession,
    workspace_id: str,
    memory_id: str,
    new: MemoryCreate,
    verdict: Verdict,
    resolvers: Resolvers,
    actor: Actor,
) -> MemoryNote:
    """Keep a note that is allowed, or propose it, with a decision of kind `governance`, where the verdict asks.

    Raises:
        Conflict: `too_many_proposed`, before anything is written.
    """
    content = new.model_dump(mode="json")
    note = {"workspace_id": workspace_id, "memory_id": memory_id, **content, "digest": digest_of(content)}
    note |= {"state": (NoteState.PROPOSED if verdict.asks else NoteState.KEPT).value, "written_by": actor.name}
    if verdict.asks:
        note["decision_id"] = await _ask(session, note, verdict, resolvers, actor)
    written = (await session.scalars(insert(MemoryNote).values(**note).returning(MemoryNote))).one()
    await _tell(session, written, actor)
    return written


async def list_page(
    session: AsyncSession, who: Principal, filters: Mapping[str, object], tag: str | None, text: str, page: PageRequest
) -> Rows[MemoryNote]:
    """Read one page of the notes in a state that somebody may see, without their text; each word of `text` occurs."""
    body: Any = MemoryNote.body
    statement = lists.matching(MemoryNote, who.workspace_id, filters).options(defer(body))
    for word in _words(text):
        found = (column.icontains(word, autoescape=True) for column in (col(MemoryNote.title), body))
        statement = statement.where(or_(*found))
    if tag is not None:
        statement = statement.where(col(MemoryNote.tags).contains([tag]))
    if not may_see_all(who):
        is_kept = col(MemoryNote.state) == NoteState.KEPT.value
        statement = statement.where(or_(is_kept, col(MemoryNote.written_by) == who.known_as))
    return await pagination.fetch(session, statement, (col(MemoryNote.created_at), col(MemoryNote.memory_id)), page)


def _words(text: str) -> list[str]:
    words = text.split()
    if len(words) > MAX_WORDS:
        raise InvalidInput("too_many_words", f"search for at most {MAX_WORDS} words: each is looked for in every note")
    return words


async def require(session: AsyncSession, who: Principal, memory_id: str) -> MemoryNote:
    """Read a note that must be there, and that somebody may see."""
    note = await session.get(MemoryNote, (who.workspace_id, memory_id), populate_existing=True)
    if note is None or not may_see(who, NoteState(note.state), note.written_by):
        raise missing("note", memory_id)
    return note


async def withdraw(session: AsyncSession, by: Principal, memory_id: str, actor: Actor) -> MemoryNote:
    """Let a note count no more, or never; what is withdrawn stays so.

    Raises:
        IllegalTransition: it was refused.
    """
    note = await require(session, by, memory_id)
    if note.state == NoteState.PROPOSED and note.decision_id:
        await governance.withdraw(session, by.workspace_id, note.decision_id, actor)
    moved = await _move(session, by.workspace_id, memory_id, NoteState.WITHDRAWN, actor)
    if moved is None:
        moved = await require(session, by, memory_id)
        if moved.state != NoteState.WITHDRAWN:
            require_transition(NOTE_TRANSITIONS, NoteState(moved.state), NoteState.WITHDRAWN)
    return moved


def is_about(decision: Decision) -> bool:
    """Whether a decision is one on a proposed note."""
    return decision.kind == KIND and "memory_id" in decision.binding


async def conclude(session: AsyncSession, decision: Decision, actor: Actor) -> None:
    """Keep or refuse a note as its decision says, in its transaction; doing it again changes nothing.

    Others of this kind are about merges: their missions wait for them.
    """
    if not is_about(decision):
        return
    to = NoteState.KEPT if decision.status == DecisionStatus.APPROVED else NoteState.REFUSED
    await _move(session, decision.workspace_id, decision.binding["memory_id"], to, actor)
    await governance.acknowledge(session, decision.workspace_id, decision.decision_id)  # no workflow waits for it
    await session.refresh(decision)


async def refuse_expired(session: AsyncSession, actor: Actor) -> int:
    """Refuse what nobody decided in time, in the transaction in which its decision expires (system door)."""
    statement = (
        select(Decision)
        .join(
            MemoryNote,
            (col(MemoryNote.workspace_id) == col(Decision.workspace_id))
            & (col(MemoryNote.decision_id) == col(Decision.decision_id)),
        )
        .where(MemoryNote.state == NoteState.PROPOSED.value, Decision.status == DecisionStatus.EXPIRED.value)
    )
    expired = list(await session.scalars(statement))
    for decision in expired:
        await conclude(session, decision, actor)
    return len(expired)


async def _ask(
    session: AsyncSession, note: dict[str, Any], verdict: Verdict, resolvers: Resolvers, actor: Actor
) -> str:
    """Put the question into the inbox. No mission waits for it: it names the mission without being one's."""
    await _require_room(session, note["workspace_id"], note["written_by"])
    asked = Question(
        note["workspace_id"],
        f"{note['memory_id']}.{KIND}",
        KIND,
        verdict.risk,
        verdict.reasons,
        shown={name: note[name] for name in ("memory_id", "kind", "title", "tags", "mission_id")}
        | {"approve": "keep the note for all to read", "deny": "refuse it"},
        binding={"memory_id": note["memory_id"], "digest": note["digest"]},
        requested_by=actor.name,
        terms=Terms.of(verdict.ask, resolvers, verdict.risk, (actor.name,)),
        expires_in=PROPOSAL_LASTS,
    )
    return (await questions.put(session, asked, actor)).decision_id


async def _require_room(session: AsyncSession, workspace_id: str, writer: str) -> None:
    waiting = select(func.count()).where(
        MemoryNote.workspace_id == workspace_id,
        MemoryNote.state == NoteState.PROPOSED.value,
        MemoryNote.written_by == writer,
    )
    if (await session.scalars(waiting)).one() >= MAX_PROPOSED:
        told = f"{MAX_PROPOSED} notes of {writer!r} wait for an answer; once an operator has read some, write it anew"
        raise Conflict("too_many_proposed", told)


async def _move(
    session: AsyncSession, workspace_id: str, memory_id: str, to: NoteState, actor: Actor
) -> MemoryNote | None:
    """Bring a note into a state, once; None where it cannot get there (any more)."""
    statement = (
        update(MemoryNote)
        .where(
            col(MemoryNote.workspace_id) == workspace_id,
            col(MemoryNote.memory_id) == memory_id,
            col(MemoryNote.state).in_(sources(NOTE_TRANSITIONS, to)),
        )
        .values(state=to.value, changed_by=actor.name, changed_at=func.mc_now())
        .returning(MemoryNote)
    )
    moved = (await session.scalars(statement, execution_options={"populate_existing": True})).one_or_none()
    if moved is not None:
        await _tell(session, moved, actor)
    return moved


async def _tell(session: AsyncSession, note: MemoryNote, actor: Actor) -> None:
    """Tell of a note's state, without what it says: events are read by all."""
    data = {
        "mission_id": note.mission_id,
        "kind": note.kind,
        "digest": note.digest,
        "written_by": note.written_by,
        "decision_id": note.decision_id,
    }
    about = Subject(kind="memory", id=note.memory_id)
    await events.append(session, note.workspace_id, _TOLD[NoteState(note.state)], about, actor, data)
