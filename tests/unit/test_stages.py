"""The stages: their order, their numbers, and which states of one are final."""

import pytest

from models.domain.stages import StageName, stage_by_number


def test_there_are_eleven_and_the_scan() -> None:
    assert [stage.number for stage in StageName] == ["1", "2", "3", "4s", "4", "5", "6", "7", "8", "9", "10", "11"]


def test_they_sort_in_the_order_in_which_they_run() -> None:
    assert [stage.order for stage in StageName] == list(range(12))


@pytest.mark.parametrize("stage", StageName)
def test_one_is_found_by_its_number_and_by_its_name(stage: StageName) -> None:
    assert stage_by_number(stage.number) is stage
    assert stage_by_number(stage.value) is stage


def test_nonsense_is_no_stage() -> None:
    assert [stage_by_number(word) for word in ("", "0", "12", "4S", "tests")] == [None] * 5
