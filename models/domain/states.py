"""State machines of requirements section 4 that the mission spine needs, as tables."""

from enum import StrEnum
from typing import TypeVar

from models.domain.errors import IllegalTransition


class Severity(StrEnum):
    """How urgent a mission is (MISS-04)."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 for critical to 3 for low: sorts ascending, and plus 1 is Temporal's priority key."""
        return list(Severity).index(self)


class MissionStatus(StrEnum):
    """Where a mission stands (MISS-05)."""

    OPEN = "open"
    IN_PROGRESS = "in_progress"
    OBSERVING = "observing"
    RESOLVED = "resolved"
    ESCALATED = "escalated"


UNDER_WAY = (MissionStatus.IN_PROGRESS, MissionStatus.OBSERVING)
"""Where a mission has a workflow. One that an engineer reset begins again, and follows what is recorded already."""


class MissionOutcome(StrEnum):
    """How a mission ended: exactly one, once (design section 7)."""

    MERGED = "merged"
    ROLLED_BACK = "rolled_back"
    DENIED = "denied"
    EXPIRED = "expired"
    FAILED = "failed"
    CANCELED = "canceled"
    TERMINATED = "terminated"


class DecisionKind(StrEnum):
    """What a question is about; a policy says who may answer each kind."""

    AGENT_QUESTION = "agent_question"
    BUDGET = "budget"
    GOVERNANCE = "governance"
    REGISTRATION = "registration"
    ROLLBACK = "rollback"
    TICKET_DONE = "ticket_done"
    TOOL_ACTION = "tool_action"
    WIKI_CHANGE = "wiki_change"


class DecisionStatus(StrEnum):
    """States of a question put to a human (requirements 4.8)."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELED = "canceled"


class CapaStatus(StrEnum):
    """States of a corrective action (requirements 4.13)."""

    OPEN = "open"
    IN_PROGRESS = "in_progress"
    CLOSED = "closed"


_S = TypeVar("_S", bound=StrEnum)

MISSION_TRANSITIONS: dict[MissionStatus, frozenset[MissionStatus]] = {
    MissionStatus.OPEN: frozenset({MissionStatus.IN_PROGRESS, MissionStatus.ESCALATED}),
    MissionStatus.IN_PROGRESS: frozenset({MissionStatus.OBSERVING, MissionStatus.ESCALATED}),
    MissionStatus.OBSERVING: frozenset({MissionStatus.RESOLVED, MissionStatus.ESCALATED}),
    MissionStatus.RESOLVED: frozenset(),
    MissionStatus.ESCALATED: frozenset(),
}

DECISION_TRANSITIONS: dict[DecisionStatus, frozenset[DecisionStatus]] = {
    DecisionStatus.PENDING: frozenset(set(DecisionStatus) - {DecisionStatus.PENDING}),
    **{status: frozenset() for status in DecisionStatus if status is not DecisionStatus.PENDING},
}

CAPA_TRANSITIONS: dict[CapaStatus, frozenset[CapaStatus]] = {
    CapaStatus.OPEN: frozenset({CapaStatus.IN_PROGRESS, CapaStatus.CLOSED}),
    CapaStatus.IN_PROGRESS: frozenset({CapaStatus.CLOSED}),
    CapaStatus.CLOSED: frozenset(),
}


def sources(table: dict[_S, frozenset[_S]], to: _S) -> tuple[_S, ...]:
    """List the states from which `to` may be reached: what a compare-and-set's WHERE clause names."""
    return tuple(state for state, targets in table.items() if to in targets)


def require_transition(table: dict[_S, frozenset[_S]], current: _S, to: _S) -> None:
    """Raise `IllegalTransition` when the table has no arrow from `current` to `to`."""
    if to not in table[current]:
        raise IllegalTransition(
            "illegal_transition", f"{current.value} may not become {to.value}", current=current.value
        )
