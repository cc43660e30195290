"""Reading what `go test -json` prints, whole or broken off, and refusing what hostile suites print."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.workbench.cases import MAX_CASES, TooLarge
from activities.workbench.gotest import GoTestReader

EVENTS = [
    f'{{"Action":"{action}","Package":"{package}"{test}}}'
    for action in ("run", "pass", "fail", "skip")
    for package in "pq"
    for test in ("", ',"Test":"T"', ',"Test":"U"')
    if test or action != "run"
]


def read_plainly(events: list[str]) -> list[tuple[str, str]]:
    """What `GoTestReader` finds, said in the plainest way."""
    outcomes = {"pass": "passed", "fail": "failed", "skip": "skipped"}
    running: list[tuple[str, str]] = []
    found: list[tuple[str, str]] = []
    failed: set[str] = set()
    for event in map(json.loads, events):
        action, package, test = event["Action"], event["Package"], event.get("Test")
        if action == "run":
            running = [*(one for one in running if one != (package, test)), (package, test)]
        elif test:
            running = [one for one in running if one != (package, test)]
            found.append((f"{package}::{test}", outcomes[action]))
            failed |= {package} if action == "fail" else set()
        elif action == "fail":
            found += [("::".join(one), "error") for one in running if one[0] == package]
            running = [one for one in running if one[0] != package]
            found += [] if package in failed else [(package, "error")]
    return found + [("::".join(one), "error") for one in running]


class TestGo:
    @staticmethod
    def run(folder: Path, files: dict[str, str]) -> GoTestReader:
        for name, content in {"go.mod": "module example.com/m\n\ngo 1.20\n", **files}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
        environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
        done = subprocess.run(
            ["go", "test", "-json", "./..."],
            cwd=folder,
            env=environment,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        reader = GoTestReader()
        for start in range(0, len(done.stdout), 1000):
            reader.feed(done.stdout[start : start + 1000])
        return reader

    def test_packages_subtests_panics_and_build_failures(self, tmp_path: Path) -> None:
        head = 'package p\nimport "testing"\n'
        reader = self.run(
            tmp_path,
            {
                "good/a_test.go": head + 'func TestA(t *testing.T) { t.Run("one", func(t *testing.T) {})\n'
                't.Run("two", func(t *testing.T) { t.Error("told you") }) }\n'
                'func TestS(t *testing.T) { t.Skip("later") }\n',
                "panics/b_test.go": head
                + 'func TestP(t *testing.T) { panic("oh") }\nfunc TestNever(t *testing.T) {}\n',
                "broken/c_test.go": head + "func TestB(t *testing.T) { nowhere() }\n",
                "empty/d.go": "package p\n",
            },
        )
        cases = reader.cases()
        assert {case.id: case.outcome.value for case in cases} == {
            "example.com/m/good::TestA": "failed",
            "example.com/m/good::TestA/one": "passed",
            "example.com/m/good::TestA/two": "failed",
            "example.com/m/good::TestS": "skipped",
            "example.com/m/panics::TestP": "failed",
            "example.com/m/broken": "error",
        }
        messages = {case.id.rpartition("/")[2]: case.message for case in cases}
        assert "told you" in messages["two"]
        assert messages["broken"]

    def test_a_module_that_cannot_be_read_leaves_last_words(self, tmp_path: Path) -> None:
        reader = self.run(tmp_path, {"go.mod": "nonsense\n"})
        assert reader.cases() == ()
        assert reader.last_words == "go: errors parsing go.mod:; go.mod:1: unknown directive: nonsense"

    def test_last_words_are_several_lines_and_leave_out_what_tells_nothing(self) -> None:
        reader = GoTestReader()
        reader.feed(b"".join(b"line %d\n" % number for number in range(20)))
        reader.feed(b"go: downloading e.com/x v1.0.0\n\nFAIL\texample.com/m [build failed]\nFAIL\nexit status 1\n")
        assert reader.last_words == "; ".join(f"line {number}" for number in range(14, 20))

    def test_a_package_that_cannot_be_set_up_says_why(self, tmp_path: Path) -> None:
        reader = self.run(tmp_path, {"a_test.go": 'package p\nimport "testing"\nfunc TestA(t *testing.T) {}\n}\n'})
        [case] = reader.cases()
        assert case.outcome.value == "error"
        assert "expected declaration" in case.message

    def test_a_stream_that_breaks_off(self) -> None:
        reader = GoTestReader()
        reader.feed(b'{"Action":"run","Package":"p","Test":"TestA"}\n{"Action":"output","Package":"p","Tes')
        [case] = reader.cases()
        assert (case.id, case.outcome.value) == ("p::TestA", "error")
        assert case.message.startswith("it did not finish")

    @pytest.mark.parametrize(
        "line",
        [
            b"\xff\xfe\n",
            b"{" * 100_000 + b"\n",
            b'{"Action":[]}\n',
            b'{"Action":"pass","Package":{"a":1},"Test":"\\ud800\\u0000","Elapsed":1e999}\n',
            b'{"Action":"pass","Package":"p","Test":"T","Elapsed":1' + b"0" * 400 + b"}\n",
            b"x" * 3_000_000,
        ],
    )
    def test_nonsense_harms_nothing(self, line: bytes) -> None:
        reader = GoTestReader()
        reader.feed(line)
        for case in reader.cases():
            assert case.model_dump_json()
            assert "\0" not in case.id

    @pytest.mark.parametrize("end", ['{"Action":"fail","Package":"%d"}\n', ""])
    def test_very_many_packages_cost_no_more_than_their_number(self, end: str) -> None:
        reader = GoTestReader()
        for number in range(90_000):
            reader.feed(b'{"Action":"run","Package":"%d","Test":"T"}\n' % number)
        for number in range(90_000 if end else 0):
            reader.feed((end % number).encode())
        assert len(reader.cases()) == (180_000 if end else 90_000)

    @pytest.mark.parametrize(
        "line",
        [
            '{"Action":"pass","Package":"p","Test":"T"}\n',
            '{"Action":"run","Package":"%d","Test":"T"}\n',
            '{"Action":"run","Package":"p","Test":"%d"}\n',
            '{"Action":"output","Package":"%d","Output":"x"}\n',
        ],
    )
    def test_more_than_may_be_read_is_refused(self, line: str) -> None:
        reader = GoTestReader()
        for number in range(MAX_CASES + 1):
            reader.feed((line % number if "%d" in line else line).encode())
        with pytest.raises(TooLarge, match="more than 200000 cases"):
            reader.cases()

    def test_a_line_that_is_too_long_is_no_event(self) -> None:
        reader = GoTestReader()
        for _ in range(100):
            reader.feed(b"{" * 65536)
        reader.feed(b'\n{"Action":"pass","Package":"p","Test":"T"}\n')
        assert [case.id for case in reader.cases()] == ["p::T"]

    @given(st.lists(st.sampled_from(EVENTS), max_size=12), st.integers(1, 40))
    def test_cases_are_those_of_a_plain_reading(self, events: list[str], size: int) -> None:
        """However the stream is cut, each case is told that its events tell."""
        reader, stream = GoTestReader(), "".join(f"{event}\n" for event in events).encode()
        for start in range(0, len(stream), size):
            reader.feed(stream[start : start + size])
        assert sorted((case.id, case.outcome.value) for case in reader.cases()) == sorted(read_plainly(events))
