"""The state machines: where each arrow leads, and that the ends are ends."""

from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.errors import IllegalTransition
from models.domain.memory import NOTE_TRANSITIONS
from models.domain.states import (
    CAPA_TRANSITIONS,
    DECISION_TRANSITIONS,
    MISSION_TRANSITIONS,
    CapaStatus,
    DecisionStatus,
    MissionStatus,
    Severity,
    require_transition,
    sources,
)

Table = dict[StrEnum, frozenset[StrEnum]]
TABLES = [MISSION_TRANSITIONS, DECISION_TRANSITIONS, CAPA_TRANSITIONS, NOTE_TRANSITIONS]


@pytest.mark.parametrize("table", TABLES)
def test_every_state_has_a_row(table: Table) -> None:
    [kind] = {type(state) for state in table}
    assert set(table) == set(kind)


@pytest.mark.parametrize("table", TABLES)
def test_every_state_leads_to_an_end_and_no_end_leads_on(table: Table) -> None:
    ends = {state for state, targets in table.items() if not targets}
    for start in table:
        reached, seen = {start}, set[StrEnum]()
        while new := {target for state in reached for target in table[state]} - seen:
            seen, reached = seen | new, new
        assert start in ends or seen & ends
        assert start not in seen, "no way leads back"


def test_nothing_is_resolved_without_being_observed() -> None:
    assert sources(MISSION_TRANSITIONS, MissionStatus.RESOLVED) == (MissionStatus.OBSERVING,)


def test_whatever_has_not_ended_may_be_escalated() -> None:
    running = (MissionStatus.OPEN, MissionStatus.IN_PROGRESS, MissionStatus.OBSERVING)
    assert sources(MISSION_TRANSITIONS, MissionStatus.ESCALATED) == running


def test_a_decision_is_answered_once() -> None:
    for answer in set(DecisionStatus) - {DecisionStatus.PENDING}:
        assert sources(DECISION_TRANSITIONS, answer) == (DecisionStatus.PENDING,)


def test_a_capa_may_be_closed_at_once() -> None:
    assert sources(CAPA_TRANSITIONS, CapaStatus.CLOSED) == (CapaStatus.OPEN, CapaStatus.IN_PROGRESS)


@given(st.sampled_from(MissionStatus), st.sampled_from(MissionStatus))
def test_a_refused_move_names_the_state_it_is_in(current: MissionStatus, to: MissionStatus) -> None:
    if current in sources(MISSION_TRANSITIONS, to):
        require_transition(MISSION_TRANSITIONS, current, to)
        return
    with pytest.raises(IllegalTransition, match=current.value) as refused:
        require_transition(MISSION_TRANSITIONS, current, to)
    assert refused.value.details == {"current": current.value}


def test_severities_sort_by_urgency() -> None:
    assert sorted(Severity, key=lambda severity: severity.rank) == ["critical", "high", "medium", "low"]
