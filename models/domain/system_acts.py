"""What the product's own parts may make of things by themselves: hold them and ask, never finish them (POL-21)."""

from collections.abc import Mapping
from enum import StrEnum

from models.domain.budgets import RunStatus
from models.domain.errors import NotPermitted
from models.domain.names import SYSTEM_NAMES
from models.domain.states import DecisionStatus, MissionStatus

DONE = frozenset({MissionStatus.RESOLVED, RunStatus.SUCCESS, DecisionStatus.APPROVED})
"""States in which something was carried out, or may be."""

_BY_EVIDENCE: Mapping[str, frozenset[StrEnum]] = {"worker": frozenset({MissionStatus.RESOLVED, RunStatus.SUCCESS})}
"""The workflow of a mission ends it, and the run that is its compute, by what all stages have found."""


def require_may_set(actor: str, to: StrEnum) -> None:
    """Refuse to let a part of the product call something done; it may block it, ask about it, or let it end badly.

    Raises:
        NotPermitted: `system_never_finishes`.
    """
    if actor in SYSTEM_NAMES and to in DONE - _BY_EVIDENCE.get(actor, frozenset()):
        raise NotPermitted(
            "system_never_finishes", f"{actor!r} may not set {to.value}: a human or the work itself must"
        )
