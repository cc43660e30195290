"""Which missions a human must approve before the merge, and what such an approval binds.

The small beginning of the policy engine: a verdict is pure, names the rules that fired, and carries a version.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from models.domain.judging import some

POLICY_VERSION = "builtin-1"


class Risk(StrEnum):
    """How much harm an act can do (POL-01..03)."""

    GREEN = "GREEN"
    YELLOW = "YELLOW"
    RED = "RED"


class MergeFacts(BaseModel):
    """All that the verdict on a merge depends on."""

    model_config = ConfigDict(frozen=True)

    requires_governance_approval: bool
    protected: bool
    env: str
    touches_config: bool = False
    ci_files: tuple[str, ...] = ()
    existing_tests: tuple[str, ...] = ()
    gone_tests: tuple[str, ...] = ()
    medium_findings: int = 0
    overrides: tuple[str, ...] = ()


class MergeVerdict(BaseModel):
    """Whether a human is asked, how risky the merge is, and the rules that say so."""

    model_config = ConfigDict(frozen=True)

    needs_human: bool
    risk: Risk
    reasons: tuple[str, ...]


class Binding(BaseModel):
    """What an approval stands for: patch, configuration and policy, and the doubts that its giver was shown."""

    model_config = ConfigDict(frozen=True)

    patch_id: str
    config_hash: str
    policy_version: str = POLICY_VERSION
    reasons: tuple[str, ...] = ()

    def covers(self, later: "Binding") -> bool:
        """Whether the approval still stands on a moved branch: nothing differs (design section 7), no doubt is new."""
        return self.model_copy(update={"reasons": later.reasons}) == later and set(later.reasons) <= set(self.reasons)


def assess_merge(facts: MergeFacts) -> MergeVerdict:
    """Judge a merge: the flag, protection, production, the law's own files, and doubts of the scan ask a human."""
    red = [
        *(["the branch is protected"] if facts.protected else []),
        *(["the environment is production"] if facts.env == "prod" else []),
        *(["the patch changes the repository's mission-control file"] if facts.touches_config else []),
        *([f"the patch changes CI files: {', '.join(facts.ci_files)}"] if facts.ci_files else []),
    ]
    yellow = [
        *(["the mission requires governance approval"] if facts.requires_governance_approval else []),
        *([f"the patch changes existing tests: {', '.join(facts.existing_tests)}"] if facts.existing_tests else []),
        *([f"tests that passed at the base are gone: {some(facts.gone_tests)}"] if facts.gone_tests else []),
        *([f"the scan found {facts.medium_findings} new medium finding(s)"] if facts.medium_findings else []),
        *([f"an operator overrides: {', '.join(facts.overrides)}"] if facts.overrides else []),
    ]
    risk = Risk.RED if red else Risk.YELLOW
    return MergeVerdict(needs_human=bool(red or yellow), risk=risk, reasons=tuple(red + yellow))
