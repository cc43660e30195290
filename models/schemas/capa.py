"""Bodies of the CAPA routes."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.contracts.missions import Name, Named, Text
from models.domain.states import CapaStatus, Severity
from models.schemas.envelope import Body

Remedy = Annotated[str, Field(max_length=10_000)]


class CapaCreate(Body):
    """Opens a corrective and preventive action, of a mission or on its own."""

    mission_id: Name | None = None
    title: Name
    cause: Text
    corrective: Remedy = ""
    preventive: Remedy = ""
    severity: Severity
    owner: Named | None = None


class CapaPatch(Body):
    """Moves a CAPA along, or fills in what was found out. What is left out stays."""

    status: CapaStatus | None = None
    cause: Text | None = None
    corrective: Remedy | None = None
    preventive: Remedy | None = None
    owner: Named | None = None

    @property
    def changes(self) -> dict[str, str]:
        """The fields to set."""
        return self.model_dump(exclude_none=True, mode="json")

    @model_validator(mode="after")
    def _changes_something(self) -> "CapaPatch":
        if not self.changes:
            raise ValueError("nothing to change: give status, cause, corrective, preventive or owner")
        return self


class CapaView(BaseModel):
    """A CAPA as clients see it (V-18)."""

    model_config = ConfigDict(from_attributes=True)

    capa_id: str
    mission_id: str | None
    title: str
    cause: str
    corrective: str
    preventive: str
    severity: Severity
    owner: str | None
    status: CapaStatus
    created_by: str
    created_at: datetime
    updated_at: datetime
