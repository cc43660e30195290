"""What a run of tests said, whichever tool said it."""

import re
from collections import Counter
from enum import StrEnum
from functools import cached_property
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

_LINE_NUMBER = re.compile(r"\b(line|lineno|col|column)([ :=])\d+")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}")


class Outcome(StrEnum):
    """How one test case ended."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"


class Source(StrEnum):
    """What results are read from."""

    JUNIT = "junit"
    GOTEST = "gotest"
    EXIT_CODE = "exit_code"


class TestCase(BaseModel):
    """One test case, run once; `seconds` is its own time, `message` the beginning of why it did not pass."""

    __test__: ClassVar[bool] = False
    model_config = ConfigDict(frozen=True)

    id: str
    outcome: Outcome
    seconds: float = 0
    message: str = ""


class TestReport(BaseModel):
    """All that one run told.

    `exit_code` is None when we stopped the command, and then `stopped` says why. `trouble` says why there are fewer
    results than there should be: set-up that failed, a report that was not written. `left_behind` counts the processes
    that ran on when the command had ended by itself, and that were ended then.
    """

    __test__: ClassVar[bool] = False
    model_config = ConfigDict(frozen=True)

    source: Source
    cases: tuple[TestCase, ...] = ()
    exit_code: int | None = None
    stopped: str = ""
    trouble: str = ""
    left_behind: int = 0

    @property
    def cannot_tell(self) -> tuple[str, ...]:
        """What evidence from this source leaves open."""
        if self.source is Source.EXIT_CODE:
            return (
                "which tests ran, and whether any did",
                "whether a test that passed at the base fails now while another was mended",
                "whether a failure is flaky",
            )
        return ()

    @cached_property
    def by_id(self) -> dict[str, Counter[Outcome]]:
        """The outcomes of each id. Ids are not unique: results are compared as multisets."""
        found: dict[str, Counter[Outcome]] = {}
        for case in self.cases:
            found.setdefault(case.id, Counter())[case.outcome] += 1
        return found

    @property
    def counts(self) -> dict[str, int]:
        """How many cases ended in each way."""
        totals = Counter(case.outcome for case in self.cases)
        return {outcome.value: totals[outcome] for outcome in Outcome}

    @property
    def has_unexplained_failure(self) -> bool:
        """Whether the command failed although every reported test passed: a crash, a coverage floor, a linter."""
        bad = any(case.outcome in (Outcome.FAILED, Outcome.ERROR) for case in self.cases)
        return self.exit_code not in (0, None) and not bad


def normal_id(name: str) -> str:
    """Free a test's id of what changes when code merely moves: doctests' line numbers, addresses of objects.

    Parameters in brackets keep their numbers: `test_wrap[line=5]` means five.
    """
    head, bracket, parameters = _ADDRESS.sub("0x*", name).partition("[")
    return _LINE_NUMBER.sub(r"\1\2*", head) + bracket + parameters


def leftovers(run: str, left_behind: int) -> tuple[str, ...]:
    """Say in the evidence that a run left processes behind; nothing where it left none."""
    return (f"{run} left {left_behind} process(es) behind, which were ended",) if left_behind else ()


def bad(outcomes: Counter[Outcome]) -> int:
    """Count the cases that failed or could not run."""
    return outcomes[Outcome.FAILED] + outcomes[Outcome.ERROR]


def worst(outcomes: Counter[Outcome] | None) -> str:
    """Sum up the cases of one id in a word: the worst that happened, `absent` when nothing did."""
    ranked = (Outcome.ERROR, Outcome.FAILED, Outcome.SKIPPED, Outcome.PASSED)
    return next((outcome.value for outcome in ranked if outcomes and outcomes[outcome]), "absent")


def presentable(text: str, limit: int) -> str:
    """Bound foreign text, and free it of what no database column takes: NUL and halves of characters."""
    return text[:limit].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
