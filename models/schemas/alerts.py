"""Bodies of the alert routes."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from models.domain.alerts import AlertKind, AlertStatus
from models.schemas.envelope import Body, Said


class AlertChange(Body):
    """Says that an alert was seen, or is over, and what came of it."""

    note: Said | None = None


class AlertView(BaseModel):
    """Something that is wrong: since when, what it is about, and who has seen to it."""

    model_config = ConfigDict(from_attributes=True)

    alert_id: str
    kind: AlertKind
    subject_kind: str
    subject_id: str
    status: AlertStatus
    summary: str
    details: dict[str, Any]
    detected_at: datetime
    acknowledged_by: str | None
    acknowledged_at: datetime | None
    resolved_by: str | None
    resolved_at: datetime | None
    note: str | None
