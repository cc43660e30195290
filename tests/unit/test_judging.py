"""Fail-to-pass and pass-to-pass, as the issue words them."""

import pytest

from models.domain.judging import MAX_REPEATED, Flaky, judge, settle, still_failing, suspects, unrepeated
from models.domain.testing import Outcome
from tests.fixtures.reports import AFTER, BARE, BEFORE, BUG, OLD, E, F, P, S, exits, report


class TestMustPass:
    def test_fails_before_and_passes_after(self) -> None:
        verdict = judge(BARE, BEFORE, AFTER, [BUG])
        assert (verdict.passed, verdict.reasons) == (True, ())
        [proof] = verdict.must_pass
        assert (proof.id, proof.before, proof.after) == (BUG, "failed", "passed")
        assert verdict.counts["after"] == {"passed": 2, "failed": 0, "error": 0, "skipped": 0}

    @pytest.mark.parametrize("outcome", [F, E])
    def test_absent_or_broken_before_counts_as_failing(self, outcome: Outcome) -> None:
        assert judge(BARE, BARE, AFTER, [BUG]).passed
        assert judge(BARE, report((OLD, P), (BUG, outcome)), AFTER, [BUG]).passed

    @pytest.mark.parametrize("outcome", [F, E, S])
    def test_anything_but_a_pass_after_fails(self, outcome: Outcome) -> None:
        verdict = judge(BARE, BEFORE, report((OLD, P), (BUG, outcome)), [BUG])
        assert verdict.reasons == (f"must-pass test {BUG!r} does not pass at the patch: {outcome}",)

    def test_absent_after_fails(self) -> None:
        assert judge(BARE, BEFORE, BARE, [BUG]).reasons == (f"must-pass test {BUG!r} is absent at the patch",)

    def test_one_that_passes_before_proves_nothing(self) -> None:
        verdict = judge(AFTER, AFTER, AFTER, [BUG])
        assert not verdict.passed
        assert "it proves nothing; if that is meant, say `pass_to_pass`" in verdict.reasons[0]

    def test_pass_to_pass_lets_it_stand(self) -> None:
        assert judge(AFTER, AFTER, AFTER, [BUG], pass_to_pass=True).passed

    def test_a_weakened_test_passes_before_already(self) -> None:
        assert not judge(report((BUG, F)), report((BUG, P)), report((BUG, P)), [BUG]).passed

    def test_skipped_before_proves_nothing(self) -> None:
        verdict = judge(BARE, report((OLD, P), (BUG, S)), AFTER, [BUG])
        assert verdict.reasons == (f"must-pass test {BUG!r} is skipped before the patch: it proves nothing",)

    def test_every_case_of_the_name_must_pass(self) -> None:
        assert not judge(BARE, BEFORE, report((OLD, P), (BUG, P), (BUG, F)), [BUG]).passed

    def test_one_case_failing_before_is_enough(self) -> None:
        twice = report((OLD, P), (BUG, P), (BUG, P))
        assert judge(BARE, report((OLD, P), (BUG, P), (BUG, F)), twice, [BUG]).passed

    def test_a_before_run_that_was_stopped_shows_nothing(self) -> None:
        stopped = report((OLD, P), stopped="it ran longer than 5 s", exit_code=None)
        verdict = judge(BARE, stopped, AFTER, [BUG])
        assert verdict.reasons == ("the run before the patch was stopped: it ran longer than 5 s",)
        assert judge(BARE, stopped, AFTER, []).passed

    def test_a_flaky_must_pass_test_still_has_to_pass(self) -> None:
        flaky = [Flaky(id=BUG, base="3/3", patch="1/3")]
        assert not judge(AFTER, BEFORE, report((OLD, P), (BUG, F)), [BUG], flaky=flaky).passed


class TestRegressions:
    @pytest.mark.parametrize(("outcome", "verb"), [(F, "fails"), (E, "fails"), (S, "is skipped")])
    def test_what_passed_at_the_base_must_not_change(self, outcome: Outcome, verb: str) -> None:
        verdict = judge(BARE, BEFORE, report((OLD, outcome), (BUG, P)), [BUG])
        assert verdict.reasons == (f"1 test(s) passed at the base, and each {verb} at the patch: {OLD}",)

    def test_what_failed_at_the_base_may_go_on_failing(self) -> None:
        failing = report((OLD, F), (BUG, P))
        assert judge(report((OLD, F)), report((OLD, F), (BUG, F)), failing, [BUG]).passed

    def test_a_removed_test_is_a_regression(self) -> None:
        verdict = judge(BARE, BEFORE, report((BUG, P)), [BUG])
        assert verdict.reasons == (f"1 test(s) passed at the base, and each is missing at the patch: {OLD}",)

    def test_unless_the_patch_removes_its_file(self) -> None:
        verdict = judge(report(("old.py::t", P), (OLD, P)), BEFORE, AFTER, [BUG], asked_files={"old.py"})
        assert verdict.passed
        assert verdict.excused == ("old.py::t",)
        assert verdict.notes == ("1 test(s) went from files that the patch changes: old.py::t",)

    def test_a_test_may_go_from_a_test_file_that_a_human_is_asked_about(self) -> None:
        gone = judge(BARE, BEFORE, report((BUG, P)), [BUG], asked_files={"tests/test_calc.py"})
        assert (gone.passed, gone.excused) == (True, (OLD,))
        assert suspects(BARE, report((BUG, P)), {"tests/test_calc.py"}) == ()

    def test_but_not_because_the_file_cannot_be_collected(self) -> None:
        broken = report(("tests/test_calc.py", E), ("other.py::t", P))
        verdict = judge(BARE, BARE, broken, [], asked_files={"tests/test_calc.py"})
        assert (verdict.passed, verdict.excused) == (False, ())
        assert suspects(BARE, broken, {"tests/test_calc.py"}) == (OLD,)

    def test_nothing_of_a_stopped_run_is_repeated(self) -> None:
        stopped = report(stopped="it ran longer than 2 s", exit_code=None)
        assert (suspects(BARE, stopped), suspects(stopped, AFTER)) == ((), ())

    def test_nor_where_the_mission_names_it(self) -> None:
        verdict = judge(BARE, BEFORE, report((OLD, P)), [BUG], asked_files={"tests/test_calc.py"})
        assert verdict.reasons == (f"must-pass test {BUG!r} is absent at the patch",)

    def test_a_removed_file_excuses_no_failing_test(self) -> None:
        assert not judge(report((OLD, P)), BEFORE, report((OLD, F)), [], asked_files={"tests/test_calc.py"}).passed

    def test_equal_ids_are_compared_as_multisets(self) -> None:
        mixed = report((OLD, P), (OLD, F))
        assert judge(mixed, mixed, mixed, []).passed
        assert not judge(mixed, mixed, report((OLD, F), (OLD, F)), []).passed
        assert not judge(report((OLD, P)), mixed, mixed, []).passed

    def test_a_flaky_test_is_named_and_not_counted(self) -> None:
        flaky = (Flaky(id=OLD, base="3/3", patch="2/3"),)
        verdict = judge(BARE, BEFORE, report((OLD, F), (BUG, P)), [BUG], flaky=flaky)
        assert (verdict.passed, verdict.flaky, verdict.regressions) == (True, flaky, ())

    def test_a_new_test_that_fails_is_noted(self) -> None:
        verdict = judge(BARE, BARE, report((OLD, P), ("new.py::t", F)), [])
        assert verdict.passed
        assert verdict.notes == ("1 test(s) unknown to the base fail at the patch: new.py::t",)

    def test_a_failure_that_no_test_explains(self) -> None:
        verdict = judge(BARE, BARE, report((OLD, P), exit_code=3), [])
        assert "ended with code 3 at the patch although every reported test passed" in verdict.reasons[0]

    def test_one_that_the_base_has_too_is_told(self) -> None:
        killed = report((OLD, P), exit_code=137)
        verdict = judge(killed, killed, killed, [])
        assert verdict.passed
        assert verdict.notes == (
            "the run at the base ended with code 137 although every reported test passed",
            "the run at the patch ended with code 137 although every reported test passed",
        )

    def test_many_are_cut_short(self) -> None:
        many = [(f"t.py::t{i}", P) for i in range(15)]
        assert judge(report(*many), BARE, report((OLD, P)), []).reasons[0].endswith("t.py::t9 and 5 more")


class TestUseless:
    def test_zero_tests_collected_fails(self) -> None:
        nothing = report(exit_code=5, trouble="no file matches reports/*.xml")
        verdict = judge(BARE, BEFORE, nothing, [BUG])
        assert verdict.reasons == ("no test was collected at the patch: no file matches reports/*.xml",)

    def test_an_empty_base_needs_must_pass_tests(self) -> None:
        broken = report(exit_code=1, trouble="install ended with code 1")
        assert "name must-pass tests" in judge(broken, broken, AFTER, []).reasons[0]
        verdict = judge(broken, broken, AFTER, [BUG])
        assert verdict.passed
        assert verdict.notes == ("no test ran at the base (install ended with code 1): nothing could regress",)

    @pytest.mark.parametrize(("index", "where"), [(0, "at the base"), (2, "at the patch")])
    def test_a_run_that_was_stopped(self, index: int, where: str) -> None:
        runs = [BARE, BEFORE, AFTER]
        runs[index] = report((OLD, P), stopped="memory", exit_code=None)
        verdict = judge(runs[0], runs[1], runs[2], [BUG])
        assert verdict.reasons == (f"the run {where} was stopped: memory",)

    def test_a_base_that_stands_for_two_runs_is_looked_at_too(self) -> None:
        stopped = report(stopped="memory", exit_code=None)
        assert not judge(stopped, stopped, stopped, []).passed

    def test_different_sources_cannot_be_compared(self) -> None:
        assert "not comparable" in judge(exits(0), exits(0), AFTER, []).reasons[0]


class TestLeftBehind:
    """What a run left behind speaks against nobody, and is said once for each run that did."""

    def test_each_run_that_left_something_is_named(self) -> None:
        runs = [run.model_copy(update={"left_behind": n}) for n, run in enumerate((BARE, BEFORE, AFTER))]
        verdict = judge(runs[0], runs[1], runs[2], [BUG])
        assert verdict.passed
        assert verdict.notes == (
            "the run before the patch left 1 process(es) behind, which were ended",
            "the run at the patch left 2 process(es) behind, which were ended",
        )

    def test_a_base_that_stands_for_two_runs_is_named_once(self) -> None:
        left = report((OLD, P), left_behind=3)
        notes = judge(left, left, BARE, []).notes
        assert notes == ("the run at the base left 3 process(es) behind, which were ended",)


class TestExitCodeAlone:
    def test_the_patch_must_end_with_zero(self) -> None:
        verdict = judge(exits(1), exits(1), exits(0), [])
        assert verdict.passed
        assert verdict.notes == ("exit codes: 1 at the base, 1 before, 0 at the patch",)
        assert "which tests ran" in verdict.cannot_tell[0]
        assert judge(exits(0), exits(0), exits(2), []).reasons == ("the test command ended with code 2 at the patch",)

    def test_names_cannot_be_checked(self) -> None:
        assert "must-pass tests cannot be checked" in judge(exits(1), exits(1), exits(0), [BUG]).reasons[0]

    def test_an_install_that_failed_is_said(self) -> None:
        verdict = judge(exits(0), exits(0), exits(1, trouble="install ended with code 1"), [])
        assert verdict.reasons == ("the run at the patch has no result: install ended with code 1",)


class TestAfterTheMerge:
    """`still_failing`: what the last look at the merged branch says."""

    @pytest.mark.parametrize("outcome", [F, E, S])
    def test_a_named_test_must_pass(self, outcome: Outcome) -> None:
        assert still_failing([BUG], BARE, AFTER) == []
        assert still_failing([BUG, OLD], BARE, report((OLD, P), (BUG, outcome))) == [BUG]
        assert still_failing([BUG], BARE, report((BUG, P), (BUG, outcome))) == [BUG]

    def test_a_name_that_means_none_or_several_does_not_pass(self) -> None:
        assert still_failing([BUG], BARE, BARE) == [BUG]
        both = report(("a.py::test", P), ("b.py::test", P))
        assert still_failing(["test", "a.py::test"], both, both) == ["test"]

    def test_others_do_not_count_where_tests_are_named(self) -> None:
        assert still_failing([BUG], BARE, report((OLD, F), (BUG, P))) == []

    def test_without_names_whatever_passed_at_the_base_must_pass(self) -> None:
        bare = report((OLD, P), (BUG, F))
        assert still_failing([], bare, bare) == []
        assert still_failing([], bare, report((OLD, F), (BUG, F), ("new::test", F))) == [OLD]
        assert still_failing([], bare, report((BUG, F))) == [OLD]

    @pytest.mark.parametrize("names", [[], [BUG]])
    def test_a_run_that_says_nothing_fails(self, names: list[str]) -> None:
        assert still_failing(names, BARE, report((BUG, P), stopped="too long", trouble="no report")) == ["too long"]
        assert still_failing(names, BARE, report((BUG, P), trouble="no report")) == ["no report"]

    @pytest.mark.parametrize(
        ("base", "merged", "found"), [(0, 0, []), (0, 3, ["the test command, with exit code 3"]), (1, 3, [])]
    )
    def test_by_its_exit_code_alone_it_may_be_no_worse_than_the_base(
        self, base: int, merged: int, found: list[str]
    ) -> None:
        assert still_failing([], exits(base), exits(merged)) == found


class TestSettling:
    broken = report((OLD, F))

    def test_only_what_regressed_is_repeated(self) -> None:
        bare = report((OLD, P), (BUG, F), ("gone.py::t", P))
        assert suspects(bare, report((OLD, F), (BUG, F)), {"gone.py"}) == (OLD,)

    def test_failing_every_time_is_real(self) -> None:
        assert settle([OLD], BARE, [BARE, BARE], [self.broken, self.broken]) == ()

    def test_a_pass_at_the_patch_makes_it_flaky(self) -> None:
        [flaky] = settle([OLD], BARE, [BARE, BARE], [self.broken, BARE])
        assert (flaky.base, flaky.patch) == ("3/3", "1/3")

    def test_a_failure_at_the_base_makes_it_flaky(self) -> None:
        [flaky] = settle([OLD], BARE, [self.broken, BARE], [self.broken, self.broken])
        assert (flaky.base, flaky.patch) == ("2/3", "0/3")

    def test_a_repeat_that_did_not_run_it_says_nothing(self) -> None:
        nothing = report(exit_code=4)
        assert settle([OLD], BARE, [nothing, nothing], [nothing, nothing]) == ()

    def test_a_base_that_always_failed_in_part_is_not_flaky(self) -> None:
        mixed, worse = report((OLD, P), (OLD, F)), report((OLD, F), (OLD, F))
        assert settle([OLD], mixed, [mixed, mixed], [worse, worse]) == ()


class TestBounds:
    """What is kept of a verdict is a page, however much a patch breaks; the reasons count all."""

    MANY = 3000

    def test_regressions(self) -> None:
        ids = [f"{number}.py::{'x' * 1900}" for number in range(self.MANY)]
        bare, after = (report(*((id, outcome) for id in ids)) for outcome in (P, F))
        verdict = judge(bare, after, after, [])
        assert len(verdict.regressions) == 1000
        assert verdict.reasons[0].startswith("3000 test(s) passed at the base")
        assert len(verdict.reasons[0]) < 5000

    def test_excused(self) -> None:
        ids = [f"old.py::{number}" for number in range(self.MANY)]
        bare, after = report(*((id, P) for id in ids)), report((OLD, P))
        verdict = judge(bare, bare, after, [], asked_files=["old.py"])
        assert len(verdict.excused) == 1000
        assert verdict.notes[0].startswith("3000 test(s) went from files that the patch changes")


def test_too_many_suspects_to_repeat_are_told_of() -> None:
    names = [f"tests/test_many.py::test_{number}" for number in range(MAX_REPEATED + 1)]
    assert unrepeated(names[1:]) == ()
    [note] = unrepeated(names)
    assert note.startswith("51 tests newly fail")
