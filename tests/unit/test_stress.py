"""When a stress run speaks against a patch."""

import pytest

from models.contracts.missions import MetricTarget
from models.domain.stress import StressRun, compare_stress, in_words


def run(seconds: float = 10, exit_code: int | None = 0, **more: object) -> StressRun:
    return StressRun.model_validate({"seconds": seconds, "exit_code": exit_code, **more})


TARGET = MetricTarget(metric_id="latency_p95", comparator="<", target=100)


@pytest.mark.parametrize(
    ("base", "patched", "passes"),
    [(10, 15, True), (10, 15.1, False), (10, 5, True), (0.2, 1.1, True), (0.2, 1.3, False), (1.9, 2.86, True)],
)
def test_slower_by_half_and_by_more_than_a_second_is_a_regression(base: float, patched: float, passes: bool) -> None:
    assert compare_stress(run(base), run(patched)).passed is passes


def test_the_patch_must_end_with_zero() -> None:
    assert compare_stress(run(), run(exit_code=3)).reasons == ("the stress command fails at the patch: exit code 3",)
    stopped = run(exit_code=None, stopped="it ran longer than 5 s")
    assert compare_stress(run(), stopped).reasons[0].endswith("stopped: it ran longer than 5 s")


def test_a_base_that_fails_leaves_nothing_to_compare_with() -> None:
    verdict = compare_stress(run(1, exit_code=2), run(100))
    assert verdict.passed
    assert verdict.notes == ("the stress command fails at the base (exit code 2): speed was not compared",)


def test_what_came_out_is_said_in_a_line() -> None:
    assert in_words(compare_stress(run(10), run(9.51))) == "exit code 0 after 9.5 s, 10.0 s at the base"
    assert in_words(compare_stress(run(exit_code=2), run())) == (
        "exit code 0 after 10.0 s; the stress command fails at the base (exit code 2): speed was not compared"
    )
    assert in_words(compare_stress(run(), run(exit_code=3))) == "the stress command fails at the patch: exit code 3"


def test_what_a_run_left_behind_is_said_and_speaks_against_nobody() -> None:
    verdict = compare_stress(run(left_behind=1), run(left_behind=2))
    assert verdict.passed
    assert verdict.notes == (
        "the stress command at the base left 1 process(es) behind, which were ended",
        "the stress command at the patch left 2 process(es) behind, which were ended",
    )


def test_targets_of_what_it_measured_must_be_met() -> None:
    assert compare_stress(run(), run(measured={"latency_p95": 99}), [TARGET]).passed
    missed = compare_stress(run(), run(measured={"latency_p95": 100}), [TARGET])
    assert missed.reasons == ("latency_p95 must be < 100: measured 100",)
    assert compare_stress(run(), run(measured={"other": 1}), [TARGET]).passed
