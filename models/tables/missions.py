"""Missions, and all that a mission leaves behind."""

from sqlmodel import FetchedValue, Field

from models.tables.base import Json, JsonList, SQLModel, Time, big, binary, json, key, names, no, now, time


class MissionCounter(SQLModel, table=True):
    """The last number given out in a workspace on a day (MISS-03)."""

    __tablename__ = "mission_counter"

    workspace_id: str = key()
    day: str = key()
    last: int


class Mission(SQLModel, table=True):
    """A mission's present state; only its workflow moves it."""

    __table_args__ = (*names("repository", "repository_id"), *names("mission", "retry_of", "mission_id"))

    workspace_id: str = key(foreign_key="workspace.workspace_id")
    mission_id: str = key()
    seq: int = big()
    repository_id: str
    subsystem_id: str
    severity: str
    severity_rank: int
    status: str
    outcome: str | None = None
    reason: str | None = None
    stage: str | None = None
    paused: bool = False
    blocked: str | None = None
    blocks_told: int = 0
    blocks_told_at: Time | None = time()
    control_version: int = 0
    mission_type: str = "coding"
    branch: str
    chosen_branch: bool = no()
    env: str
    protected: bool
    context: Json = json("{}")
    commands: Json = json("{}")
    symptoms: JsonList = json("[]")
    acceptance_criteria: Json = json("{}")
    dependencies: JsonList = json("[]")
    trust_requirements: Json = json("{}")
    overrides: Json = json("{}")
    approval_timeout_minutes: float | None = None
    detected_by: str | None = None
    assigned_to: str | None = None
    filed_for: str | None = None
    created_by: str
    correlation_id: str
    retry_of: str | None = None
    run_id: str | None = None
    host: str | None = None
    merge_sha: str | None = None
    revert_sha: str | None = None
    created_at: Time = now()
    claimed_at: Time | None = time()
    started_at: Time | None = time()
    merged_at: Time | None = time()
    ended_at: Time | None = time()
    required_trust: float | None = Field(default=None, sa_column_kwargs={"server_default": FetchedValue()})


class Candidate(SQLModel, table=True):
    """A patch to try. A diff's text is a blob; `outcome` and `reason` say how it fared.

    `author` is whom the commit names, `added_by` who brought it: only that one is known for certain.
    """

    __table_args__ = names("mission", "mission_id")

    workspace_id: str = key()
    mission_id: str = key()
    number: int = key()
    digest: str | None = None
    ref: str | None = None
    author: str
    added_by: str
    outcome: str | None = None
    reason: str | None = None
    created_at: Time = now()


class Stage(SQLModel, table=True):
    """A stage's evidence record; signed and never changed once it has ended."""

    __table_args__ = names("mission", "mission_id")

    workspace_id: str = key()
    mission_id: str = key()
    round: int = key()
    candidate: int = key()
    stage: str = key()
    position: int
    status: str
    attempt: int
    reason: str = ""
    inputs: Json = json("{}")
    result: Json = json("{}")
    git_sha: str | None = None
    config_hash: str | None = None
    log_id: str | None = None
    log_digest: str | None = None
    digest: str | None = None
    signature: str | None = None
    key_id: str | None = None
    started_at: Time = now()
    ended_at: Time | None = time()


class EvidenceRow(SQLModel, table=True):
    """A pointer to stored evidence of a mission."""

    __tablename__ = "evidence"
    __table_args__ = names("mission", "mission_id")

    workspace_id: str = key()
    mission_id: str = key()
    evidence_id: str = key()
    kind: str
    stage: str
    digest: str
    at: Time = now()


class TestResultRow(SQLModel, table=True):
    """One test case of one run."""

    __test__ = False
    __tablename__ = "test_result"
    __table_args__ = names("mission", "mission_id")

    workspace_id: str = key()
    mission_id: str = key()
    run: str = key()
    round: int = key()
    candidate: int = key()
    ordinal: int = key()
    name: str
    outcome: str
    duration_ms: float
    log_digest: str | None = None


class MetricSample(SQLModel, table=True):
    """One sample of a metric, posted or read by a probe."""

    __tablename__ = "metric_observation"
    __table_args__ = names("mission", "mission_id")

    workspace_id: str = key(foreign_key="workspace.workspace_id")
    observation_id: str = key()
    metric_id: str
    value: float
    at: Time = now()
    mission_id: str | None = None
    phase: str | None = None
    source: str


class RemediationRow(SQLModel, table=True):
    """One entry of a mission's history."""

    __tablename__ = "remediation_event"
    __table_args__ = names("mission", "mission_id")

    workspace_id: str = key()
    mission_id: str = key()
    entry_id: str = key()
    stage: str | None = None
    actor: str
    action: str
    result: str
    git_sha: str | None = None
    config_hash: str | None = None
    at: Time = now()


class Blob(SQLModel, table=True):
    """Bytes named by their digest: diffs, logs, reports. `removed` says why the bytes were taken away."""

    workspace_id: str = key()
    digest: str = key()
    size: int
    content: bytes = binary()
    removed: str | None = None
    created_at: Time = now()


class LogChunk(SQLModel, table=True):
    """A piece of a log that is still growing; gone once the whole is a blob."""

    __tablename__ = "log_chunk"

    workspace_id: str = key()
    log_id: str = key()
    seq: int = key()
    content: bytes = binary()


class Workbench(SQLModel, table=True):
    """Which host holds a mission's worktrees, so that what a dead host left can be swept."""

    __table_args__ = names("mission", "mission_id")

    workspace_id: str = key()
    mission_id: str = key()
    host: str = key()
    opened_at: Time = now()
    closed_at: Time | None = time()


class BaseResult(SQLModel, table=True):
    """A test run of a base commit, kept because it does not change."""

    __tablename__ = "base_result"
    __table_args__ = names("repository", "repository_id")

    workspace_id: str = key()
    repository_id: str = key()
    result_key: str = key()
    digest: str
    created_at: Time = now()


class Decision(SQLModel, table=True):
    """A question put to a human, with all that the answer binds."""

    __table_args__ = names("mission", "mission_id")

    workspace_id: str = key(foreign_key="workspace.workspace_id")
    decision_id: str = key()
    kind: str
    mission_id: str | None = Field(default=None)
    round: int = 0
    candidate: int = 0
    status: str
    risk: str
    reasons: JsonList = json("[]")
    question: Json = json("{}")
    binding: Json = json("{}")
    requested_by: str
    requested_at: Time = now()
    expires_at: Time | None = time()
    resolved_by: str | None = None
    resolved_at: Time | None = time()
    explanation: str | None = None
    acknowledged_at: Time | None = time()
    terms: Json = json("{}")
    single_operator: bool = no()
    half_time_told_at: Time | None = time()
    risk_rank: int | None = Field(default=None, sa_column_kwargs={"server_default": FetchedValue()})
    answer_until: Time | None = time(server_default=FetchedValue())
    """When it expires, as the list is sorted by it: what never does comes after all that do."""
    about: str | None = Field(default=None, sa_column_kwargs={"server_default": FetchedValue()})
    """What is looked for by its questions: the run of a tool call, or the limit, as events name it."""


class Capa(SQLModel, table=True):
    """A corrective and preventive action. `cause_key` makes the one of a failed run unique."""

    __table_args__ = names("mission", "mission_id")

    workspace_id: str = key(foreign_key="workspace.workspace_id")
    capa_id: str = key()
    mission_id: str | None = None
    cause_key: str | None = None
    title: str
    cause: str
    corrective: str = ""
    preventive: str = ""
    severity: str
    owner: str | None = None
    status: str
    created_by: str
    created_at: Time = now()
    updated_at: Time = now()


class MergeFence(SQLModel, table=True):
    """A branch's merge slot: who holds it, under which token (older ones are refused), and whether others wait."""

    __tablename__ = "merge_fence"
    __table_args__ = names("repository", "repository_id")

    workspace_id: str = key()
    repository_id: str = key()
    branch: str = key()
    token: int = big()
    holder: str | None = None
    holder_run: str | None = None
    awaited: bool = no()
