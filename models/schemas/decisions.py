"""Bodies of the decision routes."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.domain.decisions import Terms
from models.domain.money import Dollars
from models.domain.policy import Risk
from models.domain.states import DecisionStatus
from models.schemas.envelope import Body, Said


class DecisionResolve(Body):
    """A human's answer, and why (V-23)."""

    decision: Literal["approve", "deny"]
    explanation: Said

    @property
    def status(self) -> DecisionStatus:
        """The state that the answer leads to."""
        return DecisionStatus.APPROVED if self.decision == "approve" else DecisionStatus.DENIED


class CostSoFar(BaseModel):
    """What the subject of a decision has spent by now; a budget's and a tool call's, when it was asked about."""

    usd: Dollars = Decimal(0)
    tokens: int = 0


class AnswerView(BaseModel):
    """What one of those who were asked has answered."""

    model_config = ConfigDict(from_attributes=True)

    principal: str
    answer: DecisionStatus
    explanation: str
    at: datetime
    counts: bool = True
    """False for the approval, as one of several, of who was removed or lowered meanwhile, or denied after all."""


class DecisionCounts(BaseModel):
    """How many questions are in a state."""

    status: DecisionStatus
    total: int
    by_kind: dict[str, int]
    by_risk: dict[str, int]

    @classmethod
    def of(cls, status: DecisionStatus, found: Iterable[tuple[str, str, int]]) -> "DecisionCounts":
        """Add up what was counted by kind and risk."""
        kinds, risks = Counter[str](), Counter[str]()
        for kind, risk, number in found:
            kinds[kind] += number
            risks[risk] += number
        return cls(status=status, total=kinds.total(), by_kind=dict(kinds), by_risk=dict(risks))


class DecisionView(BaseModel):
    """A question with all that the answer binds: what is asked, why, at what risk, until when, and who answered.

    `digest` names what exactly is asked, `terms` say who may answer. `answers` are shown of one decision, not in lists.
    `single_operator` says that the requester answered, because the workspace had nobody else who could.
    """

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
    digest: str = ""
    terms: Terms
    answers: tuple[AnswerView, ...] = ()
    single_operator: bool
    when_expired: Literal["denied"] = "denied"
    cost_so_far: CostSoFar = CostSoFar()
    links: dict[str, str] = Field(default_factory=dict)
