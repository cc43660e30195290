"""What becomes of a merge when its mission is stopped, and when a human must look."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.ending import Choice, doubt, lacks_choice, outcome_of_cancel
from models.domain.stages import StageName
from models.domain.states import MissionOutcome

choices = st.sampled_from(["keep", "roll_back", None])


@pytest.mark.parametrize(
    ("is_merged", "choice", "outcome"),
    [
        (False, None, MissionOutcome.CANCELED),
        (False, "keep", MissionOutcome.CANCELED),
        (False, "roll_back", MissionOutcome.CANCELED),
        (True, "keep", MissionOutcome.CANCELED),
        (True, "roll_back", MissionOutcome.ROLLED_BACK),
    ],
)
def test_only_a_merge_is_taken_back_and_only_where_it_is_not_kept(
    is_merged: bool, choice: Choice | None, outcome: MissionOutcome
) -> None:
    assert not lacks_choice(is_merged, choice)
    assert outcome_of_cancel(is_merged, choice) is outcome


@given(st.booleans(), choices)
def test_a_choice_is_asked_for_only_where_it_decides(is_merged: bool, choice: Choice | None) -> None:
    ways = {outcome_of_cancel(is_merged, one) for one in ("keep", "roll_back")}
    assert lacks_choice(is_merged, choice) == (len(ways) == 2 and choice is None)


@pytest.mark.parametrize("stage", [None, *StageName])
def test_a_merge_that_nobody_watched_calls_for_a_look(stage: StageName | None) -> None:
    assert doubt(stage, is_merged=True) == " after its merge, which nobody observed to the end"
    uncertain = " during its merge: look for its Mission-Id among the branch's commits"
    assert doubt(stage, is_merged=False) == (uncertain if stage is StageName.MERGE else "")
    assert doubt(stage.value if stage else None, is_merged=False) == doubt(stage, is_merged=False)
