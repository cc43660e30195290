"""The repository's own file, what is recognised without it, and whose word counts."""

import pytest

from models.domain.command_lines import narrowed, reporting
from models.domain.errors import InvalidInput
from models.domain.repo_config import (
    Origin,
    RepoConfig,
    check_repo_config,
    detect,
    effective_commands,
    parse_repo_config,
)
from models.domain.testing import Source

NOBODY = RepoConfig()
PYTEST = "python -m pytest --junitxml=/out/junit.xml"


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidInput) as refused:
        parse_repo_config(data)
    assert refused.value.code == "repo_config_invalid"
    assert refused.value.message.startswith(".mission-control.yaml: ")
    return refused.value.message


class TestParsing:
    def test_all_keys(self) -> None:
        text = b"""
setup: pip install -r requirements.txt
install: pip install --no-deps .
test: |
  make test
  make doctest
stress: python bench.py
probe: ./probe
scan: semgrep --sarif -o /out/s.sarif
junit: reports/**/*.xml
timeout: 10m
test_paths: [tests, "**/check_*.py"]
"""
        config = parse_repo_config(text)
        assert config.test == "make test\nmake doctest"
        assert config.timeout == 600
        assert config.test_paths == ("tests", "**/check_*.py")
        assert len(config.given) == 9

    @pytest.mark.parametrize("data", [b"", b"# nothing yet\n", b"---\n"])
    def test_an_empty_file_says_nothing(self, data: bytes) -> None:
        assert parse_repo_config(data) == NOBODY

    @pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1.5", 1.5), ("'45s'", 45), ("2h", 7200)])
    def test_durations(self, text: str, seconds: float) -> None:
        assert parse_repo_config(f"timeout: {text}".encode()).timeout == seconds

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"tests: make", "`tests` is not a known key (did you mean `test`?)"),
            (b"foo: 1", "(known keys: setup, install, test"),
            (b"test: [a]", "`test`: Input should be a valid string"),
            (b"test: yes", "`test`"),
            (b"test: '  '", "must be a shell command"),
            (b"timeout: -1", "`timeout`"),
            (b"timeout: 25h", "`timeout`"),
            (b"timeout: true", "`timeout`"),
            (b"timeout: soon", "such as 10m"),
            (b"timeout: .nan", "`timeout`"),
            (b"junit: /etc/passwd", "inside the repository"),
            (b"junit: ../x.xml", "inside the repository"),
            (b"junit: /out/../x.xml", "inside the repository"),
            (b"test_paths: [/tests]", "`test_paths.0`"),
            (b"test_paths: tests", "`test_paths`"),
            (b"- test", "not a list"),
            (b"test: a\ntest: b", "line 2: 'test' is given twice"),
            (b"test: 'a", "line "),
            (b"a: &x [1]\nb: *x", "line 2: aliases"),
            (b"test: !!python/object/apply:os.system [id]", "could not determine a constructor"),
            (b"[" * 30_000, "nested too deeply"),
            (b"test: \xff", "not UTF-8"),
            (b"test: \x01", "characters that YAML does not allow"),
            (b"timeout: " + b"9" * 5000, "cannot be read"),
            (b"test: a\n? [a]\n: b", "line 2: a key must be plain text"),
            (b"test: !!int ''", "line 1: a value cannot be read"),
            (b"test: !!float ''", "line 1: a value cannot be read"),
            (b"test: !!bool xx", "line 1: a value cannot be read"),
            (b"test: !!timestamp xx", "line 1: a value cannot be read"),
            (b"test: a\ntimeout: !!set [a]", "line 2: expected a mapping"),
            (b"test: !!map [x]", "line 1: expected a mapping"),
            (b"!!map x", "line 1: expected a mapping"),
            (b'test: a\nsetup: "a\\0b"', "line 2: the character U+0000 may not stand here"),
            (b'"\\0": a', "line 1: the character U+0000"),
            (b'test: "\\ud800"', "line 1: the character U+D800"),
            (b'test: "\\e[2J"', "line 1: the character U+001B"),
            (b"x" * 70_000, "70000 bytes; at most 65536"),
        ],
    )
    def test_bad_input_is_refused_by_name(self, data: bytes, said: str) -> None:
        assert said in refusal(data)

    def test_an_alias_bomb_costs_nothing(self) -> None:
        lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
        assert "aliases" in refusal("\n".join(lines).encode())

    def test_data_from_elsewhere_is_held_to_the_same_rules(self) -> None:
        assert check_repo_config({"timeout": "5m"}, "commands").timeout == 300
        with pytest.raises(InvalidInput, match=r"^commands: `tset` .*did you mean `test`"):
            check_repo_config({"tset": "x"}, "commands")


class TestDetection:
    @pytest.mark.parametrize("name", ["pyproject.toml", "setup.py", "requirements.txt", "pkg/tests/test_a.py"])
    def test_python(self, name: str) -> None:
        assert detect([name, "README.md"]) == RepoConfig(test=PYTEST, junit="/out/junit.xml")

    def test_python_with_a_source_folder(self) -> None:
        assert detect(["pyproject.toml", "src/pkg/__init__.py"]).test == "PYTHONPATH=src " + PYTEST

    def test_go(self) -> None:
        assert detect(["go.mod", "main.go"]) == RepoConfig(test="go test -json ./...")

    @pytest.mark.parametrize("names", [[], ["README.md"], ["go.mod", "pyproject.toml"], ["sub/go.mod"]])
    def test_neither_or_both(self, names: list[str]) -> None:
        assert detect(names) == NOBODY


class TestWhoseWord:
    def test_the_registration_wins_over_the_file_key_by_key(self) -> None:
        registered = RepoConfig(test="make check", timeout=60)
        file = RepoConfig(test="make test", stress="make stress", timeout=600)
        commands = effective_commands(registered, file, detect(["go.mod"]))
        assert (commands.test, commands.stress, commands.timeout) == ("make check", "make stress", 60)
        assert commands.origins == {
            "test": Origin.REPOSITORY,
            "stress": Origin.FILE,
            "timeout": Origin.REPOSITORY,
        }

    def test_an_override_wins_over_all_and_is_marked(self) -> None:
        commands = effective_commands(
            RepoConfig(test="make check"), RepoConfig(stress="x"), NOBODY, RepoConfig(test="make quick", timeout=5)
        )
        assert (commands.test, commands.timeout) == ("make quick", 5)
        assert commands.origins["test"] is commands.origins["timeout"] is Origin.OVERRIDE

    def test_detection_fills_in_where_nobody_names_a_test(self) -> None:
        commands = effective_commands(NOBODY, RepoConfig(stress="x"), detect(["setup.py"]))
        assert (commands.test, commands.junit, commands.results) == (PYTEST, "/out/junit.xml", Source.JUNIT)
        assert commands.origins == {"test": Origin.DETECTED, "junit": Origin.DETECTED, "stress": Origin.FILE}

    def test_detected_reports_do_not_mix_with_a_given_test(self) -> None:
        commands = effective_commands(NOBODY, RepoConfig(test="make test"), detect(["setup.py"]))
        assert (commands.junit, commands.results) == (None, Source.EXIT_CODE)

    def test_no_test_command(self) -> None:
        with pytest.raises(InvalidInput, match=r"Give `test` in \.mission-control\.yaml") as refused:
            effective_commands(NOBODY, None, NOBODY)
        assert refused.value.code == "no_test_command"

    @pytest.mark.parametrize("registered", [RepoConfig(test="x", timeout=60), RepoConfig(test="x")])
    def test_a_mission_may_only_shorten_the_time(self, registered: RepoConfig) -> None:
        with pytest.raises(InvalidInput, match="only shorten") as refused:
            effective_commands(registered, None, NOBODY, RepoConfig(timeout=3600))
        assert refused.value.code == "timeout_loosened"

    def test_commands_survive_being_stored(self) -> None:
        commands = effective_commands(RepoConfig(test="x", test_paths=("t",)), None, NOBODY)
        assert type(commands).model_validate_json(commands.model_dump_json()) == commands


class TestReporting:
    @pytest.mark.parametrize(
        ("line", "junit", "expected"),
        [
            ("pytest -q", None, ("pytest -q --junitxml=/out/junit.xml", "/out/junit.xml", Source.JUNIT)),
            (
                "A=1 python3 -m pytest",
                None,
                ("A=1 python3 -m pytest --junitxml=/out/junit.xml", "/out/junit.xml", Source.JUNIT),
            ),
            ("pytest --junitxml=r.xml", None, ("pytest --junitxml=r.xml", "r.xml", Source.JUNIT)),
            ("pytest a && pytest b", None, ("pytest a && pytest b", None, Source.EXIT_CODE)),
            ("pytest 'a", None, ("pytest 'a", None, Source.EXIT_CODE)),
            ("make test", "r/*.xml", ("make test", "r/*.xml", Source.JUNIT)),
            ("go test ./...", None, ("go test -json ./...", None, Source.GOTEST)),
            ("go test -json ./...", None, ("go test -json ./...", None, Source.GOTEST)),
            ("go vet ./...", None, ("go vet ./...", None, Source.EXIT_CODE)),
            ("A=1", None, ("A=1", None, Source.EXIT_CODE)),
        ],
    )
    def test_plain_commands_report_by_name(
        self, line: str, junit: str | None, expected: tuple[str, str | None, Source]
    ) -> None:
        assert reporting(line, junit) == expected


class TestNarrowing:
    ids = ("tests/a.py::t[1 2]", "tests/a.py::u", "tests/b c.py::t")

    def test_pytest_by_file(self) -> None:
        assert narrowed("pytest -q", self.ids, lambda path: True) == "pytest -q tests/a.py 'tests/b c.py'"

    def test_a_file_that_is_not_there_leaves_the_command_whole(self) -> None:
        assert narrowed("pytest -q", self.ids, lambda path: path == "tests/a.py") == "pytest -q"

    def test_go_by_package(self) -> None:
        ids = ("example.com/m/a::TestX/sub", "example.com/m/b::TestY")
        command = narrowed("go test -json -race ./...", ids, lambda path: False)
        assert command == "go test -json -race example.com/m/a example.com/m/b"

    @pytest.mark.parametrize("line", ["make test", "pytest a; pytest b", "go test -json ./pkg"])
    def test_anything_else_stays_whole(self, line: str) -> None:
        assert narrowed(line, self.ids, lambda path: True) == line
