"""What must hold of a verdict for any results."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from models.domain.judging import Verdict, judge, resolve, suspects
from models.domain.testing import Outcome, TestReport
from tests.fixtures.reports import P, report

CASES = st.lists(st.tuples(st.sampled_from(["a::1", "a::2", "b::1"]), st.sampled_from(Outcome)), min_size=1, max_size=8)
NAMES = st.lists(st.sampled_from(["a::1", "a::2", "b::1", "2", "c"]), unique=True, max_size=3)


def as_report(cases: list[tuple[str, Outcome]]) -> TestReport:
    return report(*cases)


def found_by_walking(names: list[str], ids: list[str]) -> dict[str, set[str]]:
    """`resolve` as one would say it."""
    return {
        name: {name} if name in ids else {id for id in ids for sign in "/:." if id.endswith(sign + name)}
        for name in names
    }


WORDS = st.text("ab/:.[\U0001f600", max_size=6)


class TestAlways:
    @given(st.lists(WORDS, max_size=5, unique=True), st.lists(WORDS, max_size=10, unique=True))
    def test_names_are_found_as_by_looking_at_every_id(self, names: list[str], ids: list[str]) -> None:
        assert {name: set(found) for name, found in resolve(names, ids).items()} == found_by_walking(names, ids)

    @given(CASES)
    def test_equal_results_never_regress(self, cases: list[tuple[str, Outcome]]) -> None:
        same = as_report(cases)
        assert suspects(same, same) == ()
        assert judge(same, same, same, []).passed

    @given(CASES, CASES, CASES, NAMES)
    def test_an_unrelated_passing_test_changes_nothing(
        self,
        bare: list[tuple[str, Outcome]],
        before: list[tuple[str, Outcome]],
        after: list[tuple[str, Outcome]],
        names: list[str],
    ) -> None:
        plain = judge(as_report(bare), as_report(before), as_report(after), names)
        wider = [as_report([*cases, ("z::unrelated", P)]) for cases in (bare, before, after)]
        more = judge(wider[0], wider[1], wider[2], names)
        assert (plain.passed, plain.regressions, plain.must_pass) == (more.passed, more.regressions, more.must_pass)

    @given(CASES, CASES, CASES, NAMES, st.data())
    def test_mending_a_case_at_the_patch_never_hurts(
        self,
        bare: list[tuple[str, Outcome]],
        before: list[tuple[str, Outcome]],
        after: list[tuple[str, Outcome]],
        names: list[str],
        data: st.DataObject,
    ) -> None:
        index = data.draw(st.integers(0, len(after) - 1))
        mended = [*after[:index], (after[index][0], P), *after[index + 1 :]]
        first = judge(as_report(bare), as_report(before), as_report(after), names)
        second = judge(as_report(bare), as_report(before), as_report(mended), names)
        assert second.passed or not first.passed
        assert {found.id for found in second.regressions} <= {found.id for found in first.regressions}

    @given(CASES, CASES, CASES, NAMES)
    def test_a_verdict_survives_being_stored(
        self,
        bare: list[tuple[str, Outcome]],
        before: list[tuple[str, Outcome]],
        after: list[tuple[str, Outcome]],
        names: list[str],
    ) -> None:
        verdict = judge(as_report(bare), as_report(before), as_report(after), names)
        assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
        stored: Mapping[str, object] = as_report(bare).model_dump(mode="json")
        assert TestReport.model_validate(stored).by_id == as_report(bare).by_id
