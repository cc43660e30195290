"""What a workspace remembers."""

from models.tables.base import JsonList, SQLModel, Time, json, key, names, now, time


class MemoryNote(SQLModel, table=True):
    """A note. What it says never changes; `digest` names that, `state` says whether it counts."""

    __tablename__ = "memory_note"
    __table_args__ = (*names("mission", "mission_id"), *names("decision", "decision_id"))

    workspace_id: str = key(foreign_key="workspace.workspace_id")
    memory_id: str = key()
    kind: str
    title: str
    body: str
    tags: JsonList = json("[]")
    mission_id: str | None = None
    digest: str
    state: str
    decision_id: str | None = None
    written_by: str
    created_at: Time = now()
    changed_by: str | None = None
    changed_at: Time | None = time()
