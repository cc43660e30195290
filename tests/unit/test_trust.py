"""The score's arithmetic, and who is let in."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.errors import NotPermitted
from models.domain.states import MissionOutcome
from models.domain.trust import LEAST, MOST, START, change_by, moved, require_access

SCORES = st.decimals(LEAST, MOST, places=2)


@pytest.mark.parametrize(
    ("outcome", "score"),
    [
        (MissionOutcome.MERGED, "0.52"),
        (MissionOutcome.ROLLED_BACK, "0.30"),
        (MissionOutcome.FAILED, "0.40"),
        (MissionOutcome.DENIED, "0.40"),
        (MissionOutcome.EXPIRED, "0.50"),
        (MissionOutcome.CANCELED, "0.50"),
        (MissionOutcome.TERMINATED, "0.50"),
    ],
)
def test_each_outcome_moves_it_by_its_number(outcome: MissionOutcome, score: str) -> None:
    assert moved(START, outcome) == Decimal(score)


@given(SCORES, st.lists(st.sampled_from(MissionOutcome)))
def test_it_stays_within_its_bounds_and_goes_where_the_outcome_points(
    score: Decimal, outcomes: list[MissionOutcome]
) -> None:
    for outcome in outcomes:
        after = moved(score, outcome)
        assert LEAST <= after <= MOST
        assert (after - score) * change_by(outcome) >= 0
        score = after


def test_a_score_just_below_is_too_low() -> None:
    require_access(Decimal("0.80"), (), 0.8, ())
    with pytest.raises(NotPermitted) as refused:
        require_access(Decimal("0.79"), (), 0.8, ())
    assert refused.value.code == "trust_too_low"


def test_a_role_must_be_among_the_capabilities_or_what_they_are_short_for() -> None:
    require_access(START, ("coding",), 0, ("elite_coding_agent",))
    with pytest.raises(NotPermitted) as refused:
        require_access(START, ("healing",), 0, ("elite_coding_agent",))
    assert refused.value.code == "role_not_allowed"
