"""Alerts: what somebody should look at."""

from models.tables.base import Json, SQLModel, Time, json, key, time, words


class Alert(SQLModel, table=True):
    """Something that is wrong, from its detection until it is resolved; of each thing one at a time."""

    workspace_id: str = key(foreign_key="workspace.workspace_id")
    alert_id: str = key()
    kind: str
    subject_kind: str
    subject_id: str
    status: str = words("open")
    summary: str
    details: Json = json("{}")
    detected_at: Time = time(nullable=False)
    acknowledged_by: str | None = None
    acknowledged_at: Time | None = time()
    resolved_by: str | None = None
    resolved_at: Time | None = time()
    note: str | None = None
