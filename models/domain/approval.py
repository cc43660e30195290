"""What an approval of a merge binds, so that it stands for nothing else."""

from pydantic import BaseModel, ConfigDict

BEFORE_VERSIONS = "builtin-1"
"""What an approval bound that was given before policies had versions."""


class Binding(BaseModel):
    """What an approval stands for: patch, configuration and policy, and the doubts that its giver was shown."""

    model_config = ConfigDict(frozen=True)

    patch_id: str
    config_hash: str
    policy_version: str = BEFORE_VERSIONS
    reasons: tuple[str, ...] = ()

    def covers(self, later: "Binding") -> bool:
        """Whether the approval still stands on a moved branch: nothing differs (design section 7), no doubt is new."""
        return self.model_copy(update={"reasons": later.reasons}) == later and set(later.reasons) <= set(self.reasons)
