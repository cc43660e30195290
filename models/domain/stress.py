"""Whether a patch stands the repository's stress command (PIPE-05, V-10).

It passes when the command ends with 0 at the patch, no target is missed by what it measured, and it is not slower than
at the base: more than 1.5 times *and* more than one second longer is a regression. Both, because a short command
wavers by large ratios and a long one by whole seconds.
"""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from models.domain.metrics import Target, holds
from models.domain.testing import leftovers

MAX_RATIO = 1.5
MAX_EXTRA_SECONDS = 1.0


class StressRun(BaseModel):
    """One run of the stress command. `exit_code` is None when it was stopped for `stopped`.

    `left_behind` counts the processes that ran on when it had ended by itself, and that were ended then.
    """

    model_config = ConfigDict(frozen=True)

    seconds: float
    exit_code: int | None
    stopped: str = ""
    measured: dict[str, float] = {}
    left_behind: int = 0

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with 0."""
        return self.exit_code == 0 and not self.stopped


class StressVerdict(BaseModel):
    """Why the patch does not pass, if it does not; `notes` say what could not be compared."""

    model_config = ConfigDict(frozen=True)

    passed: bool
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    base: StressRun
    patched: StressRun


def compare_stress(base: StressRun, patched: StressRun, targets: Iterable[Target] = ()) -> StressVerdict:
    """Judge the patch's run against the base's; targets of metrics it did not measure are left to stage 7."""
    reasons = (
        *_failure(patched),
        *_slowness(base, patched),
        *(reason for target in targets for reason in _miss(target, patched)),
    )
    unequal = () if base.ok else (f"the stress command fails at the base ({_how(base)}): speed was not compared",)
    runs = {"at the base": base, "at the patch": patched}
    left = (note for where, run in runs.items() for note in leftovers(f"the stress command {where}", run.left_behind))
    notes = (*unequal, *left)
    return StressVerdict(passed=not reasons, reasons=reasons, notes=notes, base=base, patched=patched)


def in_words(verdict: StressVerdict) -> str:
    """Say what came out, in a line."""
    return "; ".join(verdict.reasons or (_pace(verdict.base, verdict.patched), *verdict.notes))


def _pace(base: StressRun, patched: StressRun) -> str:
    beside = f", {base.seconds:.1f} s at the base" if base.ok else ""
    return f"exit code 0 after {patched.seconds:.1f} s{beside}"


def _failure(run: StressRun) -> tuple[str, ...]:
    return () if run.ok else (f"the stress command fails at the patch: {_how(run)}",)


def _slowness(base: StressRun, patched: StressRun) -> tuple[str, ...]:
    if not (base.ok and patched.ok):
        return ()
    slower = patched.seconds > MAX_RATIO * base.seconds and patched.seconds - base.seconds > MAX_EXTRA_SECONDS
    return (f"slower: {patched.seconds:.1f} s at the patch, {base.seconds:.1f} s at the base",) if slower else ()


def _miss(target: Target, run: StressRun) -> tuple[str, ...]:
    value = run.measured.get(target.metric_id)
    if value is None or holds(value, target.comparator, target.target):
        return ()
    return (f"{target.metric_id} must be {target.comparator} {target.target:g}: measured {value:g}",)


def _how(run: StressRun) -> str:
    return f"stopped: {run.stopped}" if run.stopped else f"exit code {run.exit_code}"
