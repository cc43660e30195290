"""How often a stage tries again what git, or the lack of a commit, kept it from: while waiting may help, no longer."""

import time
from collections.abc import Callable

from activities.workbench.git import GitError
from activities.workbench.origins import refusal
from models.domain.errors import StageFailed, WorkbenchLost

SECONDS = 600.0
"""How long git may fail before its stage does: longer than a host restarts, shorter than anybody waits."""
TRIES_AT_LEAST = 3
"""A host that slept has tried nothing meanwhile."""
_MOST = 10_000


class Patience:
    """Counts, on this host, how often git failed one stage in a row, and since when."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failing: dict[str, tuple[int, float]] = {}

    def forget(self, stage: str) -> None:
        """Begin anew: the stage got on, or nobody wants it any more."""
        self._failing.pop(stage, None)

    def judge(self, stage: str, error: GitError | WorkbenchLost) -> StageFailed | None:
        """Say what fails the stage for good; None where another try may go better."""
        if isinstance(error, GitError) and (refused := refusal(error)):
            return refused
        tries, since = self._failing.get(stage, (0, self._clock()))
        self._failing[stage] = tries + 1, since
        if len(self._failing) > _MOST:
            del self._failing[next(iter(self._failing))]
        if tries + 1 < TRIES_AT_LEAST or self._clock() - since < SECONDS:
            return None
        said = error.message.rstrip(".")
        reason = f"Git could not do it for {SECONDS / 60:g} minutes: {said}. Mend that, then retry the mission."
        return StageFailed(error.code, reason, **error.details)
