"""Agents, and the registrations by which they become principals."""

from models.tables.base import JsonList, SQLModel, Time, json, key, now, time, words


class AgentRow(SQLModel, table=True):
    """An agent, from its registration on. `silence` is what the sweep last said about missing heartbeats."""

    __tablename__ = "agent"

    workspace_id: str = key(foreign_key="workspace.workspace_id")
    agent_id: str = key()
    name: str
    registration: str
    status: str | None = None
    level: str = words("intern")
    endpoint: str | None = None
    capabilities: JsonList = json("[]")
    token_digest: str | None = None
    requested_by: str
    created_at: Time = now()
    decided_by: str | None = None
    decided_at: Time | None = time()
    key_fetched_at: Time | None = time()
    last_heartbeat_at: Time | None = time()
    silence: str = words("none")
