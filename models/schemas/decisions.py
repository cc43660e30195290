"""Bodies of the decision routes."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.domain.approval import Risk
from models.domain.states import DecisionStatus
from models.schemas.envelope import Body


class DecisionResolve(Body):
    """A human's answer, and why (V-23)."""

    decision: Literal["approve", "deny"]
    explanation: Annotated[str, Field(min_length=1, max_length=2000)]

    @property
    def status(self) -> DecisionStatus:
        """The state that the answer leads to."""
        return DecisionStatus.APPROVED if self.decision == "approve" else DecisionStatus.DENIED


class CostSoFar(BaseModel):
    """What the subject of a decision has spent by now; nothing in the product spends yet."""

    usd: float = 0.0
    tokens: int = 0


class DecisionView(BaseModel):
    """A question with all that the answer binds: what is asked, why, at what risk, until when, and who answered."""

    model_config = ConfigDict(from_attributes=True)

    decision_id: str
    kind: str
    mission_id: str | None
    round: int
    candidate: int
    status: DecisionStatus
    risk: Risk
    reasons: tuple[str, ...]
    question: dict[str, Any]
    binding: dict[str, Any]
    requested_by: str
    requested_at: datetime
    expires_at: datetime | None
    resolved_by: str | None
    resolved_at: datetime | None
    explanation: str | None
    acknowledged_at: datetime | None
    cost_so_far: CostSoFar = CostSoFar()
    links: dict[str, str] = Field(default_factory=dict)
