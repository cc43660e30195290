"""Reading what test runners write, and refusing what hostile ones write."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from activities.workbench.cases import Cases
from activities.workbench.junit import JunitRefused, parse_junit
from activities.workbench.reports import clear, discard, read_files, read_junit
from models.domain.errors import StageFailed
from models.domain.testing import TestCase

SUITE = """
import pytest
class TestC:
    class TestD:
        def test_n(self): pass
    @pytest.mark.parametrize("p", [1, "a::b", "x.y"])
    def test_m(self, p): pass
def test_f(): assert 0, "told you"
@pytest.fixture
def bad(): yield; raise ValueError
def test_e(bad): pass
@pytest.mark.skip
def test_s(): pass
"""
BOMB = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<testsuite><testcase name="&b;"/></testsuite>"""


def parse(text: str | bytes) -> dict[str, str]:
    data = text.encode() if isinstance(text, str) else text
    return {case.id: case.outcome.value for case in cases_in([data])}


def cases_in(chunks: Iterable[bytes]) -> list[TestCase]:
    cases = Cases()
    parse_junit(chunks, cases)
    return cases.found


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(StageFailed) as refused:
        act()
    assert refused.value.code == "report_refused"
    return refused.value.message


@pytest.fixture(scope="module", params=["xunit1", "xunit2"])
def reported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[TestCase]:
    folder = tmp_path_factory.mktemp("suite")
    (folder / "tests").mkdir()
    (folder / "tests/test_x.py").write_text(SUITE)
    (folder / "tests/test_broken.py").write_text("import nowhere")
    (folder / "README.rst").write_text(">>> 1\n1\n")
    options = ["-p", "no:cacheprovider", "--continue-on-collection-errors", "--doctest-glob=*.rst"]
    family = ["-o", f"junit_family={request.param}", "--junitxml=r.xml"]
    subprocess.run([sys.executable, "-m", "pytest", *options, *family], cwd=folder, check=False, capture_output=True)
    return list(read_junit(folder, "r.xml"))


class TestPytest:
    def test_ids_are_node_ids(self, reported: list[TestCase]) -> None:
        in_modules = {case.id for case in reported if "test_x" in case.id}
        assert in_modules == {
            "tests/test_x.py::TestC::TestD::test_n",
            "tests/test_x.py::TestC::test_m[1]",
            "tests/test_x.py::TestC::test_m[a::b]",
            "tests/test_x.py::TestC::test_m[x.y]",
            "tests/test_x.py::test_f",
            "tests/test_x.py::test_e",
            "tests/test_x.py::test_s",
        }

    def test_outcomes_and_messages(self, reported: list[TestCase]) -> None:
        found = {case.id.rpartition("::")[2]: case for case in reported}
        shown = {name: found[name].outcome.value for name in ("test_n", "test_f", "test_e", "test_s")}
        assert shown == {"test_n": "passed", "test_f": "failed", "test_e": "error", "test_s": "skipped"}
        assert "told you" in found["test_f"].message
        assert found["test_n"].seconds >= 0

    def test_a_module_that_cannot_be_collected_is_an_error(self, reported: list[TestCase]) -> None:
        [broken] = [case for case in reported if "test_broken" in case.id]
        assert broken.outcome.value == "error"


class TestJunit:
    def test_other_tools(self) -> None:
        text = """<testsuites xmlns="urn:x"><testsuite name="m" file="src/a.test.js">
        <testcase classname="Adder adds" name="two" time="1,000.5"/></testsuite>
        <testsuite name="n"><testcase classname="com.acme.CalcTest" name="adds" time="nan"><failure/></testcase>
        <testcase name="alone" status="notrun"/></testsuite></testsuites>"""
        assert parse(text) == {
            "src/a.test.js::Adder adds::two": "passed",
            "com.acme.CalcTest::adds": "failed",
            "alone": "skipped",
        }
        assert [case.seconds for case in cases_in([text.encode()])] == [1000.5, 0, 0]

    def test_the_worst_of_a_case_counts(self) -> None:
        assert parse('<testcase name="a"><skipped/><error/><failure/></testcase>') == {"a": "error"}

    def test_doctest_lines_are_normalised_and_equal_ids_kept(self) -> None:
        text = "".join(f'<testcase file="R.md" name="line:{line},column:1"/>' for line in (3, 9))
        assert [case.id for case in cases_in([f"<t>{text}</t>".encode()])] == ["R.md::line:*,column:*"] * 2

    def test_paths_of_the_sandbox_are_made_relative(self) -> None:
        assert parse('<testcase file="/workspace/t/test_a.py" classname="t.test_a" name="b"/>') == {
            "t/test_a.py::b": "passed"
        }

    def test_text_is_cut_and_cleaned(self) -> None:
        [case] = cases_in([f'<testcase name="{"x" * 9000}"><failure>{"y" * 9000}</failure></testcase>'.encode()])
        assert (len(case.id), len(case.message)) == (2000, 300)

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (BOMB, "declares a DTD or entities"),
            (b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><testsuite/>', "declares a DTD or entities"),
            (b"<testsuite><testcase", "not well-formed"),
            (b"", "not well-formed"),
            (b"\x00\x01", "not well-formed"),
            (b"<a>" * 1_000_000, "nested more than 100 elements"),
            (b"<t>" + b"<testcase/>" * 200_001 + b"</t>", "more than 200000 cases"),
            (
                b"<testsuite file='" + b"f" * 2000 + b"'>" + b"<testcase name='a'/>" * 50_000 + b"</testsuite>",
                "longer than 33554432 bytes",
            ),
        ],
    )
    def test_hostile_files_are_refused(self, data: bytes, said: str) -> None:
        with pytest.raises(JunitRefused, match=said):
            cases_in([data])

    def test_a_tag_that_never_ends_is_refused(self) -> None:
        with pytest.raises(JunitRefused, match="a tag is longer than 1048576 bytes"):
            cases_in([b"<testsuite name='", *[b"x" * 65536] * 1000])

    def test_a_suite_with_a_huge_name_is_read_in_no_time(self) -> None:
        data = b"<testsuite file='" + b"f/" * 4_000_000 + b".py'>" + b"<testcase name='a'/>" * 15_000 + b"</testsuite>"
        assert {len(case.id) for case in cases_in([data])} == {2000}

    @pytest.mark.parametrize("seconds", ["1e308", "-1", "inf", "1" * 400])
    def test_a_time_that_nobody_measured_is_none(self, seconds: str) -> None:
        assert [case.seconds for case in cases_in([f'<testcase name="a" time="{seconds}"/>'.encode()])] == [0]


class TestFinding:
    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        for name in ("a.xml", "r/b.xml", "r/deep/c.xml", "r/.hidden.xml", "r/notes.txt", ".git/d.xml"):
            path = tmp_path / "tree" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f'<testsuite><testcase name="{name}"/></testsuite>')
        return tmp_path / "tree"

    @pytest.mark.parametrize(
        ("pattern", "names"),
        [
            ("a.xml", ["a.xml"]),
            ("./r/*.xml", ["r/b.xml"]),
            ("**/*.xml", ["a.xml", "r/b.xml", "r/deep/c.xml"]),
            ("r/**/*.xml", ["r/b.xml", "r/deep/c.xml"]),
            ("r/**", ["r/b.xml", "r/deep/c.xml"]),
            ("r/.h*.xml", ["r/.hidden.xml"]),
            ("none.xml", []),
            ("none/*.xml", []),
        ],
    )
    def test_globs(self, tree: Path, pattern: str, names: list[str]) -> None:
        (tree / "r/notes.txt").unlink()
        (tree / "r/deep/folder.xml").mkdir()
        assert [case.id for case in read_junit(tree, pattern)] == names

    def test_stale_reports_are_discarded(self, tree: Path) -> None:
        (tree / "r/link.xml").symlink_to("/etc/passwd")
        (tree / "r/folder.xml").mkdir()
        discard(tree, "r/*.xml")
        assert sorted(path.name for path in (tree / "r").iterdir()) == [
            ".hidden.xml",
            "deep",
            "folder.xml",
            "notes.txt",
        ]
        assert Path("/etc/passwd").exists()

    async def test_a_folder_is_emptied_however_deep(self, tmp_path: Path) -> None:
        folder = tmp_path / "out"
        deep = "x/" * 1500
        await (await asyncio.create_subprocess_exec("mkdir", "-p", f"{folder}/{deep}")).wait()
        (folder / "link").symlink_to("/")
        (folder / "closed").mkdir(mode=0)
        await clear(folder)
        assert list(folder.iterdir()) == []


class TestHostileFiles:
    @pytest.fixture
    def secret(self, tmp_path: Path) -> Path:
        path = tmp_path / "secret.xml"
        path.write_text('<testsuite><testcase name="secret"/></testsuite>')
        return path

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        (tmp_path / "tree").mkdir()
        return tmp_path / "tree"

    def test_a_link_is_not_followed(self, tree: Path, secret: Path) -> None:
        (tree / "r.xml").symlink_to(secret)
        said = refusal(lambda: read_junit(tree, "r.xml"))
        assert said == "The report 'r.xml' was refused: it is a symbolic link."

    def test_a_linked_folder_is_not_entered(self, tree: Path, secret: Path) -> None:
        (tree / "r").symlink_to(secret.parent)
        assert read_junit(tree, "r/secret.xml") == ()
        assert read_junit(tree, "**/secret.xml") == ()

    def test_a_pipe_is_not_waited_for(self, tree: Path) -> None:
        os.mkfifo(tree / "r.xml")
        assert "not a regular file" in refusal(lambda: read_junit(tree, "r.xml"))

    def test_a_folder_is_no_report(self, tree: Path) -> None:
        (tree / "r.xml").mkdir()
        assert read_junit(tree, "r.xml") == ()

    def test_too_large(self, tree: Path) -> None:
        with (tree / "r.xml").open("wb") as file:
            file.write(b"<testsuite>")
            for _ in range(65):
                file.write(b" " * 1024 * 1024)
        assert "more than 67108864 bytes" in refusal(lambda: read_junit(tree, "r.xml"))

    def test_a_bomb(self, tree: Path) -> None:
        (tree / "r.xml").write_bytes(BOMB)
        assert refusal(lambda: read_junit(tree, "*.xml")).startswith("The report 'r.xml' was refused: it declares")

    def test_too_many_files(self, tree: Path) -> None:
        for number in range(501):
            (tree / f"{number}.xml").write_text("<testsuite/>")
        assert "more than 500 files" in refusal(lambda: read_junit(tree, "*.xml"))

    def test_no_message_names_a_path_of_the_host(self, tree: Path) -> None:
        (tree / "r.xml").write_text("<")
        assert not re.search(re.escape(str(tree)), refusal(lambda: read_junit(tree, "r.xml")))

    def test_files_are_read_whole(self, tree: Path) -> None:
        (tree / "a.sarif").write_bytes(b"{}")
        assert read_files(tree, "*.sarif") == {"a.sarif": b"{}"}
