"""The parts of a patch that could change how the patch itself is judged; each of them asks a human.

The code under test runs in one process with its tests, so no rule can keep a patch that means to deceive from doing so.
These find the plain ways: the files that decide what is run, and those that the runner takes before any test.
"""

import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase, translate
from functools import lru_cache
from posixpath import dirname, normpath

from pydantic import BaseModel, ConfigDict

from models.domain.patches import ChangeKind, PatchSummary

_CI_FILES = (
    ".github/workflows/*",
    ".github/actions/*",
    ".gitlab-ci.yml",
    ".gitlab/ci/*",
    ".forgejo/workflows/*",
    ".gitea/workflows/*",
    ".circleci/*",
    ".buildkite/*",
    ".azure-pipelines/*",
    ".ci/*",
    ".tekton/*",
    ".woodpecker/*",
    "**/Jenkinsfile*",
    "azure-pipelines.y*ml",
    "bitbucket-pipelines.yml",
    "cloudbuild.y*ml",
    "appveyor.yml",
    ".appveyor.yml",
    ".cirrus.yml",
    ".drone.yml",
    ".travis.yml",
    ".woodpecker.yml",
)
_TEST_SUPPORT = (
    "**/conftest.py",
    "**/pytest.ini",
    "**/.pytest.ini",
    "**/pytest.toml",
    "**/.pytest.toml",
    "**/tox.ini",
)
_TEST_CONFIGURATION = (*_TEST_SUPPORT, "**/setup.cfg", "**/pyproject.toml")
DEFAULT_TEST_PATHS = (
    "**/tests/*",
    "**/test/*",
    "**/testdata/*",
    "**/test_*.py",
    "**/*_test.py",
    "**/*_test.go",
)
_JUDGES = (
    # Python takes these when it starts, or when it looks for plugins; the first ones run when the project is installed.
    *("**/setup.py", "**/hatch_build.py", "**/hatch.toml", "**/sitecustomize.*", "**/usercustomize.*", "**/*.pth"),
    *("**/*.egg-link", "**/*.egg-info/*", "**/*.dist-info/*", "**/__pycache__/*", "**/*.pyc"),
    *("**/noxfile.py", "**/fabfile.py", "**/.coveragerc", "**/unittest.cfg", "**/nose2.cfg", "**/.testr.conf"),
    # What a short command stands for is written here.
    *("**/[Mm]akefile", "**/GNUmakefile", "**/*.mk", "**/CMakeLists.txt", "**/*.cmake", "**/meson.build"),
    *("**/[Jj]ustfile", "**/.justfile", "**/[Tt]askfile.y*ml", "**/SConstruct", "**/BUILD", "**/BUILD.bazel"),
    *("**/*.bzl", "**/WORKSPACE", "**/.bazelrc", "**/Rakefile", "**/Gemfile", "**/.rspec", "**/mix.exs"),
    *("**/package.json", "**/.npmrc", "**/.mocharc*", "**/jest.config.*", "**/vite*.config.*", "**/karma.conf.*"),
    *("**/playwright.config.*", "**/cypress.config.*", "**/babel.config.*", "**/.babelrc*", "**/deno.json*"),
    *("**/Cargo.toml", "**/build.rs", "**/.cargo/*", "**/pom.xml", "**/.mvn/*", "**/mvnw*", "**/build.xml"),
    *("**/*.gradle", "**/*.gradle.kts", "**/gradle.properties", "**/gradle/wrapper/*", "**/gradlew*", "**/build.sbt"),
    *("**/composer.json", "**/phpunit.xml*", "**/*.csproj", "**/*.runsettings", "**/Directory.Build.*"),
    *("**/Package.swift", "**/go.mod", "**/go.work", "**/vendor/*", "**/node_modules/*"),
)
_RUNNERS = frozenset(
    (
        *("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "exceptiongroup", "tomli", "pygments"),
        *("coverage", "xdist", "pytest_cov", "pytest_asyncio", "hypothesis", "mock", "nose", "nose2"),
        *("pip", "setuptools", "pkg_resources", "wheel", "attr", "typing_extensions"),
    )
)
"""Modules that runners import; a file of that name in front of them is imported in their place."""
_ROOTS = frozenset(("", "src", "lib", "python"))
"""Folders from which Python commonly imports."""
_MODULE = re.compile(r"(?:(.*)/)?(?!__init__\b)(\w+)(?:/__init__)?\.(?:py|pyc|pyd|so|[\w-]+\.so)")
_VARIABLE = re.compile(r"\$(?:\w+|\{\w+\})/?")
_WORD = re.compile(r"[^\s;&|()<>`\"'=:,${}]+")
_GLOB = re.compile(r"[*?[]")
_RUN_AS_MODULE = re.compile(r"(?:^|\s)-[mp]\s*([A-Za-z_][\w.]*)")
_RUN_FOLDER = re.compile(r"\bgo\s+run\s+(?:-\S+\s+)*([^\s-]\S*)")
_OF_TOOLS = {"inv": "tasks.py", "invoke": "tasks.py"}
"""Files with names that others have, too: only where the tool is run."""
MAX_COMPARED = 2_000_000_000
"""Letters of the patterns in all command lines, times those of a patch's paths: seconds, in a thread."""
_HOOKS = (
    (re.compile(rb"^\+\+\+ .*_test\.go\b", re.MULTILINE), re.compile(rb"^\+\s*func\s+TestMain\b", re.MULTILINE)),
    (re.compile(rb"^\+\+\+ .*\.py\b", re.MULTILINE), re.compile(rb"^\+\s*pytest_plugins\b", re.MULTILINE)),
)
"""What a file of tests may declare that decides about other tests, too: the file, and the line that it adds."""


_MAKES_NEW = (ChangeKind.ADDED, ChangeKind.COPIED)


class TouchedLaw(BaseModel):
    """What of the law a patch touches. `judges` are files that decide what the commands run, or that come before it."""

    model_config = ConfigDict(frozen=True)

    config: bool = False
    ci: tuple[str, ...] = ()
    existing_tests: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()


def touches(
    summary: PatchSummary,
    test_paths: Iterable[str] = (),
    lines: Iterable[str] = (),
    diff: bytes = b"",
    config_file: str = ".mission-control.yaml",
) -> TouchedLaw:
    """Find the law in a patch: the project's own configuration, CI files, tests that exist at the base, and judges.

    Configuration of the test runner counts as an existing test even when the patch adds it: it changes how the old
    tests run.

    Args:
        test_paths: folders or globs of the project; none means the usual ones.
        lines: the command lines that the mission runs; each file that one names is a judge.
        diff: the patch as git wrote it, for what test files declare.
    """
    tests = tuple(test_paths) or DEFAULT_TEST_PATHS
    changed = {path for file in summary.files if file.kind not in _MAKES_NEW for path in file.paths}
    existing_tests = tuple(
        path
        for path in summary.paths
        if _matches(path, _TEST_CONFIGURATION) or (path in changed and _matches(path, tests))
    )
    judges, known = (*_judges(summary, tests, tuple(lines)), *_with_hooks(diff)), set(existing_tests)
    return TouchedLaw(
        config=config_file in summary.paths,
        ci=tuple(path for path in summary.paths if _matches(path, _CI_FILES)),
        existing_tests=existing_tests,
        judges=tuple(path for path in dict.fromkeys(judges) if path not in known),
    )


def split_test_files(summary: PatchSummary, test_paths: Iterable[str] = ()) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Part the changed paths into test files, which the run at the base also gets, and source files."""
    patterns = (*(tuple(test_paths) or DEFAULT_TEST_PATHS), *_TEST_SUPPORT)
    tests = tuple(path for path in summary.paths if _matches(path, patterns))
    return tests, tuple(path for path in summary.paths if not _matches(path, patterns))


def _judges(summary: PatchSummary, tests: tuple[str, ...], lines: tuple[str, ...]) -> Iterator[str]:
    named = _Named(lines, sum(len(path) for file in summary.files for path in file.paths))
    for file in summary.files:
        is_new_test = file.is_new and _matches(file.path, tests)
        for path in file.paths:
            if _matches(path, _JUDGES) or named.exactly(path) or (named.by_glob(path) and not is_new_test):
                yield path
        if file.is_new and _shadows(file.path, tests, named.folders):
            yield file.path


class _Named:
    """The files that command lines may mean. A command may change its folder first, so that endings of paths count."""

    def __init__(self, lines: Iterable[str], letters: int) -> None:
        text = _VARIABLE.sub(" ", "\n".join(lines))
        words = [normpath(word.removeprefix("/workspace/")).lstrip("/") for word in _words(text)]
        modules = [word.replace(".", "/") for word in _RUN_AS_MODULE.findall(text)]
        built = [f"{normpath(folder)}/*" for folder in _RUN_FOLDER.findall(text)]
        self._globs = {*built, *(word for word in words if _GLOB.search(word))}
        self._are_too_many = sum(map(len, self._globs)) * letters > MAX_COMPARED
        self._files = {*words, *(_OF_TOOLS[word] for word in words if word in _OF_TOOLS)}
        self._files |= {f"{word}/__main__.py" for word in (*words, *modules)} | {f"{word}.py" for word in modules}
        self._files |= {f"{above}/__init__.py" for word in modules for above in _folders(f"{word}/")}
        self._steps = {file.count("/") + 1 for file in self._files}
        self.folders = {folder for word in words for folder in (word, dirname(word))}

    def exactly(self, path: str) -> bool:
        """Whether a word is the path, or its end."""
        steps = path.split("/")
        return any("/".join(steps[-count:]) in self._files for count in self._steps if count <= len(steps))

    def by_glob(self, path: str) -> bool:
        """Whether a pattern of the shell may mean the path; of more than are compared, one may."""
        return self._are_too_many or any(
            fnmatchcase(path, glob) or fnmatchcase(path, f"*/{glob}") for glob in self._globs
        )


def _shadows(path: str, tests: tuple[str, ...], roots: Iterable[str]) -> bool:
    """Whether a new file is a Python module that may be imported in place of a runner's, or of Python's own."""
    found = _MODULE.fullmatch(path)
    if found is None:
        return False
    folder, name = found[1] or "", found[2]
    is_root = folder in _ROOTS or folder in roots or _matches(path, tests)
    return name in _RUNNERS or (is_root and name in sys.stdlib_module_names)


def _with_hooks(diff: bytes) -> Iterator[str]:
    """Name the files of tests to which a diff adds what decides about other tests, too."""
    for section in re.split(rb"^diff --git ", diff, flags=re.MULTILINE):
        for file, declaration in _HOOKS:
            header = file.search(section)
            if header and declaration.search(section):
                yield header[0].removeprefix(b"+++ ").strip(b'"').removeprefix(b"b/").decode("utf-8", "replace")


def _words(text: str) -> Iterator[str]:
    """The words of command lines, as a shell would take them and torn apart at all its signs: either may be meant."""
    yield from _WORD.findall(text)
    for line in text.splitlines():
        with suppress(ValueError):  # quotes that go on over lines
            yield from filter(None, shlex.split(line))


def _folders(path: str) -> Iterator[str]:
    """The folders above a path, innermost first."""
    while path := dirname(path):
        yield path


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether a pattern names the path or a folder above it; `*` also crosses folders, a leading `**/` may be none."""
    return _compiled(patterns).fullmatch(path) is not None


@lru_cache(maxsize=64)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    globs = [translate(pattern.replace("**/", either)) for pattern in patterns for either in ("", "*/")]
    below = [re.escape(pattern.rstrip("/")) + "(?:/.*)?" for pattern in patterns]
    return re.compile("|".join((*globs, *below)), re.DOTALL)
