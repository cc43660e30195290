"""Which parts of a patch could change how it is judged, and so ask a human."""

import pytest
from _pytest.config.findpaths import CONFIG_LOADERS_BY_NAME
from hypothesis import given
from hypothesis import strategies as st

from models.domain import law
from models.domain.law import split_test_files, touches
from models.domain.patches import ChangeKind, FileChange, PatchSummary


def change(path: str, kind: ChangeKind = ChangeKind.MODIFIED, old: str | None = None) -> FileChange:
    return FileChange(path, kind, old_path=old)


class TestTouchedLaw:
    def test_ordinary_change_touches_nothing(self) -> None:
        law = touches(PatchSummary((change("src/app.py"), change("tests/test_new.py", ChangeKind.ADDED))))
        assert not law.config
        assert not law.ci
        assert not law.existing_tests
        assert not law.judges

    def test_own_configuration(self) -> None:
        assert touches(PatchSummary((change(".mission-control.yaml", ChangeKind.ADDED),))).config
        assert touches(PatchSummary((change("x.yaml", ChangeKind.RENAMED, ".mission-control.yaml"),))).config

    @pytest.mark.parametrize(
        "path", [".github/workflows/ci.yml", ".gitlab-ci.yml", ".circleci/config.yml", "ops/Jenkinsfile", ".ci/run"]
    )
    def test_ci_files(self, path: str) -> None:
        assert touches(PatchSummary((change(path, ChangeKind.ADDED),))).ci == (path,)

    @pytest.mark.parametrize("path", ["tests/test_a.py", "pkg/test_a.py", "pkg/a_test.go", "a/testdata/x.json"])
    @pytest.mark.parametrize("kind", [ChangeKind.MODIFIED, ChangeKind.DELETED])
    def test_existing_tests(self, path: str, kind: ChangeKind) -> None:
        assert touches(PatchSummary((change(path, kind),))).existing_tests == (path,)

    def test_renaming_a_test_away(self) -> None:
        summary = PatchSummary((change("old.py", ChangeKind.RENAMED, "tests/test_a.py"),))
        assert touches(summary).existing_tests == ("tests/test_a.py",)

    @pytest.mark.parametrize(
        "path", ["conftest.py", *(f"{at}{name}" for name in CONFIG_LOADERS_BY_NAME for at in ("", "pkg/"))]
    )
    def test_test_configuration_counts_even_when_added(self, path: str) -> None:
        assert touches(PatchSummary((change(path, ChangeKind.ADDED),))).existing_tests == (path,)

    def test_the_projects_own_test_paths(self) -> None:
        summary = PatchSummary((change("checks/deep/a.txt"), change("spec/x/b_spec.rb"), change("tests/test_a.py")))
        law = touches(summary, test_paths=["checks/", "spec/**/*_spec.rb"])
        assert law.existing_tests == ("checks/deep/a.txt", "spec/x/b_spec.rb")


def judges(path: str, *lines: str, kind: ChangeKind = ChangeKind.MODIFIED) -> bool:
    """Whether a change of a file asks a human because it judges."""
    return path in touches(PatchSummary((change(path, kind),)), lines=lines).judges


class TestNamedByACommand:
    @pytest.mark.parametrize(
        ("line", "path"),
        [
            ("sh run_tests.sh", "run_tests.sh"),
            ("./x --all", "x"),
            ("/workspace/tools/x", "tools/x"),
            ("python tools/run.py -q", "tools/run.py"),
            ("cd tools && sh go.sh", "tools/go.sh"),
            ("set -e; bash <ci/all.sh|tee /out/log", "ci/all.sh"),
            ('bash "$PWD/ci/all.sh"', "ci/all.sh"),
            ("bash ${ROOT}/ci/all.sh", "ci/all.sh"),
            ("sh 'run tests.sh'", "run tests.sh"),
            ("sh run\\ tests.sh", "run tests.sh"),
            ("x=$(cat names) sh -c 'python `pwd`/a.py'", "names"),
            ("pytest --config-file=ci/own.toml", "ci/own.toml"),
            ("python -m tools.run", "tools/run.py"),
            ("PYTHONPATH=lib python -m tools.run", "lib/tools/run/__main__.py"),
            ("python -m tools.run", "tools/__init__.py"),
            ("python -mchecks", "checks/__main__.py"),
            ("python tools", "tools/__main__.py"),
            ("pytest -p own.plugin", "own/plugin.py"),
            ("for f in ci/*.sh; do sh $f; done", "ci/b.sh"),
            ("go run ./tools/check", "tools/check/main.go"),
            ("go run -race tools/check ./...", "tools/check/main.go"),
            ("inv test", "tasks.py"),
            ("setup\nsh b.sh", "b.sh"),
        ],
    )
    @pytest.mark.parametrize("kind", list(ChangeKind))
    def test_a_file_asks(self, line: str, path: str, kind: ChangeKind) -> None:
        assert judges(path, "true", line, kind=kind)

    @pytest.mark.parametrize(
        ("line", "path"),
        [
            ("python -m pytest --junitxml=/out/junit.xml", "src/app.py"),
            ("sh run_tests.sh", "old_run_tests.sh"),
            ("pytest tests", "tests/helpers.py"),
            ("inv test", "sh"),
            ("sh 'unclosed", "app.py"),
            ("go test ./...", "app.go"),
            ("pytest", "tasks.py"),
        ],
    )
    def test_others_do_not(self, line: str, path: str) -> None:
        assert not judges(path, line)

    @pytest.mark.parametrize("line", ["sh d/e.sh", "sh c/d/e.sh", "sh e.sh", "sh a/b/c/d/e.sh"])
    def test_a_word_may_be_any_end_of_a_path(self, line: str) -> None:
        assert judges("a/b/c/d/e.sh", line)
        assert not judges("a/b/c/d/e.sh", line.replace("e.sh", "xe.sh"), line.replace("sh ", "sh z/"))

    @pytest.mark.parametrize("line", [r"sh ci\ checks/run_*.sh", '"ci checks"/run_*.sh', r"sh ci?checks/run_[a\ b].sh"])
    def test_a_pattern_may_hold_a_blank(self, line: str) -> None:
        assert judges("ci checks/run_a.sh", line)

    def test_a_new_test_that_a_pattern_of_the_shell_takes_in_does_not(self) -> None:
        assert not judges("tests/test_b.py", "pytest tests/test_*.py", kind=ChangeKind.ADDED)

    @pytest.mark.parametrize(("most", "asks"), [(10 * 200, False), (10 * 200 - 1, True)])
    def test_of_more_patterns_than_are_compared_one_may_mean_any_file(
        self, most: int, asks: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(law, "MAX_COMPARED", most)
        assert judges("src/app.py", f"sh {'x' * 199}*") is asks

    @pytest.mark.parametrize(
        "line",
        [
            f"""bash -c 'echo {"long " * 200}; if [ -n "$CI" ]; then pytest; fi'""",
            " ".join(f"tests/unit/{name}/test_*.py" for name in range(100)),
        ],
    )
    def test_scripts_and_many_patterns_mean_no_other_file(self, line: str) -> None:
        assert not judges("app/report.py", line)

    @given(st.lists(st.text(max_size=20), max_size=3), st.text(min_size=1, max_size=20))
    def test_any_line_can_be_read(self, lines: list[str], path: str) -> None:
        judges(path, *lines)


class TestJudges:
    @pytest.mark.parametrize(
        "path",
        [
            *("Makefile", "sub/GNUmakefile", "rules.mk", "noxfile.py", "justfile", "web/package.json"),
            "jest.config.ts",
            *("setup.py", "sitecustomize.py", "a/usercustomize.py", "x.pth", "own.egg-info/entry_points.txt"),
            *("own-1.0.dist-info/METADATA", "__pycache__/calc.cpython-311.pyc", "go.mod", "go.work", "Cargo.toml"),
            *("vendor/github.com/stretchr/testify/assert/assertions.go", "build.rs", ".coveragerc", "vitest.config.ts"),
        ],
    )
    @pytest.mark.parametrize("kind", [ChangeKind.ADDED, ChangeKind.MODIFIED])
    def test_what_a_runner_takes_before_any_test(self, path: str, kind: ChangeKind) -> None:
        assert judges(path, kind=kind)

    @pytest.mark.parametrize(
        "path",
        [
            *("pytest.py", "pytest/__init__.py", "_pytest/__init__.py", "pkg/pluggy.py", "json.py", "src/re.py"),
            *("xml/__init__.py", "tests/unittest.py", "lib/pytest.cpython-311-x86_64-linux-gnu.so", "tools/shutil.py"),
        ],
    )
    def test_a_new_module_in_front_of_a_known_one(self, path: str) -> None:
        line = "python tools/run.py"
        assert judges(path, line, kind=ChangeKind.ADDED)
        moved = touches(PatchSummary((change(path, ChangeKind.RENAMED, "x.txt"),)), lines=(line,))
        assert path in (*moved.judges, *moved.existing_tests)

    @pytest.mark.parametrize("path", ["pkg/json.py", "html/index.html", "types/a.ts", "code/app.py", "docs/re.md"])
    def test_other_files_of_such_names(self, path: str) -> None:
        assert not judges(path, kind=ChangeKind.ADDED)

    def test_a_module_that_was_there_may_change(self) -> None:
        assert not judges("json.py")

    @pytest.mark.parametrize(
        ("path", "line", "asks"),
        [
            ("app/new_test.go", "func TestMain(m *testing.M) {", True),
            ("app/new_test.go", "func TestMainly(t *testing.T) {", False),
            ("app/main.go", "func TestMain() {", False),
            ("tests/test_new.py", "pytest_plugins = ['own']", True),
            ("tests/test_new.py", "# no pytest_plugins here", False),
        ],
    )
    def test_what_a_new_test_declares_about_others(self, path: str, line: str, asks: bool) -> None:
        other = "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-a\n+b\n"
        diff = f"{other}diff --git a/{path} b/{path}\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+{line}\n{other}"
        law = touches(PatchSummary((change(path, ChangeKind.ADDED),)), diff=diff.encode())
        assert law.judges == ((path,) if asks else ())


class TestSplit:
    def test_test_files_and_sources(self) -> None:
        summary = PatchSummary(
            (change("src/app.py"), change("tests/data/x.json"), change("conftest.py"), change("setup.cfg"))
        )
        assert split_test_files(summary) == (("tests/data/x.json", "conftest.py"), ("src/app.py", "setup.cfg"))

    @given(st.lists(st.sampled_from(["src/a.py", "tests/test_a.py", "b_test.go", "docs/x"]), unique=True))
    def test_every_path_is_in_exactly_one_part(self, paths: list[str]) -> None:
        tests, sources = split_test_files(PatchSummary(tuple(change(path) for path in paths)))
        assert sorted((*tests, *sources)) == sorted(paths)
