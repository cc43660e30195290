"""Words about an act: they count only where they show something."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from models.schemas.envelope import Said

WORDS = TypeAdapter(Said)
BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180f\u2800\u3164\ufe00\ufe0f\uffa0\U000e0100\U000e01ef"
"""Assigned letters, marks and symbols that show nothing."""
HIDDEN = st.text(st.characters(categories=["M", "Z", "C"]) | st.sampled_from(BLANK), max_size=50)
SEEN = st.characters(categories=["L", "N", "P", "S"], exclude_characters=f"{BLANK}\U00013441\U00013442\U0001d159")


@given(HIDDEN)
def test_what_cannot_be_seen_says_nothing(text: str) -> None:
    with pytest.raises(ValidationError):
        WORDS.validate_python(text)


@pytest.mark.parametrize("text", [*BLANK, "\u0301", "\u180b\ufe0f", " \u17b4\n"])
def test_nor_do_these(text: str) -> None:
    with pytest.raises(ValidationError, match="say it in words"):
        WORDS.validate_python(text)


@given(st.text(st.characters(categories=["M", "Z"]), max_size=20), SEEN)
def test_one_letter_is_enough_and_nothing_is_taken_away(marks: str, letter: str) -> None:
    text = f"{letter}{marks}{letter}"
    assert WORDS.validate_python(text) == text
