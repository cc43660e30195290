"""How an API key stands (requirements 4.14)."""

from datetime import datetime
from enum import StrEnum


class KeyState(StrEnum):
    """Only active keys, and those in grace, open anything."""

    ACTIVE = "active"
    GRACE = "grace"
    EXPIRED = "expired"
    REVOKED = "revoked"


def key_state(
    revoked_at: datetime | None, expires_at: datetime | None, successor: str | None, now: datetime
) -> KeyState:
    """Tell what a key is; one whose successor is there has what is left of its grace."""
    if revoked_at is not None:
        return KeyState.REVOKED
    if expires_at is not None and expires_at <= now:
        return KeyState.EXPIRED
    return KeyState.GRACE if successor is not None else KeyState.ACTIVE
