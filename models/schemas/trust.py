"""Bodies of the routes about trust."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from models.domain.states import MissionOutcome


class TrustScore(BaseModel):
    """How far an agent is trusted. Only the ends of its missions move it."""

    model_config = ConfigDict(from_attributes=True)

    agent_id: str
    name: str
    score: float = Field(validation_alias="trust", serialization_alias="score", ge=0, le=1)


class TrustChangeView(BaseModel):
    """What a mission's end did to an agent's score."""

    model_config = ConfigDict(from_attributes=True)

    mission_id: str
    outcome: MissionOutcome
    before: float
    after: float
    at: datetime
