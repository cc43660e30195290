"""How a key stands, of what was done to it and what time it is."""

from datetime import UTC, datetime, timedelta

import pytest

from models.domain.keys import KeyState, key_state

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PAST, FUTURE = NOW - timedelta(seconds=1), NOW + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("revoked", "expires", "successor", "state"),
    [
        (None, None, None, KeyState.ACTIVE),
        (None, FUTURE, None, KeyState.ACTIVE),
        (None, FUTURE, "key_2", KeyState.GRACE),
        (None, None, "key_2", KeyState.GRACE),
        (None, NOW, None, KeyState.EXPIRED),
        (None, PAST, "key_2", KeyState.EXPIRED),
        (PAST, FUTURE, "key_2", KeyState.REVOKED),
        (PAST, PAST, None, KeyState.REVOKED),
    ],
)
def test_it_stands(revoked: datetime | None, expires: datetime | None, successor: str | None, state: KeyState) -> None:
    assert key_state(revoked, expires, successor, NOW) is state
