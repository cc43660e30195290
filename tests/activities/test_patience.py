"""How long git may fail a stage before the stage fails."""

import pytest

from activities.patience import SECONDS, TRIES_AT_LEAST, Patience
from activities.workbench.git import GitError

AWAY = GitError("git fetch failed: fatal: early EOF.", stderr="fatal: early EOF")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_many_tries_in_a_short_time_are_no_reason(clock: Clock) -> None:
    patience = Patience(clock)
    clock.now += SECONDS - 1
    assert all(patience.judge("one", AWAY) is None for _ in range(200))


def test_a_host_that_slept_has_tried_nothing(clock: Clock) -> None:
    patience = Patience(clock)
    patience.judge("one", AWAY)
    clock.now += 10 * SECONDS
    assert patience.judge("one", AWAY) is None


def test_what_fails_for_long_enough_fails_its_stage_and_no_other(clock: Clock) -> None:
    patience = Patience(clock)
    for _ in range(TRIES_AT_LEAST - 1):
        patience.judge("one", AWAY)
    clock.now += SECONDS
    refused = patience.judge("one", AWAY)
    assert refused is not None
    assert refused.code == "git_failed"
    assert "for 10 minutes: git fetch failed: fatal: early EOF. Mend that" in refused.message
    assert patience.judge("other", AWAY) is None


def test_success_begins_anew(clock: Clock) -> None:
    patience = Patience(clock)
    for _ in range(TRIES_AT_LEAST):
        patience.judge("one", AWAY)
    patience.forget("one")
    clock.now += SECONDS
    assert patience.judge("one", AWAY) is None


def test_a_refusal_needs_no_patience(clock: Clock) -> None:
    refused = Patience(clock).judge("one", GitError("no", stderr="fatal: Authentication failed for 'x'"))
    assert refused is not None
    assert refused.code == "repository_unauthorized"


def test_what_it_remembers_is_bounded(clock: Clock) -> None:
    patience = Patience(clock)
    for number in range(10_100):
        patience.judge(str(number), AWAY)
    assert len(patience._failing) == 10_000
