"""What makes a note count, and who may read one that does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.actions import WRITE_MEMORY, WRITE_MISSION_MEMORY
from models.domain.errors import NotPermitted, StageFailed
from models.domain.memory import NOTE_TRANSITIONS, NoteState, WriteScope, may_see, require_code_write, scope_of, scoped
from models.domain.policy import Context, Level, Outcome, Verdict, Who, assess
from models.domain.principals import Kind, Principal, Role
from models.domain.states import sources
from tests.fixtures.policies import FIRST, VERDICTS

LAXEST_FIRST = (Outcome.ALLOW, Outcome.ASK, Outcome.DENY)
OF_SCOPES = {
    WriteScope.PERSIST: Outcome.ALLOW,
    WriteScope.PROPOSE: Outcome.ASK,
    WriteScope.READ_ONLY: Outcome.DENY,
}
OPERATOR, MEMBER, AUTHOR, AGENT, SERVICE = (
    Principal("w", "olga", Kind.HUMAN, Role.OPERATOR, "k"),
    Principal("w", "mia", Kind.HUMAN, Role.MEMBER, "k"),
    Principal("w", "probe", Kind.AGENT, None, "k"),
    Principal("w", "other", Kind.AGENT, None, "k"),
    Principal("w", "bus", Kind.SERVICE, None, "k"),
)


@given(VERDICTS, st.sampled_from(WriteScope))
def test_the_stricter_of_policy_and_mission_holds(verdict: Verdict, scope: WriteScope) -> None:
    strictest = max(verdict.outcome, OF_SCOPES[scope], key=LAXEST_FIRST.index)
    if strictest is Outcome.DENY:
        with pytest.raises(NotPermitted) as refused:
            scoped(verdict, scope)
        assert refused.value.code == ("memory_read_only" if scope is WriteScope.READ_ONLY else "policy_denies")
        return
    found = scoped(verdict, scope)
    assert found.outcome is strictest
    assert found.reasons[: len(verdict.reasons)] == verdict.reasons
    assert found == verdict or found.ask is not None


def test_only_a_mission_that_may_only_read_changes_no_code() -> None:
    for scope in (WriteScope.PROPOSE, WriteScope.PERSIST):
        require_code_write(scope)
    with pytest.raises(StageFailed, match="memory_write_scope is read_only: it may not change code") as refused:
        require_code_write(WriteScope.READ_ONLY)
    assert refused.value.code == "read_only"


@pytest.mark.parametrize(
    ("action", "level", "outcome"),
    [
        (WRITE_MEMORY, Level.INTERN, Outcome.ASK),
        (WRITE_MEMORY, Level.SPECIALIST, Outcome.ALLOW),
        (WRITE_MEMORY, Level.LEAD, Outcome.ALLOW),
        (WRITE_MISSION_MEMORY, Level.INTERN, Outcome.ALLOW),
    ],
)
def test_the_first_policy_lets_interns_propose_and_leaves_missions_to_their_scope(
    action: str, level: Level, outcome: Outcome
) -> None:
    assert FIRST.classify(action) is not None
    assert assess(action, Who(name="probe", kind=Kind.AGENT, level=level), Context(), FIRST).outcome is outcome


def test_only_a_proposed_note_comes_to_count_and_none_comes_back() -> None:
    assert sources(NOTE_TRANSITIONS, NoteState.KEPT) == (NoteState.PROPOSED,)
    assert sources(NOTE_TRANSITIONS, NoteState.PROPOSED) == ()


@pytest.mark.parametrize("state", NoteState)
@pytest.mark.parametrize("who", [OPERATOR, MEMBER, AUTHOR, AGENT])
def test_what_does_not_count_is_for_its_author_and_operators(who: Principal, state: NoteState) -> None:
    assert may_see(who, state, "probe") == (state is NoteState.KEPT or who in (OPERATOR, AUTHOR))


@pytest.mark.parametrize("scope", WriteScope)
def test_a_missions_scope_binds_agents_alone(scope: WriteScope) -> None:
    required = {"memory_write_scope": scope.value}
    assert scope_of(required, AGENT) is scope
    assert scope_of(required, MEMBER) is scope_of(required, SERVICE) is WriteScope.PERSIST
    assert scope_of({}, AGENT) is WriteScope.PERSIST
