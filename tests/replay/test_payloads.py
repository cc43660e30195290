"""What crosses Temporal is readable by the versions before and after: the form of every payload is pinned.

A mission may run for days, so a payload that one version wrote is read by the next. A new field has a default, and
none is renamed or retyped; what is written then changes below, and the histories show that the old form is still read.
"""

import inspect
from datetime import UTC, datetime

import pytest
from temporalio.contrib.pydantic import pydantic_data_converter

from models.contracts import controls, merge_queue, pipeline, reconciling
from models.contracts.controls import CancelCommand, Command, ControlAnswer, MissionSnapshot, Note
from models.contracts.merge_queue import (
    MergeQueueState,
    QueueRef,
    SlotAsk,
    SlotGrant,
    SlotOffer,
    SlotOutcome,
    SlotRelease,
    SlotRequest,
    SlotReturn,
)
from models.contracts.pipeline import (
    CandidateTask,
    CloseInput,
    Conclusion,
    ControlRecord,
    DecisionRef,
    GovernanceAnswer,
    GovernanceInput,
    HostQueue,
    MergeInput,
    MergeResult,
    ObserveEnd,
    ObserveInput,
    ObserveResult,
    Opened,
    Payload,
    PipelineContext,
    PipelineInput,
    Proof,
    RollbackCheck,
    RoundAnswer,
    RunsCheck,
    RunsKnown,
    StageInput,
    StageRef,
    StageResult,
    StageTask,
)
from models.contracts.reconciling import Leftover, Reconciled
from models.domain.approval import Binding
from models.domain.stages import StageName, StageStatus
from models.domain.states import DecisionStatus, MissionOutcome, Severity

NOON = datetime(2025, 1, 10, 12, tzinfo=UTC)
REF = StageRef(workspace_id="w", mission_id="m", stage=StageName.RUN_TESTS, round=1, candidate=2)
REF_JSON = '{"workspace_id":"w","mission_id":"m","stage":"run_tests","round":1,"candidate":2}'
BINDING = Binding(patch_id="p", config_hash="c", policy_version="v", reasons=("r",), rules=("a",))
BINDING_JSON = '{"patch_id":"p","config_hash":"c","policy_version":"v","reasons":["r"],"rules":["a"]}'
REQUEST = SlotRequest(workflow_id="i", run_id="r", number=3, rank=1, created_at=NOON)
REQUEST_JSON = '{"workflow_id":"i","run_id":"r","number":3,"rank":1,"created_at":"2025-01-10T12:00:00Z"}'
CONTEXT = PipelineContext(
    status=StageStatus.PASSED, repository_id="r", branch="main", severity=Severity.LOW, created_at=NOON
)
CONTEXT_JSON = (
    '{"status":"passed","reason":"","failed_stage":null,"repository_id":"r","branch":"main","base_sha":"","config_hash":"",'
    '"host_queue":"","severity":"low","created_at":"2025-01-10T12:00:00Z","candidates":0,'
    '"has_stress":false,"has_probe":false,"observation_seconds":1800.0,"poll_seconds":60.0}'
)
RUNS_JSON = '{"workspace_id":"w","mission_id":"m","is_paused":true}'
QUEUE = QueueRef(workspace_id="w", repository_id="r", branch="main")
QUEUE_JSON = '{"repository_id":"r","branch":"main","workspace_id":"w"}'
ROUND_JSON = '{"failed_stage":"merge","reason":"r","answer":null,"slot_token":7}'
LEFT = SlotRelease(workflow_id="i", run_id="r")
LEFT_JSON = '{"workflow_id":"i","run_id":"r"}'

GOLDEN: list[tuple[Payload, str]] = [
    (RunsCheck(workspace_id="w", mission_id="m", is_paused=True), RUNS_JSON),
    (RunsKnown(is_blocked=True), '{"is_blocked":true}'),
    (
        PipelineInput(workspace_id="w", mission_id="m", started_by="anna", correlation_id="c"),
        '{"workspace_id":"w","mission_id":"m","started_by":"anna","correlation_id":"c"}',
    ),
    (REF, REF_JSON),
    (
        StageInput(ref=REF, base_sha="b", head_sha="h", merge_sha="m", first_run_id="f"),
        f'{{"ref":{REF_JSON},"base_sha":"b","head_sha":"h","merge_sha":"m","first_run_id":"f"}}',
    ),
    (
        StageResult(status=StageStatus.PASSED, reason="r", head_sha="h", patch_id="p"),
        '{"status":"passed","reason":"r","head_sha":"h","patch_id":"p"}',
    ),
    (
        RollbackCheck(status=StageStatus.PASSED, tests={"passed": 2}, log_digest="l", report_digest="r", isolation="i"),
        '{"status":"passed","reason":"","head_sha":"","patch_id":"","tests":{"passed":2},"log_digest":"l",'
        '"report_digest":"r","isolation":"i"}',
    ),
    (CONTEXT, CONTEXT_JSON),
    (
        Opened(context=CONTEXT, proof=Proof(head_sha="h", patch_id="p")),
        f'{{"context":{CONTEXT_JSON},"proof":{{"failed_stage":null,"reason":"","head_sha":"h","patch_id":"p"}}}}',
    ),
    (
        GovernanceInput(ref=REF, base_sha="b", head_sha="h", patch_id="p", config_hash="c", approved=BINDING),
        f'{{"ref":{REF_JSON},"base_sha":"b","head_sha":"h","patch_id":"p","config_hash":"c","approved":{BINDING_JSON},'
        '"stressed":false,"started_by":""}',
    ),
    (RoundAnswer(failed_stage=StageName.MERGE, reason="r", slot_token=7), ROUND_JSON),
    (
        CandidateTask(ref=REF, base_sha="b", has_stress=True),
        f'{{"ref":{REF_JSON},"base_sha":"b","has_stress":true,"has_probe":false}}',
    ),
    (
        Proof(failed_stage=StageName.RUN_TESTS, reason="r", head_sha="h", patch_id="p"),
        '{"failed_stage":"run_tests","reason":"r","head_sha":"h","patch_id":"p"}',
    ),
    (
        ObserveEnd(status=StageStatus.PASSED, bench_closed=True),
        '{"status":"passed","reason":"","head_sha":"","patch_id":"","bench_closed":true}',
    ),
    (
        GovernanceAnswer(decision_id="d", status=DecisionStatus.PENDING, expires_at=NOON, binding=BINDING),
        f'{{"decision_id":"d","status":"pending","reason":"","expires_at":"2025-01-10T12:00:00Z","binding":{BINDING_JSON}}}',
    ),
    (
        DecisionRef(ref=REF, decision_id="d", detail="x", repeat=2),
        f'{{"ref":{REF_JSON},"decision_id":"d","detail":"x","repeat":2,"started_by":"","canceled_by":""}}',
    ),
    (
        MergeInput(ref=REF, base_sha="b", head_sha="h", token=7, merge_sha="m", reason="r"),
        f'{{"ref":{REF_JSON},"base_sha":"b","head_sha":"h","token":7,"merge_sha":"m","reason":"r"}}',
    ),
    (
        MergeResult(status=StageStatus.SKIPPED, moved_to="n"),
        '{"status":"skipped","reason":"","merge_sha":"","moved_to":"n"}',
    ),
    (
        ObserveInput(ref=REF, merge_sha="m", started_at=NOON, number=2, breaches=("p95",)),
        f'{{"ref":{REF_JSON},"merge_sha":"m","started_at":"2025-01-10T12:00:00Z","number":2,"breaches":["p95"]}}',
    ),
    (ObserveResult(breaches=("p95",), anomaly="a"), '{"breaches":["p95"],"anomaly":"a"}'),
    (
        Conclusion(ref=REF, outcome=MissionOutcome.FAILED, reason="r", failed_stage=StageName.MERGE),
        f'{{"ref":{REF_JSON},"outcome":"failed","reason":"r","failed_stage":"merge","merge_sha":"","revert_sha":"",'
        '"capa":true,"check":null}',
    ),
    (
        ControlRecord(workspace_id="w", mission_id="m", key="k", version=1, action="pause", actor="olga"),
        '{"workspace_id":"w","mission_id":"m","key":"k","version":1,"action":"pause","actor":"olga","detail":"",'
        '"correlation_id":""}',
    ),
    (CloseInput(workspace_id="w", mission_id="m"), '{"workspace_id":"w","mission_id":"m"}'),
    (HostQueue(name="q"), '{"name":"q"}'),
    (Command(actor="olga", correlation_id="c", reason="r"), '{"actor":"olga","correlation_id":"c","reason":"r"}'),
    (Note(actor="olga", text="t"), '{"actor":"olga","correlation_id":"","reason":"","text":"t"}'),
    (
        CancelCommand(actor="olga", merged="roll_back"),
        '{"actor":"olga","correlation_id":"","reason":"","merged":"roll_back"}',
    ),
    (
        ControlAnswer(effect="stops_command", stage=StageName.RUN_TESTS, paused=True),
        '{"effect":"stops_command","stage":"run_tests","paused":true,"reason":""}',
    ),
    (
        MissionSnapshot(stage=StageName.MERGE, outcome=MissionOutcome.MERGED),
        '{"stage":"merge","round":0,"candidate":0,"paused":false,"canceling":false,"merge_sha":"","decision_id":"",'
        '"outcome":"merged","notes":0}',
    ),
    (QUEUE, QUEUE_JSON),
    (LEFT, LEFT_JSON),
    (REQUEST, REQUEST_JSON),
    (SlotGrant(number=3, token=7), '{"number":3,"token":7}'),
    (SlotAsk(queue=QUEUE, request=REQUEST), f'{{"queue":{QUEUE_JSON},"request":{REQUEST_JSON},"again":false}}'),
    (
        SlotReturn(queue=QUEUE, release=LEFT, waited=True),
        f'{{"queue":{QUEUE_JSON},"release":{LEFT_JSON},"waited":true}}',
    ),
    (
        SlotOffer(queue=QUEUE, to=REQUEST, left=(LEFT,)),
        f'{{"queue":{QUEUE_JSON},"to":{REQUEST_JSON},"left":[{LEFT_JSON}]}}',
    ),
    (SlotOutcome(gone=True, held=LEFT), f'{{"gone":true,"held":{LEFT_JSON}}}'),
    (
        MergeQueueState(queue=QUEUE, holder=REQUEST, waiting=(REQUEST,), left=(LEFT,)),
        f'{{"queue":{QUEUE_JSON},"holder":{REQUEST_JSON},"waiting":[{REQUEST_JSON}],"left":[{LEFT_JSON}]}}',
    ),
    (
        Leftover(host="h", task=CloseInput(workspace_id="w", mission_id="m")),
        '{"host":"h","task":{"workspace_id":"w","mission_id":"m"}}',
    ),
    (Reconciled(signals=1, closed=2, swept=3), '{"signals":1,"closed":2,"swept":3}'),
]


@pytest.mark.parametrize(("value", "text"), GOLDEN, ids=lambda value: type(value).__name__)
class TestGolden:
    async def test_it_is_written_so(self, value: Payload, text: str) -> None:
        [written] = await pydantic_data_converter.encode([value])
        assert written.data.decode() == text

    async def test_it_is_read_back(self, value: Payload, text: str) -> None:
        assert type(value).model_validate_json(text) == value

    async def test_a_field_of_a_later_version_is_passed_over(self, value: Payload, text: str) -> None:
        later = text[:-1] + ',"of_a_later_version":1}'
        assert type(value).model_validate_json(later) == value


OLDER: list[tuple[Payload | Binding, str]] = [
    (
        Binding(patch_id="p", config_hash="c", policy_version="v"),
        '{"patch_id":"p","config_hash":"c","policy_version":"v"}',
    ),
    (
        Binding(patch_id="p", config_hash="c", policy_version="v", reasons=("r",)),
        '{"patch_id":"p","config_hash":"c","policy_version":"v","reasons":["r"]}',
    ),
    (StageInput(ref=REF, base_sha="b"), f'{{"ref":{REF_JSON},"base_sha":"b","head_sha":"","merge_sha":""}}'),
    (
        DecisionRef(ref=REF, decision_id="d", detail="x", repeat=2),
        f'{{"ref":{REF_JSON},"decision_id":"d","detail":"x","repeat":2,"started_by":""}}',
    ),
    (SlotGrant(number=3, token=7), '{"queue_id":"q","number":3,"token":7}'),
    (
        Conclusion(ref=REF, outcome=MissionOutcome.FAILED, reason="r"),
        f'{{"ref":{REF_JSON},"outcome":"failed","reason":"r","decision_id":"d"}}',
    ),
]


@pytest.mark.parametrize(("value", "text"), OLDER, ids=lambda value: type(value).__name__)
def test_what_an_older_version_wrote_is_read(value: Payload | Binding, text: str) -> None:
    assert type(value).model_validate_json(text) == value


def test_every_payload_is_pinned() -> None:
    known = {
        kind
        for module in (pipeline, controls, merge_queue, reconciling)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Payload)
    }
    assert {type(value) for value, _ in GOLDEN} == known - {Payload, StageTask}
