"""How far an agent is trusted, and what a mission's end does to that (V-01; numbers of requirements 5.2)."""

from decimal import Decimal

from models.domain.errors import NotPermitted
from models.domain.roles import roles_of
from models.domain.states import MissionOutcome

START = Decimal("0.50")
LEAST, MOST = Decimal(0), Decimal(1)
_CHANGES = {
    MissionOutcome.MERGED: Decimal("0.02"),
    MissionOutcome.ROLLED_BACK: Decimal("-0.20"),
    MissionOutcome.FAILED: Decimal("-0.10"),
    MissionOutcome.DENIED: Decimal("-0.10"),
}
"""A mission that was canceled, that expired or was terminated says nothing about its agent's work."""


def change_by(outcome: MissionOutcome) -> Decimal:
    """Tell by how much a mission's end moves its agent's score."""
    return _CHANGES.get(outcome, Decimal(0))


def moved(score: Decimal, outcome: MissionOutcome) -> Decimal:
    """Give the score after a mission's end; it stays within 0 and 1."""
    return min(MOST, max(LEAST, score + change_by(outcome)))


def require_access(
    score: Decimal, capabilities: tuple[str, ...], required: float, allowed_roles: tuple[str, ...]
) -> None:
    """Check that a mission lets an agent in (C-22); its key and its level are asked elsewhere.

    Raises:
        NotPermitted: `trust_too_low`, or `role_not_allowed`.
    """
    if score < Decimal(str(required)):
        raise NotPermitted(
            "trust_too_low", f"this mission takes a trust score of {required:g}, and yours is {score:.2f}"
        )
    known = {role for capability in capabilities for role in roles_of(capability)}
    if allowed_roles and known.isdisjoint(allowed_roles):
        roles = ", ".join(allowed_roles)
        raise NotPermitted("role_not_allowed", f"this mission is for {roles}; none is among your capabilities")
