"""When a mission has its merge approved, and what an approval binds, so that it stands for nothing else."""

from pydantic import BaseModel, ConfigDict

from models.domain.memory import WriteScope
from models.domain.policy import Act, Level, Policy, Verdict, assess
from models.domain.states import DecisionKind

BEFORE_VERSIONS = "builtin-1"
"""What an approval bound that was given before policies had versions."""


class Binding(BaseModel):
    """What an approval stands for: patch, configuration and policy, and the doubts that its giver was shown.

    `patch_id` is a digest of the touched files before and after: the same lines elsewhere in a file are another change.
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
        return not self.differences(later)

    def differences(self, later: "Binding") -> tuple[str, ...]:
        """Name, for people, what a moved branch has made other than what was approved."""
        is_other = {
            "the files that it touches": later.patch_id != self.patch_id,
            "the configuration": later.config_hash != self.config_hash,
            "the policy": later.policy_version != self.policy_version,
            "the reasons to ask": not {*later.reasons} <= {*self.reasons} or not {*later.rules} <= {*self.rules},
        }
        return tuple(name for name, other in is_other.items() if other)


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


def judges_alike(act: Act, kind: DecisionKind, before: Policy, now: Policy, level: Level | None = None) -> bool:
    """Whether two versions say the same of an act, and let the same people answer: a mission may want it asked.

    `level` is that of the agent by now, where it is another.
    """
    doer = act.principal.model_copy(update={"level": level}) if level else act.principal
    one = assess(act.action, act.principal, act.context, before)
    other = assess(act.action, doer, act.context, now)
    return one == other and before.resolvers(kind) == now.resolvers(kind)
