"""The limiter's arithmetic, against a model that remembers every request."""

from hypothesis import given
from hypothesis import strategies as st

from models.domain.rates import MAX_RATE, MINUTE, SECOND, spend

WAITS = st.lists(st.integers(0, 40 * SECOND), min_size=1, max_size=80)


@given(st.integers(1, MAX_RATE))
def test_all_may_be_used_at_once_and_not_one_more(limit: int) -> None:
    """The last step is enough: each request before it pushes the end on by the same share."""
    full_at = 1 + (limit - 1) * (MINUTE // limit)
    full_at, last = spend(limit, MINUTE, full_at, 1)
    assert (last.remaining, last.wait) == (0, 0)
    refused_at, refused = spend(limit, MINUTE, full_at, 1)
    assert refused_at == full_at
    assert refused.wait > 0


@given(st.integers(1, 50), WAITS)
def test_it_is_a_bucket_that_fills_steadily(limit: int, waits: list[int]) -> None:
    share = MINUTE // limit
    now, full_at, owed = 10**15, 0, 0
    for wait in waits:
        now, owed = now + wait, max(owed - wait, 0)
        full_at, left = spend(limit, MINUTE, full_at, now)
        passes = owed + share <= share * limit
        owed += share if passes else 0
        assert (left.wait == 0) == passes
        assert left.reset == owed
        assert left.limit == limit
        if passes:
            assert left.remaining == (share * limit - owed) // share


@given(st.integers(1, 50), WAITS)
def test_whoever_waits_as_told_is_let_in(limit: int, waits: list[int]) -> None:
    now, full_at = 10**15, 0
    for wait in waits:
        now += wait // 100
        full_at, left = spend(limit, MINUTE, full_at, now)
        if left.wait:
            _, too_soon = spend(limit, MINUTE, full_at, now + left.wait - 1)
            assert too_soon.wait == 1
            now += left.wait
            full_at, left = spend(limit, MINUTE, full_at, now)
            assert left.wait == 0


@given(st.integers(1, 50), WAITS)
def test_no_minute_sees_more_than_twice_the_limit(limit: int, waits: list[int]) -> None:
    """All at once, and what comes back meanwhile: the price of letting all be used at once."""
    now, full_at, let_in = 10**15, 0, []
    for wait in waits:
        now += wait // 100
        full_at, left = spend(limit, MINUTE, full_at, now)
        let_in += [now] if left.wait == 0 else []
    for start in let_in:
        assert sum(start <= at < start + MINUTE for at in let_in) <= 2 * limit
