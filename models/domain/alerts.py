"""What an alert may be about, and its states (requirements 4.16)."""

from enum import StrEnum


class AlertKind(StrEnum):
    """What is wrong."""

    COST_SPIKE = "cost_spike"
    """A limit was crossed (BUDG-13)."""
    LOOP = "loop"
    """A run repeats a failing call (LOOP-04)."""
    AGENT_STALE = "agent_stale"
    """An agent has been silent for five minutes (AGENT-11)."""
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
