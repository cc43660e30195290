"""Each refusal has one code and one wording, and says what to do next."""

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from models.domain.errors import InvalidInput
from models.domain.refusals import missing, mission_ended, no_workspace, require_order, run_blocked, run_ended

ROOT = Path(__file__).parents[2]
ONCE = {"run_ended", "run_blocked", "mission_ended", "agent_not_approved"}


@pytest.mark.parametrize(
    ("noun", "code", "listed"),
    [
        ("run", "run_not_found", "`GET /runs`"),
        ("audit row", "audit_not_found", "`GET /audit`"),
        ("note", "memory_not_found", "`GET /memory`"),
    ],
)
def test_what_is_missing_is_listed_somewhere(noun: str, code: str, listed: str) -> None:
    told = missing(noun, "x")
    assert (told.code, told.message) == (code, f"there is no {noun} 'x'; {listed} lists what there is")


def test_a_workspace_that_a_key_does_not_open_is_none() -> None:
    told = no_workspace("x")
    assert (told.code, told.message) == ("workspace_not_found", "there is no workspace 'x' that this key opens")


def test_a_version_has_its_number_before_that_of_which_it_is_one() -> None:
    told = missing("version {} of the policy", 9)
    assert told.code == "policy_version_not_found"
    assert told.message == "there is no version 9 of the policy; `GET /policy/versions` lists what there is"


@pytest.mark.parametrize("first", [date(2026, 12, 1), datetime(2026, 12, 1, tzinfo=UTC)])
def test_a_time_that_ends_before_it_begins(first: date) -> None:
    with pytest.raises(InvalidInput, match=r"query\.from: 2026-12-01.* is after `to`, 2026-11-30"):
        require_order(first, first - timedelta(days=1), ("from", "to"))
    for since, until in ((first, first), (None, first), (first, None), (first - timedelta(days=1), first)):
        require_order(since, until)


def test_what_a_blocked_run_waits_for() -> None:
    loop, limit = run_blocked("again and again", "loop"), run_blocked("too expensive", "run")
    assert "again and again; a loop never goes on: end it" in loop.message
    assert "too expensive; wait until it may go on, or end it" in limit.message
    assert (loop.details, limit.details) == ({"blocked_by": "loop"}, {"blocked_by": "run"})


def test_what_has_ended_says_what_to_do() -> None:
    assert "`POST /runs` starts another one" in run_ended().message
    assert "settle what was begun" in mission_ended().message


def test_each_is_worded_in_one_place() -> None:
    found: dict[str, set[str]] = {code: set() for code in ONCE}
    for place in (*ROOT.glob("models/**/*.py"), *ROOT.glob("api/**/*.py")):
        for code in re.findall(r'Conflict\(\s*"(\w+)"', place.read_text()):
            if code in found:
                found[code].add(place.name)
    assert found == {code: {"agents.py" if code == "agent_not_approved" else "refusals.py"} for code in ONCE}
