"""When a mission has its merge approved, and what an approval binds, so that it stands for nothing else."""

from pydantic import BaseModel, ConfigDict

from models.domain.memory import WriteScope
from models.domain.policy import Verdict

BEFORE_VERSIONS = "builtin-1"
"""What an approval bound that was given before policies had versions."""


class Binding(BaseModel):
    """What an approval stands for: patch, configuration and policy, and the doubts that its giver was shown.

    `rules` are the names of those that asked: two may say the same, and ask for different people.
    """

    model_config = ConfigDict(frozen=True)

    patch_id: str
    config_hash: str
    policy_version: str = BEFORE_VERSIONS
    reasons: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()

    def covers(self, later: "Binding") -> bool:
        """Whether the approval still stands on a moved branch: nothing differs (design section 7), no doubt is new."""
        same = self.model_copy(update={"reasons": later.reasons, "rules": later.rules}) == later
        return same and {*later.reasons} <= {*self.reasons} and {*later.rules} <= {*self.rules}


def demanded(verdict: Verdict, scope: WriteScope, requires_approval: bool, branch: str = "") -> Verdict:
    """Let a human decide what whoever filed the mission wants decided, whatever the policy says (POL-17, APPR-07).

    So it is with a `branch` that they chose and may not choose.
    """
    if branch:
        return verdict.telling(f"whoever filed it chose the branch {branch!r}, not the registered one")
    if scope is WriteScope.PROPOSE:
        return verdict.asking("the mission's memory_write_scope is propose: it may not merge by itself")
    if requires_approval:
        return verdict.asking("the mission requires governance approval")
    return verdict
