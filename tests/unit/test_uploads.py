"""How long a body may take to come."""

from hypothesis import given
from hypothesis import strategies as st

from models.domain.uploads import BYTES_PER_SECOND, SILENCE_SECONDS, give_up_at
from models.schemas.missions import PATCHES

seconds = st.floats(0, 1e6)
sizes = st.integers(0, PATCHES.bytes)


@given(seconds, seconds, sizes)
def test_nobody_is_waited_for_longer_than_a_silence(began: float, passed: float, received: int) -> None:
    assert give_up_at(began, began + passed, received) <= began + passed + SILENCE_SECONDS


@given(seconds, sizes)
def test_whoever_sends_steadily_is_waited_for(began: float, received: int) -> None:
    now = began + received / BYTES_PER_SECOND
    assert give_up_at(began, now, received) >= now + SILENCE_SECONDS - 1e-6


@given(seconds, st.lists(st.integers(1, 1000), max_size=50))
def test_drops_hold_nothing_open(began: float, drops: list[int]) -> None:
    """However its bytes are spread, a body ends with the time that its size gives."""
    now, received = began, 0
    for drop in drops:
        now, received = give_up_at(began, now, received), received + drop
    assert now <= began + SILENCE_SECONDS + received / BYTES_PER_SECOND


def test_the_longest_body_ends_within_five_minutes() -> None:
    assert SILENCE_SECONDS + PATCHES.bytes / BYTES_PER_SECOND < 300
