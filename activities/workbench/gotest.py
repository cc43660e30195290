"""Reads the event stream of `go test -json` as it is printed, amid whatever else the command prints."""

import json
from typing import Any

from models.domain.testing import Outcome, TestCase, normal_id, presentable

MAX_CASES = 200_000
MAX_LINE = 1024 * 1024
MAX_ID, MAX_MESSAGE = 2000, 300

_ENDS = {"pass": Outcome.PASSED, "fail": Outcome.FAILED, "skip": Outcome.SKIPPED}


class GoTestReader:
    """Takes the command's output in chunks and gives its cases at the end.

    Ids are `package::Test/subtest`. A package that failed without a failing test (it does not build, it panicked) is a
    case of its own, named like the package; tests that were running then did not finish, and are errors.
    """

    def __init__(self) -> None:
        self._held = b""
        self._cases: list[TestCase] = []
        self._running: dict[tuple[str, str], str] = {}
        self._said: dict[str, str] = {}
        self._explained: set[str] = set()
        self.last_words = ""

    def feed(self, data: bytes) -> None:
        """Take a chunk of output; lines that are not events are remembered as `last_words`."""
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            self._line(line)
        if len(self._held) > MAX_LINE:
            self._held = b""

    def cases(self) -> tuple[TestCase, ...]:
        """Give what was found; the stream has ended, and tests without an end are errors."""
        self._line(self._held)
        self._held = b""
        for package, _ in list(self._running):
            self._abandon(package)
        return tuple(self._cases)

    def _line(self, line: bytes) -> None:
        event = _event(line)
        if event is None:
            self.last_words = line.decode("utf-8", "replace").strip()[:MAX_MESSAGE] or self.last_words
        elif len(self._cases) < MAX_CASES:
            self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        action, test = str(event["Action"]), str(event.get("Test") or "")
        package = str(event.get("Package") or event.get("ImportPath") or "").partition(" [")[0]
        if action in ("output", "build-output"):
            self._listen(package, test, str(event.get("Output") or ""))
        elif action == "run":
            self._running[package, test] = ""
        elif action in _ENDS and test:
            self._end(package, test, _ENDS[action], event.get("Elapsed"))
        elif action == "fail":
            self._end_package(package)

    def _listen(self, package: str, test: str, text: str) -> None:
        if (package, test) in self._running:
            self._running[package, test] = (self._running[package, test] + text)[-MAX_MESSAGE:]
        elif not test:
            self._said[package] = (self._said.get(package, "") + text)[-MAX_MESSAGE:]

    def _end(self, package: str, test: str, outcome: Outcome, seconds: Any = None) -> None:
        said = self._running.pop((package, test), "")
        message = "" if outcome is Outcome.PASSED else said
        if outcome is Outcome.FAILED:
            self._explained.add(package)
        self._add(f"{package}::{test}", outcome, message, seconds)

    def _end_package(self, package: str) -> None:
        self._abandon(package)
        if package not in self._explained:
            self._add(package, Outcome.ERROR, self._said.get(package, ""), None)

    def _abandon(self, package: str) -> None:
        for key in [key for key in self._running if key[0] == package]:
            said = self._running.pop(key)
            self._add("::".join(key), Outcome.ERROR, f"it did not finish; {said}", None)

    def _add(self, id: str, outcome: Outcome, message: str, seconds: Any) -> None:
        plausible = isinstance(seconds, int | float) and 0 <= seconds < float("inf")
        self._cases.append(
            TestCase(
                id=normal_id(presentable(id, MAX_ID)),
                outcome=outcome,
                seconds=float(seconds) if plausible else 0,
                message=presentable(message.strip(), MAX_MESSAGE),
            )
        )


def _event(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b"{") or len(line) > MAX_LINE:
        return None
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and "Action" in event else None
