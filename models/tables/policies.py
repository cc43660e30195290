"""Policies by version, which one is in force, and what was judged by them."""

from models.tables.base import Json, JsonList, SQLModel, Time, json, key, names, now, words, yes


class PolicyVersion(SQLModel, table=True):
    """A policy as it was written; it never changes, another version replaces it."""

    __tablename__ = "policy_version"

    workspace_id: str = key(foreign_key="workspace.workspace_id")
    version: int = key()
    source: str
    digest: str
    note: str = words("")
    created_by: str
    created_at: Time = now()


class PolicyActive(SQLModel, table=True):
    """Which version is in force in a workspace."""

    __tablename__ = "policy_active"
    __table_args__ = names("policy_version", "version")

    workspace_id: str = key()
    version: int
    activated_by: str
    activated_at: Time = now()


class VerdictRow(SQLModel, table=True):
    """What the policy said of an act, with all that it was told: enough to judge it again by another version."""

    __tablename__ = "verdict"
    __table_args__ = names("mission", "mission_id")

    workspace_id: str = key()
    verdict_id: str = key()
    policy_version: int
    action: str
    input: Json = json()
    risk: str
    outcome: str
    rules: JsonList = json()
    reasons: JsonList = json()
    mission_id: str | None = None
    at: Time = now()


class DecisionAnswer(SQLModel, table=True):
    """What one person answered; several approvals may be needed, and who approved may deny after all.

    `counts` goes down with the end of its question, for approvals that did not count by then.
    """

    __tablename__ = "decision_answer"
    __table_args__ = names("decision", "decision_id")

    workspace_id: str = key()
    decision_id: str = key()
    principal: str = key()
    answer: str = key()
    explanation: str
    at: Time = now()
    counts: bool = yes()
