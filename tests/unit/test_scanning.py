"""What a patch is blamed for, what follows, and how SARIF is read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.scanning import (
    MAX_FINDINGS,
    Finding,
    Level,
    Scan,
    ScannerRun,
    Skipped,
    blamed,
    gather,
    parse_sarif,
)


def finding(
    line: int = 1, fingerprint: str = "f", path: str = "a.py", level: Level = Level.HIGH, end: int = 0
) -> Finding:
    return Finding(
        scanner="s",
        rule="R1",
        level=level,
        path=path,
        line=line,
        end_line=end or line,
        message="bad",
        fingerprint=fingerprint,
    )


class TestBlame:
    def test_what_was_there_before_is_not_blamed(self) -> None:
        assert blamed([finding(9)], [finding(3)], {"a.py": {5}}) == ()

    def test_a_finding_on_an_added_line_is(self) -> None:
        assert blamed([finding(5)], [finding(5)], {"a.py": {5}}) == (finding(5),)
        assert blamed([finding(4, end=6)], [finding(4, end=6)], {"a.py": {6}}) != ()

    def test_one_the_base_does_not_have_is(self) -> None:
        assert blamed([finding(9, "new")], [finding(9, "old")], {}) == (finding(9, "new"),)

    def test_of_equal_ones_as_many_are_old_as_the_base_has(self) -> None:
        head = [finding(1), finding(5), finding(9)]
        assert blamed(head, [finding(1)], {}) == (finding(5), finding(9))
        assert blamed(head, [finding(1), finding(2)], {"a.py": {1}}) == (finding(1),)

    @given(st.lists(st.integers(0, 9), max_size=5), st.integers(0, 9), st.integers(0, 9))
    def test_a_finding_is_new_where_one_of_its_lines_is_added(self, added: list[int], line: int, end: int) -> None:
        old = finding(line, end=end)
        touched = any(number in added for number in range(line, max(line, old.end_line) + 1))
        assert blamed([old], [old], {"a.py": added}) == ((old,) if touched else ())

    def test_findings_of_many_lines_cost_no_more_than_others(self) -> None:
        wide = [finding(1, str(number), end=1_000_000_000) for number in range(1000)]
        assert blamed(wide, wide, {"a.py": {2_000_000_000}}) == ()

    def test_a_renamed_file_keeps_its_past(self) -> None:
        assert blamed([finding(path="b.py")], [finding(path="a.py")], {}, {"a.py": "b.py"}) == ()
        assert blamed([finding(path="b.py")], [finding(path="a.py")], {}) != ()


class TestReport:
    def test_worst_first_and_bounded(self) -> None:
        low = [finding(line, level=Level.LOW) for line in range(MAX_FINDINGS)]
        scan = Scan(findings=(*low, finding(7)), scanners=(ScannerRun(name="s", version="1"),))
        report = gather(scan, Scan(skipped=(Skipped(name="t", reason="why"),)))
        assert report.findings[0] == finding(7)
        assert (len(report.findings), report.left_out) == (MAX_FINDINGS, 1)
        assert report.counts == {"high": 1, "medium": 0, "low": MAX_FINDINGS - 1}
        assert report.skipped[0].name == "t"

    def test_high_blocks_and_medium_asks(self) -> None:
        report = gather(Scan(findings=(finding(3), finding(4, level=Level.MEDIUM))))
        assert (report.blocking, report.counts["medium"]) == ((finding(3),), 1)
        assert report.reason == "1 new high finding(s): a.py:3 bad (R1)"
        assert gather(Scan(findings=(finding(4, level=Level.MEDIUM),))).reason == ""


def sarif(*results: dict[str, Any], rules: tuple[dict[str, Any], ...] = (), version: str = "2.1.0") -> bytes:
    driver = {"name": "Tool", "semanticVersion": "3.1", "rules": list(rules)}
    return json.dumps({"version": version, "runs": [{"tool": {"driver": driver}, "results": list(results)}]}).encode()


def result(uri: str = "src/a%20b.py", **more: Any) -> dict[str, Any]:
    place = {"artifactLocation": {"uri": uri}, "region": {"startLine": 4, "endLine": 6}}
    return {"ruleId": "R1", "locations": [{"physicalLocation": place}], "message": {"text": "found hunter2"}, **more}


class TestSarif:
    def test_a_result(self) -> None:
        rule = {"id": "R1", "shortDescription": {"text": "A secret in code"}}
        scanners, [found] = parse_sarif(sarif(result(level="error"), rules=(rule,)), "/workspace")
        assert scanners == [ScannerRun(name="Tool", version="3.1")]
        assert (found.path, found.line, found.end_line) == ("src/a b.py", 4, 6)
        assert (found.rule, found.level, found.message) == ("R1", Level.HIGH, "A secret in code")

    def test_what_was_found_is_not_kept(self) -> None:
        _, [found] = parse_sarif(sarif(result()), "/workspace")
        assert "hunter2" not in found.model_dump_json()

    @pytest.mark.parametrize("uri", ["file:///workspace/x/a.py", "/workspace/x/a.py", "./x/a.py", "x/a.py"])
    def test_paths_are_relative(self, uri: str) -> None:
        assert parse_sarif(sarif(result(uri)), "/workspace")[1][0].path == "x/a.py"

    @pytest.mark.parametrize(
        ("level", "rule", "expected"),
        [
            ("error", {}, Level.HIGH),
            ("warning", {}, Level.MEDIUM),
            ("note", {}, Level.LOW),
            (None, {}, Level.MEDIUM),
            (None, {"defaultConfiguration": {"level": "error"}}, Level.HIGH),
            ("note", {"properties": {"security-severity": "9.8"}}, Level.HIGH),
            ("error", {"properties": {"security-severity": "5.0"}}, Level.MEDIUM),
            ("error", {"properties": {"security-severity": "1"}}, Level.LOW),
        ],
    )
    def test_levels(self, level: str | None, rule: dict[str, Any], expected: Level) -> None:
        given = result(level=level) if level else result()
        _, [found] = parse_sarif(sarif(given, rules=({"id": "R1", **rule},)), "/workspace")
        assert found.level is expected

    def test_suppressions_in_the_source_do_not_count(self) -> None:
        assert len(parse_sarif(sarif(result(suppressions=[{"kind": "inSource"}])), "/w")[1]) == 1

    def test_only_failures_are_findings(self) -> None:
        assert parse_sarif(sarif(result(kind="pass")), "/w")[1] == []

    def test_a_result_without_a_place_is_kept(self) -> None:
        _, [found] = parse_sarif(sarif({"ruleId": "R9"}), "/w")
        assert (found.rule, found.path, found.line, found.message) == ("R9", "", 0, "R9")

    def test_a_rule_with_huge_words_is_read_in_no_time(self) -> None:
        rule = {"id": "R1", "shortDescription": {"text": ["x" * 4_000_000]}}
        _, found = parse_sarif(sarif(*[{"ruleId": "R1"}] * 25_000, rules=(rule,)), "/w")
        assert {one.message for one in found} == {"unknown"}

    @pytest.mark.parametrize(("number", "line"), [(10**400, 2**31 - 1), (-5, 0), ("1" * 4000, 2**31 - 1)])
    def test_a_line_that_no_file_has(self, number: int | str, line: int) -> None:
        place = {"physicalLocation": {"artifactLocation": {"uri": "a"}, "region": {"startLine": number}}}
        [found] = parse_sarif(sarif(result(locations=[place])), "/w")[1]
        assert found.line == line

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"<xml/>", "it is not JSON"),
            (b"[" * 100_000, "it is not JSON"),
            (b"[]", "it is not a JSON object"),
            (sarif(version="2.0.0"), "it is not SARIF 2.1.0"),
            (b'{"version": "2.1.0"}', "does not follow the SARIF schema"),
            (b'{"version": "2.1.0", "runs": [{"tool": 5}]}', "does not follow the SARIF schema"),
            (sarif(result(), rules=({"id": "R1", "properties": {"security-severity": "0" * 999}},)), "does not follow"),
            (sarif(*[{}] * 25_001), "more than 25000 results"),
            (b" " * (16 * 1024**2 + 1), "longer than 16777216 bytes"),
            (sarif(result(locations=[5])), "does not follow the SARIF schema"),
            (sarif(result(), rules=({"id": "R1", "properties": {"security-severity": "x"}},)), "does not follow"),
        ],
    )
    def test_anything_else_is_refused(self, data: bytes, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            parse_sarif(data, "/workspace")
