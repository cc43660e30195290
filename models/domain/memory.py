"""What a workspace remembers: notes of agents and people, and what makes one count (POL-17, V-19)."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any

from models.domain.errors import NotPermitted, StageFailed
from models.domain.policy import Outcome, Verdict
from models.domain.principals import Kind, Principal, Role

MAX_BODY = 20_000
"""Characters of a note."""
MAX_PROPOSED = 50
"""Notes of one writer that wait: agents write them, people must read them, and nobody takes the room of others."""
MAX_WORDS = 10
"""Of a search."""
PROPOSAL_LASTS = timedelta(days=7)


class NoteKind(StrEnum):
    """What a note is."""

    CODE_FRAGMENT = "code_fragment"
    PLAYBOOK_NOTE = "playbook_note"


class NoteState(StrEnum):
    """Whether a note counts: only one that is kept does."""

    PROPOSED = "proposed"
    KEPT = "kept"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


class WriteScope(StrEnum):
    """What a mission lets its agent write (MISS-13)."""

    READ_ONLY = "read_only"
    PROPOSE = "propose"
    PERSIST = "persist"


NOTE_TRANSITIONS: dict[NoteState, frozenset[NoteState]] = {
    NoteState.PROPOSED: frozenset({NoteState.KEPT, NoteState.REFUSED, NoteState.WITHDRAWN}),
    NoteState.KEPT: frozenset({NoteState.WITHDRAWN}),
    NoteState.REFUSED: frozenset(),
    NoteState.WITHDRAWN: frozenset(),
}


def scope_of(trust_requirements: Mapping[str, Any], by: Principal) -> WriteScope:
    """Find what a mission, by what it requires, lets an agent write; people and services answer for what they write."""
    if by.kind is not Kind.AGENT:
        return WriteScope.PERSIST
    return WriteScope(trust_requirements.get("memory_write_scope", WriteScope.PERSIST))


def scoped(verdict: Verdict, scope: WriteScope) -> Verdict:
    """Join what the policy and a mission say of writing a note: the stricter holds.

    Raises:
        NotPermitted: `memory_read_only` by the mission, `policy_denies` by the policy.
    """
    if scope is WriteScope.READ_ONLY:
        told = "the mission's memory_write_scope is read_only: tell an operator what is worth keeping"
        raise NotPermitted("memory_read_only", told)
    if verdict.outcome is Outcome.DENY:
        raise NotPermitted("policy_denies", f"writing to the memory is denied: {'; '.join(verdict.reasons)}")
    return verdict.asking("the mission's memory_write_scope is propose") if scope is WriteScope.PROPOSE else verdict


def require_code_write(scope: WriteScope) -> None:
    """Hold a mission to what it may write (POL-17).

    Raises:
        StageFailed: `read_only`; it may only read.
    """
    if scope is WriteScope.READ_ONLY:
        raise StageFailed("read_only", "the mission's memory_write_scope is read_only: it may not change code")


def may_see(who: Principal, state: NoteState, written_by: str) -> bool:
    """Whether somebody may read a note: one that does not count is for its author and for those who decide on it."""
    return state is NoteState.KEPT or written_by == who.known_as or may_see_all(who)


def may_see_all(who: Principal) -> bool:
    """Whether somebody may read every note."""
    return who.role is not None and who.role.includes(Role.OPERATOR)
