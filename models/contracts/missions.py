"""The mission package: the twelve models of MISS-01, which HTTP and Postgres share; Temporal carries only its id."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from models.contracts.wire import BOTH_CASES
from models.domain.memory import WriteScope
from models.domain.metrics import Comparator, Finite
from models.domain.names import one_spelling
from models.domain.patches import MAX_PATCH_BYTES
from models.domain.states import MissionOutcome, MissionStatus, Severity

Name = Annotated[str, Field(min_length=1, max_length=256)]
Named = Annotated[Name, AfterValidator(one_spelling)]
"""Whom one means: a principal, agent or role, in the one spelling of its name."""
Text = Annotated[str, Field(min_length=1, max_length=10_000)]


class Contract(BaseModel):
    """Base of all that crosses a boundary: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=BOTH_CASES)


class MissionContext(Contract):
    """The state of the world a mission began with (MISS-06); stage 1 fills it."""

    git_sha: str | None = None
    config_hash: str | None = None
    env: str | None = None
    branch: str | None = None
    version: str | None = None


class Symptom(Contract):
    """What was seen to be wrong (MISS-07)."""

    description: Text
    metric_id: Name | None = None
    observed_value: Finite | None = None
    threshold: Finite | None = None


class Evidence(Contract):
    """A pointer to something stored that shows what happened (MISS-08)."""

    kind: Literal["log", "test", "metric", "diagnostics"]
    uri: str
    digest: str
    at: AwareDatetime
    source: str


class MetricTarget(Contract):
    """A bound a metric must keep, over a rolling window in minutes (MISS-10, V-08)."""

    metric_id: Name
    comparator: Comparator
    target: Finite
    rolling_window_minutes: Annotated[Finite, Field(gt=0, le=1440)] = 10


class AcceptanceCriteria(Contract):
    """What must hold for the mission to count as done (MISS-09)."""

    must_pass_tests: Annotated[tuple[Name, ...], Field(max_length=500)] = ()
    pass_to_pass: bool = False
    metric_targets: Annotated[tuple[MetricTarget, ...], Field(max_length=100)] = ()
    observation_window_minutes: Annotated[Finite, Field(gt=0, le=1440)] = 30


class PatchCandidate(Contract):
    """A change to try: a unified diff, or a ref of the repository. Exactly one of the two."""

    id: str = ""
    diff: Annotated[str | None, Field(max_length=MAX_PATCH_BYTES)] = None
    ref: Annotated[str | None, Field(min_length=1, max_length=256)] = None
    author: Named | None = None


class WorkspaceInfo(Contract):
    """The repository a mission works on (MISS-11)."""

    repo_path: str
    working_branch: str
    patch_candidates: tuple[PatchCandidate, ...] = ()
    dependencies: tuple[str, ...] = ()


class TrustRequirements(Contract):
    """Who may take the mission, and what it may write (MISS-12, MISS-13)."""

    required_trust_score: Annotated[Finite, Field(ge=0, le=1)] = 0
    allowed_roles: Annotated[tuple[Named, ...], Field(max_length=50)] = ()
    memory_write_scope: WriteScope = WriteScope.PERSIST
    requires_governance_approval: bool = False


class CryptoSignature(Contract):
    """The service's Ed25519 signature over one recorded change (CRYP-02)."""

    subject: str
    digest: str
    signature: str
    key_id: str
    at: AwareDatetime


class RemediationEvent(Contract):
    """One entry of a mission's complete history (MISS-14)."""

    at: AwareDatetime
    stage: str | None = None
    actor: str
    action: str
    result: str
    git_sha: str | None = None
    config_hash: str | None = None


class TestResult(Contract):
    """One test case, run once (MISS-15)."""

    __test__ = False

    name: str
    outcome: Literal["passed", "failed", "error", "skipped"]
    duration_ms: float
    run: Literal["base", "before", "after", "observe"]
    log: str | None = None


class MissionPackage(Contract):
    """A mission as clients see it (MISS-02): the eleven keys of the seed first, then ours."""

    mission_id: str
    subsystem_id: str
    severity: Severity
    status: MissionStatus
    context: MissionContext
    symptoms: tuple[Symptom, ...]
    acceptance_criteria: AcceptanceCriteria
    workspace: WorkspaceInfo
    trust_requirements: TrustRequirements
    remediation_history: tuple[RemediationEvent, ...]
    crypto_signatures: tuple[CryptoSignature, ...]

    outcome: MissionOutcome | None = None
    reason: str | None = None
    mission_type: Literal["coding"] = "coding"
    repository_id: str | None = None
    detected_by: str | None = None
    assigned_to: str | None = None
    created_by: str | None = None
    stage: str | None = None
    paused: bool = False
    merge_sha: str | None = None
    revert_sha: str | None = None
    retry_of: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
