"""Names of who acts: one spelling of each, and nothing hidden in them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.limits import limit_id
from models.domain.names import (
    MAX_ID,
    MAX_NAME,
    MAX_TICKET,
    SYSTEM_NAMES,
    clean_name,
    new_name,
    path_name,
    seen_name,
    ticket_name,
)


@pytest.mark.parametrize(
    ("said", "name"), [("  olga ", "olga"), ("\uff4f\uff4c\uff47\uff41", "olga"), ("e\u0301", "\u00e9"), ("Ⅳ", "IV")]
)
def test_one_spelling(said: str, name: str) -> None:
    assert clean_name(said) == name


@pytest.mark.parametrize(
    "said",
    [
        "",
        "   ",
        "a" * (MAX_NAME + 1),
        "a" * 10_000,
        "\ufdfa" * 40,
        "a\nb",
        "a\u202eb",
        "a\u200bb",
        "a\ufe0f",
        "a\u034f",
        "\u0301",
        ".",
        " \uff0e\uff0e ",
        "a/b",
        "Policy",
        "\uff0f",
        "agent_0123456789abcdef",
        "Agent_0123456789abcde\uff46",
    ],
)
def test_what_is_no_name(said: str) -> None:
    with pytest.raises(ValueError, match="name"):
        clean_name(said)


@pytest.mark.parametrize("said", ["olga, peter", "olga,peter", ",", "olga\uff0c peter"])
def test_nobody_new_is_called_like_two(said: str) -> None:
    with pytest.raises(ValueError, match="a name holds no comma"):
        new_name(said)
    assert clean_name(said), "whoever was called so before is still found"


@pytest.mark.parametrize("said", ["", "  ", "a" * (MAX_NAME + 1), "a" * 10_000])
def test_how_long_a_name_may_be_is_told_alike_of_blank_and_long_ones(said: str) -> None:
    with pytest.raises(ValueError, match=f"^a name has 1 to {MAX_NAME} characters, and not only spaces$"):
        clean_name(said)


def test_nobody_is_called_like_a_part_of_ours() -> None:
    for name in SYSTEM_NAMES:
        with pytest.raises(ValueError, match="take another name"):
            clean_name(f" {name.upper()}")


@given(st.text(max_size=200))
def test_cleaning_twice_changes_nothing(said: str) -> None:
    try:
        name = clean_name(said)
    except ValueError:
        return
    assert clean_name(name) == name
    assert unicodedata.is_normalized("NFKC", name)
    assert 1 <= len(name) <= MAX_NAME
    assert "/" not in name
    assert name == name.strip() == path_name(name)


@given(st.text(max_size=300))
def test_what_a_path_may_hold_is_spelt_once_and_seen(said: str) -> None:
    try:
        name = path_name(said)
    except ValueError:
        return
    assert path_name(f" {name}\t") == seen_name(name) == name
    assert "/" not in name
    assert name not in (".", "..")


def test_a_tool_may_be_named_by_its_server_too() -> None:
    assert seen_name(" github/\uff4derge ") == "github/merge"


def test_a_ticket_s_name_leaves_room_in_the_ids_that_are_made_of_it() -> None:
    ticket = "T" * MAX_TICKET
    assert ticket_name(f" {ticket} ") == ticket
    asked = f"budget.ticket.{ticket}.{2**31 - 1}"  # as often as a counter of Postgres can tell
    assert max(len(asked), len(limit_id("w", "ticket", ticket))) <= MAX_ID
    with pytest.raises(ValueError, match=f"a name has 1 to {MAX_TICKET} characters"):
        ticket_name(ticket + "T")
