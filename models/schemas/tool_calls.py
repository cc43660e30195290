"""Bodies of the routes of tool calls."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from models.contracts.missions import Name, Text
from models.domain.canonical import canonical_json
from models.domain.money import Dollars, Usd
from models.domain.names import seen_name
from models.domain.policy import Risk
from models.domain.tool_calls import MAX_ARGUMENTS, CallStatus
from models.schemas.envelope import Body
from models.schemas.runs import CostId


def _bounded(arguments: dict[str, Any]) -> dict[str, Any]:
    if len(canonical_json(arguments)) > MAX_ARGUMENTS:
        raise ValueError(f"at most {MAX_ARGUMENTS} bytes of JSON; shorten what need not be judged, such as contents")
    return arguments


Tool = Annotated[Name, AfterValidator(seen_name)]
"""A tool's name, in the one spelling by which lists and policies know it."""
Arguments = Annotated[dict[str, Any], AfterValidator(_bounded)]
Milliseconds = Annotated[int, Field(ge=0, le=86_400_000)]


class ToolCallCreate(Body):
    """A call that is to be made. `error` or `duration_ms` say that it was made already, and how it went."""

    tool: Annotated[Tool, Field(description="The action, as policies name it.")]
    arguments: Annotated[Arguments, Field(default_factory=dict)]
    env: Annotated[Name | None, Field(description="What it reaches; that of its mission where nothing is said.")] = None
    usd: Annotated[Usd | None, Field(description="The most that it is expected to cost.")] = None
    error: Text | None = None
    duration_ms: Milliseconds | None = None
    cost_id: CostId | None = None

    @property
    def was_made(self) -> bool:
        """Whether it is over."""
        return self.error is not None or self.duration_ms is not None


class ToolCallEnd(Body):
    """How a call went: its error where it failed, a code or what it said."""

    error: Text | None = None
    duration_ms: Milliseconds | None = None
    cost_id: CostId | None = None


class ToolCallView(BaseModel):
    """A call in the order of its run: how it stands, what was said of it, and its cost where it names one."""

    model_config = ConfigDict(from_attributes=True)

    number: int
    tool: str
    digest: str | None = Field(description="Of the tool and its arguments.")
    status: CallStatus
    reason: str | None = Field(description="Why it may not be made, or not yet.")
    risk: Risk | None
    reasons: tuple[str, ...]
    decision_id: str | None
    error: str | None
    duration_ms: int | None
    cost_id: str | None
    usd: Dollars | None = None
    at: datetime
    ended_at: datetime | None
