"""Bodies of the mission routes."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.contracts.missions import (
    AcceptanceCriteria,
    Evidence,
    MetricTarget,
    MissionPackage,
    Name,
    Named,
    Symptom,
    TrustRequirements,
)
from models.domain.ending import Choice
from models.domain.errors import InvalidInput
from models.domain.metrics import Catalog, Finite, default_targets
from models.domain.repo_config import RepoConfig
from models.domain.states import MissionOutcome, MissionStatus, Severity
from models.schemas.envelope import Body, Bounds, Said
from models.schemas.repositories import Branch

MAX_CANDIDATES = 20
MAX_TARGETS = 100
MissionType = Literal["coding"]
Place = Annotated[str, Field(min_length=1, max_length=2000)]


PATCHES = Bounds(bytes=64 * 1024 * 1024)
"""Patches are long, and one text each."""


class CandidateCreate(Body):
    """A change to try: a unified diff of up to 16 MiB, or a ref of the repository."""

    bounds: ClassVar[Bounds] = PATCHES
    diff: str | None = None
    ref: Branch | None = None
    author: Named | None = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> "CandidateCreate":
        if (self.diff is None) == (self.ref is None):
            raise ValueError("give a diff or a ref, exactly one of them")
        return self


class MissionCreate(Body):
    """Files a mission (MISS-17). The repository is named once, by id, name or place; only operators may override.

    Another branch than the repository's, where no operator files the mission, is judged as a protected one.
    """

    bounds: ClassVar[Bounds] = PATCHES
    subsystem_id: Name
    severity: Severity
    mission_type: MissionType = "coding"
    detected_by: Named | None = None
    assigned_to: Named | None = None
    symptoms: Annotated[tuple[Symptom, ...], Field(max_length=100)] = ()
    repository: Place | None = None
    workspace_repo_path: Place | None = None
    workspace_branch: Branch | None = None
    acceptance_criteria: AcceptanceCriteria = AcceptanceCriteria()
    trust_requirements: TrustRequirements = TrustRequirements()
    requires_governance_approval: bool = False
    approval_timeout_minutes: Annotated[Finite, Field(gt=0, le=30 * 1440)] | None = None
    patch_candidates: Annotated[tuple[CandidateCreate, ...], Field(max_length=MAX_CANDIDATES)] = ()
    dependencies: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    overrides: RepoConfig = RepoConfig()

    @property
    def place(self) -> str:
        """The repository, under whichever key it was named."""
        return self.repository or self.workspace_repo_path or ""

    def with_default_targets(self, catalog: Catalog) -> "MissionCreate":
        """Hold metrics that the symptoms name, and the criteria do not, to the catalog's bounds (MISS-32).

        Raises:
            InvalidInput: `too_many_targets`, with those that are inherited.
        """
        given = self.acceptance_criteria.metric_targets
        bounds = default_targets(catalog, (symptom.metric_id for symptom in self.symptoms), given)
        targets = given + tuple(MetricTarget.model_validate(bound.model_dump()) for bound in bounds)
        if len(targets) > MAX_TARGETS:
            raise InvalidInput(
                "too_many_targets", f"a mission has at most {MAX_TARGETS} targets, inherited ones included"
            )
        criteria = self.acceptance_criteria.model_copy(update={"metric_targets": targets})
        return self.model_copy(update={"acceptance_criteria": criteria})

    @model_validator(mode="after")
    def _names_one_repository(self) -> "MissionCreate":
        if (self.repository is None) == (self.workspace_repo_path is None):
            raise ValueError("name the repository by repository or by workspace_repo_path, exactly one of them")
        return self


class MissionExecute(Body):
    """Starts a mission."""

    mission_type: MissionType = "coding"


class MissionCommand(Body):
    """Pauses or resumes a mission."""

    reason: Annotated[str, Field(max_length=2000)] = ""


class MissionNote(Body):
    """Adds a remark to a running mission."""

    text: Said


class MissionCancel(MissionCommand):
    """Ends a mission; after the merge `merged` says what becomes of it."""

    merged: Choice | None = None


class MissionStarted(BaseModel):
    """A mission's workflow was started."""

    mission_id: str
    run_id: str
    links: dict[str, str]


class MissionView(MissionPackage):
    """A mission with pointers to its evidence and the addresses that belong to it."""

    approval_timeout_minutes: float | None = None
    overrides: dict[str, Any] = Field(default_factory=dict)
    blocked: str | None = Field(default=None, description="The limit that holds it, where one does.")
    merged_at: datetime | None = None
    evidence: tuple[Evidence, ...] = ()
    links: dict[str, str] = Field(default_factory=dict)


class MissionSummary(BaseModel):
    """A mission in a list."""

    model_config = ConfigDict(from_attributes=True)

    mission_id: str
    subsystem_id: str
    severity: Severity
    status: MissionStatus
    outcome: MissionOutcome | None
    reason: str | None
    stage: str | None
    paused: bool
    blocked: str | None
    mission_type: MissionType
    repository_id: str
    branch: str
    detected_by: str | None
    assigned_to: str | None
    created_by: str
    retry_of: str | None
    merge_sha: str | None
    revert_sha: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class CandidateView(BaseModel):
    """A change that was or will be tried, and how it fared."""

    model_config = ConfigDict(from_attributes=True)

    number: int
    digest: str | None
    ref: str | None
    author: str
    added_by: str
    outcome: str | None
    reason: str | None
    created_at: datetime
    links: dict[str, str] = Field(default_factory=dict)
