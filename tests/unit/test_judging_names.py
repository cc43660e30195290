"""The names of must-pass tests, and the tests they mean."""

import pytest

from models.domain.judging import judge, resolve
from models.domain.testing import normal_id
from tests.fixtures.reports import BUG, OLD, P, report


class TestNames:
    @pytest.mark.parametrize("name", [BUG, "test_by_zero", "TestDivide::test_by_zero", "test_calc.py::" + BUG[20:]])
    def test_exact_or_a_suffix_at_a_boundary(self, name: str) -> None:
        assert resolve([name], [OLD, BUG]) == {name: (BUG,)}

    def test_a_suffix_inside_a_word_is_none(self) -> None:
        assert resolve(["add"], [OLD]) == {"add": ()}

    def test_exact_wins_over_longer_ids(self) -> None:
        assert resolve(["a::test"], ["a::test", "b/a::test"]) == {"a::test": ("a::test",)}

    def test_ambiguous_fails_and_shows_the_choices(self) -> None:
        both = report(("a.py::test", P), ("b.py::test", P))
        verdict = judge(both, both, both, ["test"], pass_to_pass=True)
        assert verdict.reasons == ("must-pass test 'test' is ambiguous at the patch: it may be a.py::test, b.py::test",)

    def test_a_parametrised_test_is_named_with_its_parameters(self) -> None:
        cases = report(("a.py::test_m[1]", P), ("a.py::test_m[2]", P))
        [reason] = judge(cases, cases, cases, ["test_m"], pass_to_pass=True).reasons
        assert reason.endswith("there are a.py::test_m[1], a.py::test_m[2]: name them with their parameters")
        assert judge(cases, cases, cases, ["test_m[1]"], pass_to_pass=True).passed

    def test_only_the_first_of_very_many_choices_are_named(self) -> None:
        many = report(*((f"{number}::test", P) for number in range(50)))
        [reason] = judge(many, many, many, ["test"], pass_to_pass=True).reasons
        assert reason.count("::test") == 10
        assert reason.endswith(" and others")

    def test_hostile_ids_cost_no_more_than_their_length(self) -> None:
        ids = [f"{number}{'.' * 1_000_000}" for number in range(3)]
        assert resolve(["x", "." * 256], ids) == {"x": (), "." * 256: tuple(ids)}
        assert resolve([], ids) == {}

    def test_many_names_that_fit_all_of_many_ids(self) -> None:
        names = [":".join("a" * length) for length in range(1, 128)]
        found = resolve(names, [f"{number}:{names[-1]}" for number in range(50_000)])
        assert all(len(found[name]) > 10 for name in names)

    def test_go_subtests(self) -> None:
        ids = ["example.com/m/calc::TestAdd/zero", "example.com/m/calc::TestAdd"]
        assert resolve(["TestAdd/zero", "TestAdd"], ids) == {"TestAdd/zero": (ids[0],), "TestAdd": (ids[1],)}

    @pytest.mark.parametrize(
        ("name", "normal"),
        [
            ("README.rst::line:12,column:1", "README.rst::line:*,column:*"),
            ("src/lib.rs - add (line 40)", "src/lib.rs - add (line *)"),
            ("t.py::test_wrap[line=5]", "t.py::test_wrap[line=5]"),
            ("t.py::test[<A object at 0x7f00aa12>]", "t.py::test[<A object at 0x*>]"),
            ("t.py::test_inline 5", "t.py::test_inline 5"),
        ],
    )
    def test_ids_are_free_of_what_moves(self, name: str, normal: str) -> None:
        assert normal_id(name) == normal == normal_id(normal)
