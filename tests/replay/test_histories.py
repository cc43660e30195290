"""Kept histories replay: a mission that was started by an older version goes on with this one.

A test that fails here says that a workflow asks for other things, or in another order, than the version that the
history was recorded with. Guard the change with `workflow.patched`, so that running missions keep to the old way; do
not record the history again. A new way gets a new scenario and its own history (`python -m tests.replay.record`).
"""

import asyncio
import base64
import json
import os
import sys
from typing import Any

import pytest
from temporalio.workflow import NondeterminismError

from models.domain.states import MissionOutcome
from tests.replay.divergent import DivergentWorkflow
from tests.replay.replaying import FINGERPRINTS, events, fingerprint, load, names, replay
from tests.replay.scenarios import SCENARIOS
from worker.main import WORKFLOWS
from workflows.coding_pipeline import CodingPipelineWorkflow
from workflows.merge_queue import MergeQueueWorkflow
from workflows.reconcile import ReconcileWorkflow

BY_FOLDER = {
    "coding_pipeline": CodingPipelineWorkflow,
    "merge_queue": MergeQueueWorkflow,
    "reconcile": ReconcileWorkflow,
}
OUTCOMES = {
    "green": "merged",
    "stress_and_probe": "merged",
    "second_candidate": "merged",
    "failed_test": "failed",
    "broken_part": "failed",
    "approved": "merged",
    "answer_untold": "merged",
    "block_untold": "merged",
    "denied": "denied",
    "expired": "expired",
    "rolled_back": "rolled_back",
    "rollback_conflict": "failed",
    "paused": "merged",
    "blocked": "merged",
    "canceled": "canceled",
    "canceled_and_rolled_back": "rolled_back",
    "canceled_in_temporal": "canceled",
    "moved_branch": "merged",
    "asked_again": "merged",
    "slot_yielded": "merged",
    "slot_lost": "merged",
    "queue_ended_by_hand": "merged",
    "host_lost": "merged",
    "worker_killed": "merged",
}

HAPPENED = [
    ("coding_pipeline/approved", "workflowExecutionSignaled", "decision_resolved", 2),
    ("coding_pipeline/answer_untold", "timerFired", "", 1),
    ("coding_pipeline/answer_untold", "markerRecorded", "core_patch", 1),
    ("coding_pipeline/block_untold", "timerFired", "", 1),
    ("coding_pipeline/block_untold", "markerRecorded", "core_patch", 1),
    ("coding_pipeline/denied", "workflowExecutionSignaled", "decision_resolved", 1),
    ("coding_pipeline/expired", "timerFired", "", 1),
    ("coding_pipeline/rolled_back", "activityTaskScheduled", "roll_back", 1),
    ("coding_pipeline/rollback_conflict", "activityTaskScheduled", "roll_back", 2),
    ("coding_pipeline/paused", "workflowExecutionUpdateAccepted", "pause", 1),
    ("coding_pipeline/paused", "workflowExecutionUpdateCompleted", "", 2),
    ("coding_pipeline/paused", "activityTaskScheduled", "open_round", 2),
    ("coding_pipeline/blocked", "activityTaskFailed", "mission_blocked", 1),
    ("coding_pipeline/blocked", "activityTaskScheduled", "open_round", 3),
    ("coding_pipeline/blocked", "workflowExecutionSignaled", "runs_changed", 3),
    ("coding_pipeline/second_candidate", "activityTaskScheduled", "prove_candidate", 1),
    ("coding_pipeline/canceled", "workflowExecutionUpdateAccepted", "cancel", 1),
    ("coding_pipeline/canceled", "activityTaskCanceled", "", 1),
    ("coding_pipeline/canceled_in_temporal", "workflowExecutionCancelRequested", "by hand", 1),
    ("coding_pipeline/moved_branch", "activityTaskScheduled", "open_round", 3),
    ("coding_pipeline/slot_lost", "activityTaskFailed", "slot_lost", 1),
    ("coding_pipeline/queue_ended_by_hand", "timerFired", "", 1),
    ("coding_pipeline/host_lost", "activityTaskScheduled", "take_over", 1),
    ("coding_pipeline/worker_killed", "activityTaskStarted", '"attempt": 2', 1),
    ("merge_queue/in_order", "workflowExecutionSignaled", "request_slot", 2),
    ("merge_queue/holder_terminated", "activityTaskScheduled", "has_ended", 1),
    ("merge_queue/continued_as_new", "workflowExecutionContinuedAsNew", "MergeQueueWorkflow", 1),
    ("reconcile/swept", "activityTaskTimedOut", "", 1),
    ("reconcile/swept", "activityTaskCompleted", "", 5),
]
ASKED = [
    ("coding_pipeline/answer_untold", "local settle ", 1),
    ("coding_pipeline/block_untold", "local heed_runs", 2),
    ("coding_pipeline/blocked", "local heed_runs", 4),
    ("coding_pipeline/slot_yielded", "local request_slot", 1),
    ("coding_pipeline/queue_ended_by_hand", "local request_slot", 2),
    ("merge_queue/in_order", "local offer_slot", 3),
    ("merge_queue/waiting_one_terminated", "local offer_slot", 2),
]
GREEN = [
    "open_round",
    "settle_round",
    "merge",
    "release_slot",
    "finish",
    "conclude",
]


class TestReplay:
    @pytest.mark.parametrize("name", names())
    async def test_todays_workflow_follows_it(self, name: str) -> None:
        await replay(load(name))

    @pytest.mark.parametrize("name", names())
    async def test_todays_commands_have_the_same_queues_and_timeouts(self, name: str) -> None:
        assert await fingerprint(name) == json.loads(FINGERPRINTS.read_text())[name]

    @pytest.mark.parametrize("seed", ["1", "2"])
    async def test_the_order_of_hashes_plays_no_part(self, seed: str) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.replay.replaying", env=os.environ | {"PYTHONHASHSEED": seed}
        )
        assert await process.wait() == 0


class TestNoHistoryIsVacuous:
    def test_every_scenario_has_one_and_every_one_a_scenario(self) -> None:
        assert names() == sorted(SCENARIOS)
        assert sorted(json.loads(FINGERPRINTS.read_text())) == names()

    def test_every_workflow_has_some(self) -> None:
        assert set(BY_FOLDER.values()) == set(WORKFLOWS)
        assert {name.partition("/")[0] for name in names()} == set(BY_FOLDER)

    @pytest.mark.parametrize("name", names())
    def test_it_is_of_its_workflow_and_has_the_sdks_flags(self, name: str) -> None:
        """Without the flags, replay would let another activity pass in the place of the recorded one."""
        first = next(events(name))["workflowExecutionStartedEventAttributes"]
        assert first["workflowType"]["name"] == BY_FOLDER[name.partition("/")[0]].__name__
        assert any(done.get("sdkMetadata", {}).get("coreUsedFlags") for done in found(name, "workflowTaskCompleted"))

    @pytest.mark.parametrize("name", names())
    def test_it_tells_nothing_of_the_machine_it_was_recorded_on(self, name: str) -> None:
        text = json.dumps(list(events(name)))
        assert not any(word in text for word in ("/home/", "/root/", "/tmp/", "site-packages"))

    @pytest.mark.parametrize(("scenario", "outcome"), OUTCOMES.items())
    def test_a_missions_ended_as_its_name_says(self, scenario: str, outcome: str) -> None:
        [done] = found(f"coding_pipeline/{scenario}", "workflowExecutionCompleted")
        assert payload(done["result"]) == outcome

    def test_all_of_the_missions_are_looked_at(self) -> None:
        assert {f"coding_pipeline/{name}" for name in OUTCOMES} == {n for n in names() if n.startswith("coding")}
        assert set(OUTCOMES.values()) == set(MissionOutcome) - {MissionOutcome.TERMINATED}

    @pytest.mark.parametrize(("name", "kind", "word", "times"), HAPPENED)
    def test_what_it_is_kept_for_happened(self, name: str, kind: str, word: str, times: int) -> None:
        assert sum(word in json.dumps(event) for event in found(name, kind)) >= times

    @pytest.mark.parametrize(("name", "command", "times"), ASKED)
    def test_so_did_what_local_activities_say(self, name: str, command: str, times: int) -> None:
        lines = json.loads(FINGERPRINTS.read_text())[name]
        assert sum(line.startswith(command) for line in lines) >= times

    def test_the_green_one_asks_in_the_order_of_the_stages(self) -> None:
        lines = json.loads(FINGERPRINTS.read_text())["coding_pipeline/green"]
        asked = [line.split()[1] for line in lines if line.split()[1] != "look"]
        assert list(dict.fromkeys(asked)) == GREEN

    async def test_a_careless_change_is_caught(self) -> None:
        with pytest.raises(NondeterminismError):
            await replay(load("coding_pipeline/green"), (DivergentWorkflow,))

    async def test_so_is_another_activity_in_the_place_of_the_recorded_one(self) -> None:
        history = load("coding_pipeline/green")
        for event in history.events:
            if event.activity_task_scheduled_event_attributes.activity_type.name == "open_round":
                event.activity_task_scheduled_event_attributes.activity_type.name = "prove_candidate"
        with pytest.raises(NondeterminismError):
            await replay(history)


def found(name: str, kind: str) -> list[dict[str, Any]]:
    """The attributes of a history's events of one kind."""
    return [event[f"{kind}EventAttributes"] for event in events(name) if f"{kind}EventAttributes" in event]


def payload(given: dict[str, Any]) -> Any:
    """What a payload says."""
    return json.loads(base64.b64decode(given["payloads"][0]["data"]))
