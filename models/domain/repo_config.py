"""How a repository is set up, tested and measured, and whose word on it counts.

The registered repository wins over its `.mission-control.yaml` at the base commit, that over what we recognise by
ourselves; an operator's override for one mission wins over all, is marked, and may only shorten the time. The patch
has no say: its own version of the file is never read.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from models.domain.command_lines import GO, JUNIT, PYTEST, reporting
from models.domain.errors import InvalidInput
from models.domain.plain_yaml import problems, read_mapping
from models.domain.testing import Source

CONFIG_FILE = ".mission-control.yaml"
DEFAULT_TIMEOUT = 1800.0
MAX_TIMEOUT = 24 * 3600.0

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_PYTHON = {"pyproject.toml", "setup.py", "setup.cfg", "pytest.ini", "tox.ini", "requirements.txt", "conftest.py"}


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError("must be seconds, or a number with s, m or h, such as 10m")
        return float(match[1]) * _UNITS[match[2]]
    if isinstance(value, bool):
        raise ValueError("must be seconds, or a number with s, m or h, such as 10m")
    return value


def _inside(path: str) -> str:
    if ".." in PurePosixPath(path).parts or path.startswith("/") or "\0" in path:
        raise ValueError("must be a path or glob inside the repository, such as reports/*.xml")
    return path


def _report_path(path: str) -> str:
    _inside(path.removeprefix("/out/"))
    return path


def _line(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise ValueError("must be a shell command")
    return text.strip()


Line = Annotated[str, Field(max_length=10_000), AfterValidator(_line)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=MAX_TIMEOUT)]
PathGlob = Annotated[str, Field(min_length=1, max_length=500)]


class RepoConfig(BaseModel):
    """What one place says: the file, the registered repository or an operator. All keys are optional.

    `setup` builds the environment (the only step with network); `install` installs the project in a worktree; `test`,
    `stress` and `probe` are run in it; `scan` writes SARIF files to `/out`. `junit` is where `test` leaves JUnit XML, a
    path or glob in the worktree or below `/out/`. `timeout` bounds each command, in seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    setup: Line | None = None
    install: Line | None = None
    test: Line | None = None
    stress: Line | None = None
    probe: Line | None = None
    scan: Line | None = None
    junit: Annotated[PathGlob, AfterValidator(_report_path)] | None = None
    timeout: Seconds | None = None
    test_paths: Annotated[tuple[Annotated[PathGlob, AfterValidator(_inside)], ...], Field(max_length=200)] | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The keys that are set."""
        return self.model_dump(exclude_none=True)


class Origin(StrEnum):
    """Who gave a command."""

    OVERRIDE = "override"
    REPOSITORY = "repository"
    FILE = "file"
    DETECTED = "detected"


class Commands(BaseModel):
    """What a mission runs. `origins` says for each key who gave it; `results` says what the tests' results come from.

    `test_paths` may be empty: then the usual ones hold.
    """

    model_config = ConfigDict(frozen=True)

    test: str
    setup: str | None = None
    install: str | None = None
    stress: str | None = None
    probe: str | None = None
    scan: str | None = None
    junit: str | None = None
    results: Source = Source.EXIT_CODE
    timeout: float = DEFAULT_TIMEOUT
    test_paths: tuple[str, ...] = ()
    origins: dict[str, Origin] = {}

    @property
    def lines(self) -> tuple[str, ...]:
        """Every command line that is run."""
        return tuple(filter(None, (self.setup, self.install, self.test, self.stress, self.probe, self.scan)))


def parse_repo_config(data: bytes) -> RepoConfig:
    """Read a `.mission-control.yaml`.

    Raises:
        InvalidInput: `repo_config_invalid`, naming the key or line and what is wrong with it.
    """
    return check_repo_config(read_mapping(data, CONFIG_FILE, "repo_config_invalid"), CONFIG_FILE)


def check_repo_config(values: dict[Any, Any], name: str) -> RepoConfig:
    """Check the same keys where they come as data, with a registration or a mission.

    Raises:
        InvalidInput: `repo_config_invalid`; the message begins with `name`.
    """
    try:
        return RepoConfig.model_validate({str(key): value for key, value in values.items()})
    except ValidationError as error:
        raise InvalidInput("repo_config_invalid", f"{name}: {problems(error, RepoConfig)}.") from None


def detect(paths: Iterable[str]) -> RepoConfig:
    """Recognise how a repository is tested from the paths of its files; empty when it is neither, or both."""
    known = set(paths)
    is_go = "go.mod" in known
    is_python = any(path in _PYTHON or _is_pytest_file(path) for path in known)
    if is_go == is_python:
        return RepoConfig()
    if is_go:
        return RepoConfig(test=GO)
    source = "PYTHONPATH=src " if any(path.startswith("src/") and path.endswith(".py") for path in known) else ""
    return RepoConfig(test=source + PYTEST, junit=JUNIT)


def effective_commands(
    registered: RepoConfig, file: RepoConfig | None, detected: RepoConfig, override: RepoConfig | None = None
) -> Commands:
    """Settle what a mission runs, key by key; what we detected counts only where nobody gave a test command.

    Raises:
        InvalidInput: `no_test_command`, or `timeout_loosened` when the override asks for more time.
    """
    file, override = file or RepoConfig(), override or RepoConfig()
    given = {**file.given, **registered.given, **override.given}
    origins = {
        **dict.fromkeys(file.given, Origin.FILE),
        **dict.fromkeys(registered.given, Origin.REPOSITORY),
        **dict.fromkeys(override.given, Origin.OVERRIDE),
    }
    if "test" not in given:
        given = {**detected.given, **given}
        origins = {**dict.fromkeys(detected.given, Origin.DETECTED), **origins}
    if "test" not in given:
        raise InvalidInput(
            "no_test_command",
            f"No test command: the repository is not plainly Python or plainly Go. Give `test` in {CONFIG_FILE} at the "
            "base commit, or among the registered repository's commands.",
        )
    _refuse_more_time(registered.timeout or file.timeout or DEFAULT_TIMEOUT, override.timeout)
    test, junit, results = reporting(given.pop("test"), given.pop("junit", None))
    return Commands(**given, test=test, junit=junit, results=results, origins=origins)


def _refuse_more_time(allowed: float, asked: float | None) -> None:
    if asked is not None and asked > allowed:
        raise InvalidInput(
            "timeout_loosened",
            f"A mission may only shorten the timeout: {allowed:g} s are set, {asked:g} s were asked for.",
        )


def _is_pytest_file(path: str) -> bool:
    name = PurePosixPath(path).name
    return name.endswith(".py") and (name.startswith("test_") or name.endswith("_test.py"))
