"""What an API key looks like, and how it stands (requirements 4.14)."""

import re
from datetime import datetime
from enum import StrEnum

PREFIX, SESSION_PREFIX, REGISTRATION_PREFIX = "mc_", "mcs_", "mcr_"
_LETTER = "[A-Za-z0-9_-]"
_BEGINS = r"(?:(?<![A-Za-z0-9])(?<![A-Za-z0-9][_-])|(?<=\\[nrt])|(?<=%[0-9A-Fa-f]{2}))"
_MIXED = "".join(f"(?={_LETTER}{{0,42}}{kind})" for kind in ("[A-Z]", "[a-z]", "[0-9]"))
SECRET = re.compile(rf"{_BEGINS}mc[sr]?_{_MIXED}{_LETTER}{{43}}")
"""A key, a browser's or a registrant's token, also behind an escape, but not amid more base64.

256 bits in it are mixed, which names are not.
"""


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
