"""Bodies of the activity routes."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field

from models.contracts.missions import Name, Named, Text
from models.domain.events import Subject
from models.schemas.envelope import Body


class ActivityStatus(StrEnum):
    """How what an act tells of went; an act that was done is a success, and what was held or refused is blocked."""

    SUCCESS = "success"
    FAILED = "failed"
    BLOCKED = "blocked"


class AgentDecision(Body):
    """What an agent decided: from what, by which reasoning, and what came of it. A service names the agent."""

    agent_id: Named | None = Field(default=None, description="By id or name; an agent may leave itself out.")
    run_id: Name | None = Field(default=None, description="The run in which it was decided.")
    input: Text
    reasoning: Text
    output: Text


class ActivityView(BaseModel):
    """One act of an agent."""

    id: int = Field(description="Of its row in the audit log.")
    timestamp: datetime
    agent_id: str = Field(description="The agent's name.")
    workspace_id: str
    action: str
    status: ActivityStatus | None = Field(
        description="Null of an ended run whose words were redacted, or are a newer version's."
    )
    metadata: dict[str, Any] | None = Field(description="What was said of it; null once that was redacted.")
    subject: Subject
    correlation_id: str
