"""What an API key looks like, and how it stands (requirements 4.14)."""

import re
from datetime import datetime
from enum import StrEnum

PREFIX, SESSION_PREFIX, REGISTRATION_PREFIX = "mc_", "mcs_", "mcr_"
SECRET = re.compile(r"(?<![A-Za-z0-9])mc[sr]?_(?=[a-z0-9_-]*[A-Z])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
"""A key, a browser's or a registrant's token: 256 bits in base64 have a capital letter, which long names do not."""


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
