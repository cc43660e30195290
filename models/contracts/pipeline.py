"""What the coding pipeline's workflow and activities say to each other: ids, SHAs and verdicts, never logs or diffs."""

from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict

from models.domain.approval import Binding
from models.domain.stages import StageName, StageStatus
from models.domain.states import DecisionStatus, MissionOutcome, Severity

TASK_TIMEOUT = timedelta(seconds=5)
"""How long a worker may think about a workflow: one that is killed meanwhile is replaced after this, not after 10 s."""


class Payload(BaseModel):
    """Base of Temporal payloads: immutable; new fields only with defaults."""

    model_config = ConfigDict(frozen=True)


class PipelineInput(Payload):
    """Starts a mission's workflow."""

    workspace_id: str
    mission_id: str
    started_by: str = "system"
    correlation_id: str = ""


class StageRef(Payload):
    """Names one run of one stage. `round` counts how often the target branch moved under the mission."""

    workspace_id: str
    mission_id: str
    stage: StageName
    round: int = 0
    candidate: int = 0


class StageTask(Payload):
    """Base of what a stage's activity is asked: it names the run of the stage."""

    ref: StageRef

    @property
    def inputs(self) -> dict[str, Any]:
        """What the stage's record says that it was asked."""
        return self.model_dump(mode="json", exclude={"ref"})


class StageInput(StageTask):
    """Asks an activity to do a stage on a base commit, with the mission's commit where there is one.

    `first_run_id` names the workflow's first run: it stays when an engineer resets the workflow.
    """

    base_sha: str = ""
    head_sha: str = ""
    merge_sha: str = ""
    first_run_id: str = ""


class StageResult(Payload):
    """A stage's verdict: a failure of the mission's own work is an answer, not an error."""

    status: StageStatus
    reason: str = ""
    head_sha: str = ""
    patch_id: str = ""

    @property
    def failed(self) -> bool:
        """Whether the mission's work did not pass."""
        return self.status is StageStatus.FAILED


class CandidateTask(StageTask):
    """Asks for the proof of a candidate: stages 3 to 5 on a base commit, and what the probe measures there."""

    base_sha: str
    has_stress: bool = False
    has_probe: bool = False


class Proof(Payload):
    """What a candidate proved: its commit, and the stage that did not pass, if one did not."""

    failed_stage: StageName | None = None
    reason: str = ""
    head_sha: str = ""
    patch_id: str = ""


class ObserveEnd(StageResult):
    """How stage 10 ended; a mission that passed may have given its workbench back with it."""

    bench_closed: bool = False


class RollbackCheck(StageResult):
    """What the tests said of the branch after a rollback; log and report by the digests under which they are kept."""

    tests: dict[str, int] = {}
    log_digest: str = ""
    report_digest: str = ""
    isolation: str = ""


class PipelineContext(Payload):
    """How a round began, as far as the order of the later stages depends on it; where it failed, in which stage."""

    status: StageStatus
    reason: str = ""
    failed_stage: StageName | None = None
    repository_id: str = ""
    branch: str = ""
    base_sha: str = ""
    config_hash: str = ""
    host_queue: str = ""
    severity: Severity = Severity.MEDIUM
    created_at: datetime | None = None
    candidates: int = 0
    has_stress: bool = False
    has_probe: bool = False
    observation_seconds: float = 1800
    poll_seconds: float = 60


class Opened(Payload):
    """How a round began, and what its first candidate proved; None where there was nothing to prove."""

    context: PipelineContext
    proof: Proof | None = None


class GovernanceInput(StageTask):
    """Asks for the verdict on merging `head_sha`; `approved` is what an earlier decision of this mission bound.

    Where nothing was `stressed`, that is recorded first.
    """

    base_sha: str
    head_sha: str
    patch_id: str
    config_hash: str
    approved: Binding | None = None
    stressed: bool = False
    started_by: str = ""


class GovernanceAnswer(Payload):
    """A decision as the workflow needs it: pending ones are waited for until `expires_at`."""

    decision_id: str
    status: DecisionStatus
    reason: str = ""
    expires_at: datetime | None = None
    binding: Binding | None = None


class RoundAnswer(Payload):
    """How a round ends: with the stage that did not pass, or with the answer of stage 8.

    What needs no human may have the merge slot at once, where it is free: then under `slot_token`.
    """

    failed_stage: StageName | None = None
    reason: str = ""
    answer: GovernanceAnswer | None = None
    slot_token: int | None = None


class DecisionRef(StageTask):
    """Signal and activity argument: which decision was resolved, or what is asked about whose rollback."""

    decision_id: str
    detail: str = ""
    repeat: int = 0
    started_by: str = ""
    canceled_by: str = ""


class MergeInput(StageTask):
    """Asks for the merge, or for its reversal and why, under a slot's fencing token."""

    base_sha: str
    head_sha: str
    token: int
    merge_sha: str = ""
    reason: str = ""


class MergeResult(Payload):
    """`moved_to` is set when the target branch is no longer at the base: nothing was merged."""

    status: StageStatus
    reason: str = ""
    merge_sha: str = ""
    moved_to: str = ""


class ObserveInput(StageTask):
    """One look at the world after the merge; `number` counts looks from 1."""

    merge_sha: str
    started_at: datetime
    number: int
    breaches: tuple[str, ...] = ()


class ObserveResult(Payload):
    """`breaches` are the metrics outside their bounds now; `anomaly` says why the change must go."""

    breaches: tuple[str, ...] = ()
    anomaly: str = ""


class Conclusion(StageTask):
    """How the mission ends: what stage 11 records."""

    outcome: MissionOutcome
    reason: str
    failed_stage: StageName | None = None
    merge_sha: str = ""
    revert_sha: str = ""
    capa: bool = True
    check: RollbackCheck | None = None


class ControlRecord(Payload):
    """A change no activity did (pause, resume, note, cancel), to be written once per `key`; later `version`s win."""

    workspace_id: str
    mission_id: str
    key: str
    version: int
    action: str
    actor: str
    detail: str = ""
    correlation_id: str = ""


class RunsCheck(Payload):
    """Asks whether a limit blocks one of a mission's runs; an operator may have paused the mission beside it."""

    workspace_id: str
    mission_id: str
    is_paused: bool


class RunsKnown(Payload):
    """Whether a limit blocks one of a mission's runs, as the mission's row says from now on."""

    is_blocked: bool


class CloseInput(Payload):
    """Gives a mission's worktrees back."""

    workspace_id: str
    mission_id: str


class HostQueue(Payload):
    """The task queue of the host that takes a mission over."""

    name: str
