"""Agents, and the registrations by which they become principals."""

from decimal import Decimal

from models.tables.base import JsonList, SQLModel, Time, json, key, names, now, score, time, words


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
    tools: JsonList = json('["*"]')
    token_digest: str | None = None
    requested_by: str
    created_at: Time = now()
    decided_by: str | None = None
    decided_at: Time | None = time()
    key_fetched_at: Time | None = time()
    last_heartbeat_at: Time | None = time()
    resumed_at: Time | None = time()
    """Since when it can be heard of again; only its silence is counted from here."""
    silence: str = words("none")
    trust: Decimal = score("0.50")


class TrustChange(SQLModel, table=True):
    """What the end of a mission did to its agent's score; a mission does it once."""

    __tablename__ = "trust_change"
    __table_args__ = (*names("mission", "mission_id"), *names("agent", "agent_id"))

    workspace_id: str = key()
    mission_id: str = key()
    agent_id: str
    outcome: str
    before: Decimal = score()
    after: Decimal = score()
    at: Time = now()
