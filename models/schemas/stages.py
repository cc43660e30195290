"""Bodies of the stage and evidence routes."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.contracts.missions import Evidence
from models.domain.stages import StageName, StageStatus
from models.schemas.metrics import ObservationView


class StageView(BaseModel):
    """A stage's evidence record; once ended it is signed: `digest` covers it, `signature` the digest (PIPE-20)."""

    model_config = ConfigDict(from_attributes=True)

    stage: StageName
    number: str
    round: int
    candidate: int
    status: StageStatus
    reason: str
    attempt: int
    inputs: dict[str, Any]
    result: dict[str, Any]
    git_sha: str | None
    config_hash: str | None
    log_digest: str | None
    digest: str | None
    signature: str | None
    key_id: str | None
    started_at: datetime
    ended_at: datetime | None
    links: dict[str, str] = Field(default_factory=dict)


class TestResultView(BaseModel):
    """One test case of one run."""

    __test__ = False
    model_config = ConfigDict(from_attributes=True)

    run: Literal["base", "before", "after", "observe"]
    round: int
    candidate: int
    ordinal: int
    name: str
    outcome: Literal["passed", "failed", "error", "skipped"]
    duration_ms: float
    log_digest: str | None


class TestResultPage(BaseModel):
    """Some of a mission's test results, in the order of the runs; `total` counts all of them."""

    __test__ = False

    items: tuple[TestResultView, ...]
    total: int
    limit: int
    offset: int


class EvidenceView(BaseModel):
    """All that a mission left behind: signed records, stored things, test results, samples it was judged by."""

    workspace_id: str
    mission_id: str
    stages: tuple[StageView, ...]
    evidence: tuple[Evidence, ...]
    test_results: TestResultPage
    metric_observations: tuple[ObservationView, ...]
    links: dict[str, str]
