"""Bodies of the run routes: executions, and what they cost."""

from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, computed_field, model_validator

from models.contracts.missions import Name, Named
from models.domain.budgets import Category, RunStatus, Tokens
from models.domain.money import Dollars, Signed, Usd
from models.domain.policy import Level
from models.domain.prices import Usage
from models.schemas.envelope import Body, Said
from models.schemas.names import NewTicket

CostId = Annotated[str, Field(min_length=1, max_length=256)]
Calls = Annotated[int, Field(ge=0, le=1_000_000)]


class RunCreate(Body):
    """Starts an execution. An agent starts its own; a service or admin may name the agent, and its level."""

    agent_id: Named | None = None
    level: Level | None = None
    ticket_id: NewTicket | None = None
    category: Category | None = None
    mission_id: Name | None = None


class RunEnd(Body):
    """Says how an execution ended. What it reserved and never settled is given back."""

    status: RunStatus
    reason: Said | None = None


class CostReport(Body):
    """A call of a model: what it took and, where its caller knows, what it cost. Dollars are exact: send a text."""

    model: Name | None = None
    tokens_in: Tokens = 0
    tokens_out: Tokens = 0
    calls: Calls = 1
    usd: Usd | None = None

    @property
    def usage(self) -> Usage:
        """As it is priced."""
        return Usage(**self.model_dump(include=set(Usage.model_fields)))


class Reservation(CostReport):
    """The most that a call may take and cost, before it is made; it is held for so many seconds.

    It says what it may take: tokens of a model, or dollars. A call that is free reserves 0 dollars.
    """

    hold_seconds: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 900

    @model_validator(mode="after")
    def _says_how_much(self) -> Self:
        if self.usd is None and not self.tokens_in + self.tokens_out:
            raise ValueError("say what the call may take at most: tokens_in and tokens_out of a model, or usd")
        return self

    @property
    def lasts(self) -> timedelta:
        """How long it is held."""
        return timedelta(seconds=self.hold_seconds)


def _corrects(usd: Decimal) -> Decimal:
    if not usd:
        raise ValueError("0 corrects nothing: give what to add, or, below zero, to take off")
    return usd


class Adjustment(Body):
    """Corrects what a run paid, by more (above zero) or less."""

    usd: Annotated[Signed, AfterValidator(_corrects)]
    reason: Said


class RunState(StrEnum):
    """What lists of executions may be narrowed to: those with a status, and those that go on and have none."""

    RUNNING = "running"
    SUCCESS = RunStatus.SUCCESS
    FAILED = RunStatus.FAILED
    BLOCKED = RunStatus.BLOCKED


class RunView(BaseModel):
    """An execution with its resources (ACTIVITY-02, ACTIVITY-03). It runs while it has no `status`."""

    model_config = ConfigDict(from_attributes=True)

    run_id: str
    agent_id: str | None
    level: Level | None
    ticket_id: str | None
    category: Category | None
    mission_id: str | None
    status: RunStatus | None
    reason: str | None
    blocked_by: str | None
    created_by: str
    started_at: datetime
    ended_at: datetime | None
    tokens: int
    calls: int
    usd: Dollars
    reserved_usd: Dollars
    cap_usd: Dollars | None
    cap_tokens: int | None

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property
    @property
    def duration_seconds(self) -> float | None:
        """Its end less its start."""
        return (self.ended_at - self.started_at).total_seconds() if self.ended_at else None


class CostView(BaseModel):
    """What a cost came to: reserved, settled or given back, and at what price."""

    cost_id: str
    usd: Dollars
    unpriced: bool
    run: RunView
