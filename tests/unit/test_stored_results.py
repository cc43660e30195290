"""Which cases of a long run become rows of its mission."""

from activities import trials
from activities.trials import stored_results
from models.domain.testing import Outcome, Source, TestCase, TestReport


def test_those_that_must_pass_are_among_them() -> None:
    names = [f"tests/test_many.py::test_{number}" for number in range(trials.MAX_STORED_RESULTS + 1)]
    cases = tuple(TestCase(id=name, outcome=Outcome.PASSED) for name in names)
    report = TestReport(source=Source.JUNIT, cases=cases, exit_code=0)
    kept = [result.name for result in stored_results("after", report, {names[-1]})]
    assert len(kept) == trials.MAX_STORED_RESULTS
    assert kept[:2] == [names[-1], names[0]]
