"""What becomes of an agent that is told to pause, resume, drain or stop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.agents import (
    ADMINS_ONLY,
    AGENT_TRANSITIONS,
    OF_ADMINS,
    OWN,
    REGISTRATION_TRANSITIONS,
    AgentStatus,
    Latitude,
    Registration,
    Verb,
    obey,
    require_at_work,
    require_latitude,
    require_may_change,
)
from models.domain.errors import Conflict, IllegalTransition, InvalidInput, MissionControlError, NotPermitted
from models.schemas.agents import AgentChange

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


@pytest.mark.parametrize(
    ("changed", "wanted", "by_admin", "refused"),
    [
        ((), (), False, InvalidInput),
        ((), (), True, InvalidInput),
        (("endpoint",), (), False, None),
        (("capabilities",), ("coding",), False, None),
        (("capabilities",), ("coding", "testing"), False, NotPermitted),
        (("capabilities",), ("coding", "testing"), True, None),
        *((("endpoint", name), (), False, NotPermitted) for name in OF_ADMINS),
        *((("endpoint", name), (), True, None) for name in OF_ADMINS),
    ],
)
def test_an_agent_changes_of_itself_only_what_is_its_own_to_say(
    changed: tuple[str, ...], wanted: tuple[str, ...], by_admin: bool, refused: type[MissionControlError] | None
) -> None:
    if refused is None:
        require_may_change(("coding",), changed, wanted, by_admin=by_admin)
        return
    with pytest.raises(refused) as told:
        require_may_change(("coding",), changed, wanted, by_admin=by_admin)
    assert told.value.code == ("nothing_to_change" if refused is InvalidInput else "admins_only")


def test_whatever_can_be_changed_is_an_agents_own_or_for_admins() -> None:
    assert sorted(OWN + OF_ADMINS) == sorted(AgentChange.model_fields)


@pytest.mark.parametrize(
    ("registration", "status", "is_fresh", "refused"),
    [
        ("approved", "active", True, None),
        ("approved", "active", False, ("agent_stale", "`POST /agents/agent_1/heartbeat`")),
        *(
            ("approved", status, fresh, ("agent_not_active", "only active agents"))
            for status in ("paused", "drained", "quarantined", "stopped")
            for fresh in (True, False)
        ),
        ("pending", None, True, ("agent_not_approved", "an admin approves it (`POST /agents/probe/approve`)")),
        ("rejected", None, True, ("agent_not_approved", "it may register again")),
        ("deactivated", "stopped", True, ("agent_not_approved", "register another agent")),
    ],
)
def test_who_is_offered_work(
    registration: str, status: str | None, is_fresh: bool, refused: tuple[str, str] | None
) -> None:
    if refused is None:
        require_at_work("probe", "agent_1", registration, status, is_fresh=is_fresh)
        return
    with pytest.raises(Conflict) as told:
        require_at_work("probe", "agent_1", registration, status, is_fresh=is_fresh)
    assert told.value.code == refused[0]
    assert refused[1] in told.value.message
