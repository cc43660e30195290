"""How parts of the product are, and what that says about the whole (V-05)."""

from collections.abc import Iterable
from enum import StrEnum


class Health(StrEnum):
    """How one part is."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    DOWN = "down"
    UNKNOWN = "unknown"


class Overall(StrEnum):
    """How the whole is."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    CRITICAL = "critical"


def overall(parts: Iterable[tuple[Health, bool]]) -> Overall:
    """Judge the whole by its parts, each with whether nothing works without it."""
    found = list(parts)
    if any(state is Health.DOWN and critical for state, critical in found):
        return Overall.CRITICAL
    if any(state in (Health.DOWN, Health.DEGRADED) for state, _ in found):
        return Overall.DEGRADED
    return Overall.HEALTHY
