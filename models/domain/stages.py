"""The eleven stages of the coding pipeline (PIPE-01..12), and the scan before the fourth.

The scan comes first because tests print and report what a patch holds: where that is a secret, none may run.
"""

from enum import StrEnum


class StageName(StrEnum):
    """A stage, in the order in which all of them run."""

    FETCH_CONTEXT = "fetch_context"
    PULL_CODE = "pull_code"
    BRANCH_AND_PATCH = "branch_and_patch"
    SECURITY_SCAN = "security_scan"
    RUN_TESTS = "run_tests"
    STRESS_TESTS = "stress_tests"
    PUBLISH_DIAGNOSTICS = "publish_diagnostics"
    COLLECT_METRICS = "collect_metrics"
    GOVERNANCE = "governance"
    MERGE = "merge"
    OBSERVE = "observe"
    RESOLVE = "resolve"

    @property
    def number(self) -> str:
        """The seeds' number; the scan is `4s`, so that stages stay 1 to 11 (C-37)."""
        return _NUMBERS[self]

    @property
    def order(self) -> int:
        """Position for sorting, scan included."""
        return list(StageName).index(self)


_NUMBERS = dict(zip(StageName, ("1", "2", "3", "4s", "4", "5", "6", "7", "8", "9", "10", "11"), strict=True))


def stage_by_number(number: str) -> StageName | None:
    """Find a stage by what a person types: its number or its name."""
    return next((stage for stage in StageName if number in (stage.number, stage.value)), None)


class StageStatus(StrEnum):
    """States of one stage (requirements 4.3). A stage not yet begun has no row: it is pending."""

    RUNNING = "running"
    WAITING_DECISION = "waiting_decision"
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
