"""Reads the event stream of `go test -json` as it is printed, amid whatever else the command prints."""

import json
import re
from collections import deque
from collections.abc import Callable
from typing import Any

from activities.workbench.cases import MAX_MESSAGE, Cases, TooLarge
from models.domain.testing import Outcome, TestCase, presentable

MAX_LINE = 1024 * 1024
EXCERPT_LINES = 6

_TELLS_NOTHING = re.compile(r"go: (downloading|finding|extracting|added) |FAIL(\s|$)|exit status \d+$|\?? *ok\s")
_ENDS = {"pass": Outcome.PASSED, "fail": Outcome.FAILED, "skip": Outcome.SKIPPED}


class GoTestReader:
    """Takes the command's output in chunks and gives its cases at the end.

    Ids are `package::Test/subtest`. A package that failed without a failing test (it does not build, it panicked) is a
    case of its own, named like the package; tests that were running then did not finish, and are errors.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._cases = Cases()
        self._running: dict[str, dict[str, str]] = {}
        self._open = 0
        self._said: dict[str, str] = {}
        self._explained: set[str] = set()
        self._refusal: TooLarge | None = None
        self._outside: deque[str] = deque(maxlen=EXCERPT_LINES)

    @property
    def last_words(self) -> str:
        """The end of what was printed beside the events, on one line: what `go` itself has to say."""
        return "; ".join(self._outside)

    def feed(self, data: bytes) -> None:
        """Take a chunk of output."""
        rest, *lines = data.split(b"\n")
        self._hold(rest)
        for line in lines:
            self._line(bytes(self._held))
            self._held = bytearray()
            self._hold(line)

    def cases(self) -> tuple[TestCase, ...]:
        """Give what was found; the stream has ended, and tests without an end are errors.

        Raises:
            TooLarge: there was more than may be read.
        """
        self._line(bytes(self._held))
        self._held = bytearray()
        self._unless_refused(self._abandon_all)
        if self._refusal is not None:
            raise self._refusal
        return tuple(self._cases.found)

    def _hold(self, piece: bytes) -> None:
        """Keep the beginning of a line; the end of one that is too long is let go, and so it is no event."""
        self._held += piece[: MAX_LINE + 1 - len(self._held)]

    def _line(self, line: bytes) -> None:
        event = _event(line)
        if event is None:
            self._hear(line.decode("utf-8", "replace").strip())
        else:
            self._unless_refused(lambda: self._take(event))

    def _hear(self, line: str) -> None:
        """Remember a line beside the events, unless it says no more than that something failed."""
        if line and not _TELLS_NOTHING.match(line):
            self._outside.append(presentable(line, MAX_MESSAGE))

    def _unless_refused(self, act: Callable[[], None]) -> None:
        """Act within bounds: past them nothing more is taken, because the command must run on to its end."""
        if self._refusal is None:
            try:
                act()
            except TooLarge as refusal:
                self._refusal = refusal

    def _take(self, event: dict[str, Any]) -> None:
        action, test = str(event["Action"]), str(event.get("Test") or "")
        package = str(event.get("Package") or event.get("ImportPath") or "").partition(" [")[0]
        if action in ("output", "build-output"):
            self._listen(package, test, str(event.get("Output") or ""))
        elif action == "run":
            self._begin(package, test)
        elif action in _ENDS and test:
            self._end(package, test, _ENDS[action], event.get("Elapsed"))
        elif action == "fail":
            self._end_package(package, str(event.get("FailedBuild") or "").partition(" [")[0])

    def _begin(self, package: str, test: str) -> None:
        tests = self._running.setdefault(package, {})
        self._open += test not in tests
        tests[test] = ""
        self._cases.require_room(self._open)

    def _listen(self, package: str, test: str, text: str) -> None:
        tests = self._running.get(package, {})
        if test in tests:
            tests[test] = (tests[test] + text)[-MAX_MESSAGE:]
        elif not test:
            self._said[package] = (self._said.get(package, "") + text)[-MAX_MESSAGE:]
            self._cases.require_room(len(self._said))

    def _end(self, package: str, test: str, outcome: Outcome, seconds: Any) -> None:
        tests = self._running.get(package, {})
        self._open -= test in tests
        said = tests.pop(test, "")
        message = "" if outcome is Outcome.PASSED else said
        if outcome is Outcome.FAILED:
            self._explained.add(package)
        self._cases.add(f"{package}::{test}", outcome, seconds if isinstance(seconds, int | float) else 0, message)

    def _end_package(self, package: str, unbuilt: str) -> None:
        """End a package; one that could not be set up is explained by what could not be built for it."""
        self._abandon(package)
        if package not in self._explained:
            self._cases.add(package, Outcome.ERROR, 0, self._said.get(unbuilt) or self._said.get(package, ""))

    def _abandon(self, package: str) -> None:
        tests = self._running.pop(package, {})
        self._open -= len(tests)
        for test, said in tests.items():
            self._cases.add(f"{package}::{test}", Outcome.ERROR, 0, f"it did not finish; {said}")

    def _abandon_all(self) -> None:
        for package in list(self._running):
            self._abandon(package)


def _event(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b"{") or len(line) > MAX_LINE:
        return None
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and "Action" in event else None
