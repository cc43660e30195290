"""How a mission ends that was stopped: what becomes of its merge, and what only the branch can tell of one."""

from typing import Literal

from models.domain.stages import StageName
from models.domain.states import MissionOutcome

Choice = Literal["keep", "roll_back"]
"""What is to become of a merge."""
LOOK_FOR_MERGE = "look for its Mission-Id among the branch's commits"


def lacks_choice(is_merged: bool, choice: Choice | None) -> bool:
    """Whether a cancel leaves open what is to become of the merge: nobody guesses that."""
    return is_merged and choice is None


def outcome_of_cancel(is_merged: bool, choice: Choice | None) -> MissionOutcome:
    """Say how a canceled mission ends: a merge is taken back unless it is to be kept."""
    keeps = not is_merged or choice == "keep"
    return MissionOutcome.CANCELED if keeps else MissionOutcome.ROLLED_BACK


def doubt(stage: str | None, is_merged: bool) -> str:
    """Say what is left open where a workflow ended without its story: a human looks at a merge that nobody watched.

    Nothing is open where no merge was made, and none was being made.
    """
    if is_merged:
        return " after its merge, which nobody observed to the end"
    return f" during its merge: {LOOK_FOR_MERGE}" if stage == StageName.MERGE else ""
