"""What an approval stands for."""

import pytest

from models.domain.approval import Binding


@pytest.mark.parametrize("change", [{"patch_id": "p2"}, {"config_hash": "c2"}, {"policy_version": "v2"}])
def test_an_approval_stands_only_for_what_it_bound(change: dict[str, str]) -> None:
    bound = Binding(patch_id="p", config_hash="c", reasons=("the branch is protected",))
    assert bound.covers(bound)
    assert not bound.covers(bound.model_copy(update=change))


def test_an_approval_stands_when_doubts_went_away_and_not_when_one_is_new() -> None:
    bound = Binding(patch_id="p", config_hash="c", reasons=("the branch is protected", "an operator overrides: test"))
    assert bound.covers(bound.model_copy(update={"reasons": ("the branch is protected",)}))
    assert not bound.covers(bound.model_copy(update={"reasons": ("the scan found 1 new medium finding(s)",)}))
