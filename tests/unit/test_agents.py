"""What becomes of an agent that is told to pause, resume, drain or stop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.agents import (
    ADMINS_ONLY,
    AGENT_TRANSITIONS,
    REGISTRATION_TRANSITIONS,
    AgentStatus,
    Latitude,
    Registration,
    Verb,
    obey,
    require_latitude,
)
from models.domain.errors import Conflict, IllegalTransition, NotPermitted

BY_HAND = """
active      paused       operator
active      drained      operator
active      quarantined  operator
active      stopped      operator
paused      active       operator
paused      quarantined  operator
paused      stopped      operator
drained     active       operator
drained     quarantined  operator
drained     stopped      operator
quarantined paused       admin
quarantined stopped      operator
stopped     active       admin
"""
"""Requirements 4.6: from, to, and the least role that may."""
ARROWS = {(AgentStatus(a), AgentStatus(b)): role for a, b, role in map(str.split, BY_HAND.strip().splitlines())}


def test_the_arrows_are_those_of_the_requirements() -> None:
    found = {(current, to) for current, targets in AGENT_TRANSITIONS.items() for to in targets}
    assert found == set(ARROWS)
    assert {arrow for arrow, role in ARROWS.items() if role == "admin"} == ADMINS_ONLY


@given(st.sampled_from(Verb), st.sampled_from(AgentStatus), st.booleans())
def test_a_verb_follows_an_arrow_or_is_refused(verb: Verb, current: AgentStatus, by_admin: bool) -> None:
    try:
        to = obey(verb, current, by_admin=by_admin)
    except IllegalTransition:
        return
    except NotPermitted:
        assert not by_admin
    else:
        assert ARROWS[current, to] == "operator" or by_admin


@given(st.lists(st.tuples(st.sampled_from(Verb), st.booleans()), max_size=20))
def test_no_way_leads_from_quarantine_to_work_without_an_admin(told: list[tuple[Verb, bool]]) -> None:
    current, seen_admin = AgentStatus.QUARANTINED, False
    for verb, by_admin in told:
        try:
            current = obey(verb, current, by_admin=by_admin)
        except (IllegalTransition, NotPermitted):
            continue
        seen_admin = seen_admin or by_admin
        assert current in (AgentStatus.QUARANTINED, AgentStatus.STOPPED) or seen_admin


@pytest.mark.parametrize("verb", Verb)
def test_every_verb_does_something_somewhere(verb: Verb) -> None:
    moved = 0
    for current in AgentStatus:
        try:
            obey(verb, current, by_admin=True)
        except IllegalTransition:
            continue
        moved += 1
    assert moved >= 1


def test_a_registration_is_decided_once_and_ended_once() -> None:
    ends = {state for state, targets in REGISTRATION_TRANSITIONS.items() if not targets}
    assert ends == {Registration.REJECTED, Registration.DEACTIVATED}
    assert Registration.DEACTIVATED not in REGISTRATION_TRANSITIONS[Registration.PENDING]


@pytest.mark.parametrize("status", sorted(set(AgentStatus) - {AgentStatus.ACTIVE}))
def test_a_held_agent_is_told_who_may_resume_it(status: AgentStatus) -> None:
    with pytest.raises(Conflict) as refused:
        require_latitude("probe", status, Latitude.BEGIN)
    admins_only = status in (AgentStatus.QUARANTINED, AgentStatus.STOPPED)
    assert (": an admin must resume it first" in refused.value.message) is admins_only
