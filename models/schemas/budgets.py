"""Bodies of the budget and cost routes."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from models.domain.budgets import OWNERS, Cap, Category, Key, Owner, Scope, TokenCap
from models.domain.money import Dollars, Usd
from models.domain.names import MAX_ID, MAX_TICKET, one_spelling, ticket_name
from models.domain.policy import Level
from models.schemas.envelope import Body

_NAMED = {Owner.LEVEL: Level, Owner.CATEGORY: Category}


class LimitNamed(Body):
    """Names a cap: of which limit, and of which level, category, agent, ticket or run."""

    scope: Scope
    owner: Owner
    name: Annotated[str, Field(max_length=MAX_ID, description=f"A ticket's has at most {MAX_TICKET} characters.")] = ""

    @property
    def key(self) -> Key:
        """Which cap it is."""
        return Key(self.scope, self.owner, self.name)

    @field_validator("name")
    @classmethod
    def _one_spelling(cls, name: str, known: ValidationInfo) -> str:
        spell = ticket_name if known.data.get("owner") is Owner.TICKET else one_spelling
        return spell(name) if name else name

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if self.owner not in OWNERS[self.scope]:
            known = ", ".join(OWNERS[self.scope])
            raise ValueError(f"the limit {self.scope.value} has caps of: {known}")
        if (self.owner is Owner.WORKSPACE) is bool(self.name):
            raise ValueError("`name` says whose cap it is, and a workspace's has none")
        if (kind := _NAMED.get(self.owner)) and self.name not in list(kind):
            raise ValueError(f"`name` must be one of: {', '.join(kind)}")
        return self


class LimitSet(LimitNamed):
    """Gives a limit a cap. Null is no cap."""

    cap_usd: Usd | None
    cap_tokens: TokenCap | None

    @property
    def cap(self) -> Cap:
        """What it becomes."""
        return Cap(self.cap_usd, self.cap_tokens)


class LimitChange(LimitNamed):
    """Changes a cap: what is left out of it stays. Null is no cap."""

    cap_usd: Usd | None = None
    cap_tokens: TokenCap | None = None

    @property
    def change(self) -> dict[str, Any]:
        """What becomes of which part."""
        parts = {"usd": "cap_usd", "tokens": "cap_tokens"}
        return {part: getattr(self, name) for part, name in parts.items() if name in self.model_fields_set}

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.change:
            raise ValueError("say what to change: `cap_usd`, `cap_tokens` or both")
        return self


class LimitView(BaseModel):
    """A cap that holds: set by somebody, or the default."""

    scope: Scope
    owner: Owner
    name: str
    cap_usd: Dollars | None
    cap_tokens: int | None
    set_by: str | None = None
    set_at: datetime | None = None


class CounterView(BaseModel):
    """What one run, ticket, agent's day or workspace's month has spent and promised, of what it may."""

    model_config = ConfigDict(from_attributes=True)

    scope: Scope
    subject: str
    period: str
    cap_usd: Dollars | None
    cap_tokens: int | None
    settled_usd: Dollars
    reserved_usd: Dollars
    settled_tokens: int
    reserved_tokens: int
    calls: int
    crossed: bool


class GroupBy(StrEnum):
    """By what costs are summed up."""

    AGENT = "agent"
    TICKET = "ticket"
    RUN = "run"
    MISSION = "mission"
    MODEL = "model"
    DAY = "day"
    WORKSPACE = "workspace"


class Sum(BaseModel):
    """What was paid, and for what. `unpriced_usd` is the part whose model has no price.

    `overrun_usd` is what calls cost that were dearer than they had reserved.
    """

    usd: Dollars
    overrun_usd: Dollars
    unpriced_usd: Dollars
    tokens_in: int
    tokens_out: int
    tokens: int
    calls: int


class CostSum(Sum):
    """A group's; `key` is null for what belongs to none."""

    key: str | None


class Costs(BaseModel):
    """The groups, the dearest first, and how many there are and what all come to, also those beyond the page."""

    group_by: GroupBy
    items: list[CostSum]
    total: Sum
    groups: int
