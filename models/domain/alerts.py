"""What an alert may be about, and its states (requirements 4.16)."""

from datetime import UTC, datetime
from enum import StrEnum

from models.domain.errors import IllegalTransition


class AlertKind(StrEnum):
    """What is wrong."""

    COST_SPIKE = "cost_spike"
    """A limit was crossed (BUDG-13)."""
    LOOP = "loop"
    """A run repeats a failing call (LOOP-04)."""
    AGENT_STALE = "agent_stale"
    """An agent has been silent for five minutes (AGENT-11)."""
    UNAPPROVED_CALL = "unapproved_call"
    """A tool call was made that nobody had approved, or that was denied (POL-04)."""
    MISSION_UNREACHABLE = "mission_unreachable"
    """A mission's workflow takes no more signals: it hears of answers and limits only when it looks itself."""
    LOG_TAMPERED = "log_tampered"
    """The audit log contradicts a checkpoint that was signed, or that its mirror has (CRYP-03)."""


class AlertStatus(StrEnum):
    """Whether somebody has seen it, and whether it is over."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


ALERT_TRANSITIONS: dict[AlertStatus, frozenset[AlertStatus]] = {
    AlertStatus.OPEN: frozenset({AlertStatus.ACKNOWLEDGED, AlertStatus.RESOLVED}),
    AlertStatus.ACKNOWLEDGED: frozenset({AlertStatus.RESOLVED}),
    AlertStatus.RESOLVED: frozenset(),
}


def require_may_become(current: AlertStatus, to: AlertStatus, by: str | None, at: datetime | None) -> None:
    """Refuse to see to an alert that somebody has seen to already.

    Raises:
        IllegalTransition: who did, what and when.
    """
    if to in ALERT_TRANSITIONS[current]:
        return
    when = at.astimezone(UTC).isoformat(timespec="seconds") if at else None
    told = f"the alert was {current.value} by {by} already, at {when}; `GET /alerts?status=open` lists what waits"
    who = {f"{current.value}_by": by, f"{current.value}_at": when}
    raise IllegalTransition("illegal_transition", told, current=current.value, **who)
