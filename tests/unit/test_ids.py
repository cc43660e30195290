"""Business ids: as people read them, and never one for two things."""

import re
from datetime import date
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from models.domain.ids import (
    MAX_WORKFLOW_ID,
    merge_queue_workflow_id,
    mission_id,
    mission_workflow_id,
)
from models.domain.repositories import check_ref_name


def test_a_mission_is_called_by_its_day_and_number() -> None:
    assert mission_id(date(2025, 1, 10), 1) == "mission_20250110_001"


@given(st.dates(min_value=date(1000, 1, 1)), st.integers(1, 10**6))
def test_every_number_gives_a_well_formed_id(day: date, number: int) -> None:
    assert re.fullmatch(r"mission_\d{8}_\d{3,}", mission_id(day, number))


def test_two_workspaces_may_have_the_same_mission_id() -> None:
    assert mission_workflow_id("a", "mission_20250110_001") != mission_workflow_id("b", "mission_20250110_001")


@given(st.text(), st.text())
def test_two_branches_never_share_a_queue(one: str, other: str) -> None:
    same = merge_queue_workflow_id("r", one) == merge_queue_workflow_id("r", other)
    assert same == (one == other)


def test_the_longest_branch_fits_into_an_id_of_temporal() -> None:
    for letter in ("b", "\u00fc", "\U0001d11e"):
        longest = check_ref_name(letter * 250)
        assert len(merge_queue_workflow_id(str(uuid4()), longest)) <= MAX_WORKFLOW_ID
        assert merge_queue_workflow_id("r", longest) != merge_queue_workflow_id("r", longest[:-1])


def test_a_branchs_slashes_do_not_make_folders() -> None:
    assert merge_queue_workflow_id("r", "release/1.0") == "merge-queue/r/release%2F1.0"
