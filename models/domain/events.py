"""The closed list of event types (V-27), and the shape of one event."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from models.domain.names import MAX_ID


class EventType(StrEnum):
    """What may happen. Each is written in the transaction of the change it tells of."""

    MISSION_CREATED = "mission.created"
    MISSION_CANDIDATE_ADDED = "mission.candidate_added"
    MISSION_ASSIGNED = "mission.assigned"
    MISSION_EXECUTE_REQUESTED = "mission.execute_requested"
    MISSION_STARTED = "mission.started"
    MISSION_PAUSED = "mission.paused"
    MISSION_RESUMED = "mission.resumed"
    MISSION_BLOCKED = "mission.blocked"
    MISSION_UNBLOCKED = "mission.unblocked"
    MISSION_NOTED = "mission.noted"
    MISSION_CANCEL_REQUESTED = "mission.cancel_requested"
    MISSION_MERGED = "mission.merged"
    MISSION_ROLLED_BACK = "mission.rolled_back"
    MISSION_OBSERVING = "mission.observing"
    MISSION_RESOLVED = "mission.resolved"
    MISSION_ESCALATED = "mission.escalated"
    STAGE_STARTED = "stage.started"
    STAGE_PASSED = "stage.passed"
    STAGE_FAILED = "stage.failed"
    STAGE_SKIPPED = "stage.skipped"
    STAGE_WAITING_DECISION = "stage.waiting_decision"
    DIAGNOSTICS_PUBLISHED = "diagnostics.published"
    DECISION_REQUESTED = "decision.requested"
    DECISION_APPROVAL_GIVEN = "decision.approval_given"
    DECISION_HALF_TIME = "decision.half_time"
    DECISION_APPROVED = "decision.approved"
    DECISION_DENIED = "decision.denied"
    DECISION_EXPIRED = "decision.expired"
    DECISION_CANCELED = "decision.canceled"
    POLICY_VERSION_CREATED = "policy.version_created"
    POLICY_ACTIVATED = "policy.activated"
    MEMORY_PROPOSED = "memory.proposed"
    MEMORY_KEPT = "memory.kept"
    MEMORY_REFUSED = "memory.refused"
    MEMORY_WITHDRAWN = "memory.withdrawn"
    CAPA_CREATED = "capa.created"
    CAPA_CHANGED = "capa.changed"
    METRIC_OBSERVED = "metric.observed"
    RUN_STARTED = "run.started"
    RUN_BLOCKED = "run.blocked"
    RUN_UNBLOCKED = "run.unblocked"
    RUN_ENDED = "run.ended"
    TOOL_CALL_ALLOWED = "tool_call.allowed"
    TOOL_CALL_PENDING = "tool_call.pending"
    TOOL_CALL_DENIED = "tool_call.denied"
    TOOL_CALL_SUCCESS = "tool_call.success"
    TOOL_CALL_FAILED = "tool_call.failed"
    BUDGET_CHANGED = "budget.changed"
    BUDGET_EXCEEDED = "budget.exceeded"
    BUDGET_ADJUSTED = "budget.adjusted"
    ALERT_RAISED = "alert.raised"
    ALERT_ACKNOWLEDGED = "alert.acknowledged"
    ALERT_RESOLVED = "alert.resolved"
    REPOSITORY_REGISTERED = "repository.registered"
    WORKSPACE_CREATED = "workspace.created"
    WORKSPACE_CHANGED = "workspace.changed"
    PRINCIPAL_CREATED = "principal.created"
    PRINCIPAL_ROLE_CHANGED = "principal.role_changed"
    PRINCIPAL_DEACTIVATED = "principal.deactivated"
    AGENT_REGISTERED = "agent.registered"
    AGENT_APPROVED = "agent.approved"
    AGENT_REJECTED = "agent.rejected"
    AGENT_CHANGED = "agent.changed"
    AGENT_STATUS_CHANGED = "agent.status_changed"
    AGENT_DEACTIVATED = "agent.deactivated"
    AGENT_STALE = "agent.stale"
    AGENT_LOST = "agent.lost"
    AGENT_RETURNED = "agent.returned"
    AGENT_TRUST_CHANGED = "agent.trust_changed"
    AGENT_DECIDED = "agent.decided"
    API_KEY_CREATED = "api_key.created"
    API_KEY_ROTATED = "api_key.rotated"
    API_KEY_REVOKED = "api_key.revoked"
    SESSION_OPENED = "session.opened"
    SESSION_CLOSED = "session.closed"
    SIGNING_KEY_ADDED = "signing_key.added"
    CONFIG_CHANGED = "config.changed"
    AUDIT_REDACTED = "audit.redacted"
    SUBSYSTEM_ERROR = "subsystem.error"
    SUBSYSTEM_REPORT = "subsystem.report"

    @classmethod
    def unlisted(cls, name: str) -> "EventType":
        """Name a type that only a newer version writes, so that its events can be passed on; the list stays closed."""
        made = str.__new__(cls, name)
        made._name_ = made._value_ = name
        return made


NO_ACTS = frozenset({EventType.METRIC_OBSERVED, EventType.SUBSYSTEM_ERROR, EventType.SUBSYSTEM_REPORT})
"""What somebody outside says of the world: the trigger `event_is_audited` gives it no row in the audit log."""


class Subject(BaseModel):
    """What an event is about."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(min_length=1, max_length=64)
    id: str = Field(min_length=1, max_length=MAX_ID)

    @classmethod
    def kept(cls, kind: str, name: str) -> "Subject":
        """Name what a row is about as it does: none, however long its name is, keeps others from being read."""
        return cls.model_construct(kind=kind, id=name)


class Event(BaseModel):
    """One immutable fact, as watchers see it. `id` is its place in the stream, good as `Last-Event-ID`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern="^[0-9]+-[0-9]+-[0-9]+$")
    type: EventType
    workspace_id: str
    correlation_id: str
    occurred_at: datetime
    actor: str
    subject: Subject
    data: dict[str, Any]
