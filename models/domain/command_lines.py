"""What may be known of a test command by reading it: what it reports, and how to run a part of it."""

import shlex
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from models.domain.testing import Source

JUNIT = "/out/junit.xml"
PYTEST = f"python -m pytest --junitxml={JUNIT}"
GO = "go test -json ./..."

_SHELL = set("();<>|&$`\n")


def reporting(line: str, junit: str | None) -> tuple[str, str | None, Source]:
    """Complete a plain pytest or Go command so that it reports by name: the command, its JUnit path, the source.

    Whatever else a command is, its exit code is all there is unless `junit` says where its report will be.
    """
    words = _simple_words(line)
    if junit:
        return line, junit, Source.JUNIT
    if _is_pytest(words):
        written = [word.partition("=")[2] for word in words if word.startswith(("--junitxml=", "--junit-xml="))]
        return (line, written[-1], Source.JUNIT) if written else (f"{line} --junitxml={JUNIT}", JUNIT, Source.JUNIT)
    if _is_go(words):
        return (line if "-json" in words else line.replace("go test", "go test -json", 1)), None, Source.GOTEST
    return line, None, Source.EXIT_CODE


def narrowed(line: str, ids: Iterable[str], is_file: Callable[[str], bool]) -> str:
    """Cut a command down to where the tests named `ids` live, if it is plain enough; else leave it whole.

    The cut is by file (pytest) or package (Go), never by test: what fails only after its neighbours ran must fail
    here too, or it would look flaky.
    """
    words = _simple_words(line)
    places = sorted({id.partition("::")[0] for id in ids})
    if _is_pytest(words) and places and all(is_file(place) for place in places):
        return f"{line} {shlex.join(places)}"
    if _is_go(words) and places and words[-1] == "./...":
        return line.rstrip().removesuffix("./...") + shlex.join(places)
    return line


def _simple_words(line: str) -> list[str]:
    """The words of one simple command without assignments before it; none for anything a shell must work out."""
    try:
        words = shlex.split(line)
    except ValueError:
        return []
    if _SHELL & set(line):
        return []
    first = next((i for i, word in enumerate(words) if not _assigns(word)), len(words))
    return words[first:]


def _assigns(word: str) -> bool:
    name, equals, _ = word.partition("=")
    return bool(equals) and name.isidentifier()


def _is_pytest(words: list[str]) -> bool:
    program = PurePosixPath(words[0]).name if words else ""
    return program in ("pytest", "py.test") or (program.startswith("python") and words[1:3] == ["-m", "pytest"])


def _is_go(words: list[str]) -> bool:
    return words[:2] == ["go", "test"]
