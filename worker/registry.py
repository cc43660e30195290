"""Which activities a worker offers on which queue, and the tools they share."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.client import Client

from activities.benches import Benches
from activities.code import CodeActivities
from activities.context import ContextActivities
from activities.governance import GovernanceActivities
from activities.merge_queue import Doors, MergeQueueActivities
from activities.merging import MergeActivities
from activities.observing import ObservationActivities
from activities.probing import ProbeActivities
from activities.proving import ProofActivities
from activities.reconciling import ReconcileActivities, Signals
from activities.recording import StageRecorder
from activities.records import RecordActivities
from activities.scanning import ScanActivities
from activities.testing import TestingActivities
from activities.trials import Trials
from activities.workbench.environments import Environments
from activities.workbench.sandbox import Sandbox
from activities.workbench.signing import ServiceKey
from models.settings import Settings
from models.store.database import Database
from models.store.policies import PolicyBook
from worker.own_ports import require_apart
from workflows.coding_pipeline import CodingPipelineWorkflow
from workflows.merge_queue import MergeQueueWorkflow
from workflows.queues import host_queue

Activities = Sequence[Callable[..., Any]]

MERGE_DOORS = Doors(
    MergeQueueWorkflow.run,
    MergeQueueWorkflow.request_slot,
    MergeQueueWorkflow.release_slot,
    CodingPipelineWorkflow.slot_granted,
)

MISSION_SIGNALS = Signals(CodingPipelineWorkflow.decision_resolved, CodingPipelineWorkflow.runs_changed)


@dataclass(frozen=True)
class Tools:
    """What a worker process has, made once."""

    settings: Settings
    client: Client
    runner: Sandbox
    recorder: StageRecorder
    benches: Benches
    trials: Trials
    host: str

    @classmethod
    async def make(cls, settings: Settings, db: Database, client: Client, host: str) -> "Tools":
        """Load the signing key, try the isolation that this machine offers, and put the tools together."""
        runner = await asyncio.to_thread(Sandbox.detect, settings.sandbox)
        key = ServiceKey.load_or_create(settings.signing_key)
        recorder = StageRecorder(db, key, settings.config_dir)
        benches = Benches(settings, db, key, host)
        environments = Environments(settings.cache_dir, runner, ports=settings.setup_ports)
        if runner.guards_ports:
            require_apart(settings, environments.ports)
        trials = Trials(benches, runner, environments, settings.commands_at_once)
        return cls(settings, client, runner, recorder, benches, trials, host)


def control_activities(tools: Tools, control: str) -> Activities:
    """Short activities of the control queue."""
    observation = ObservationActivities(tools.recorder, tools.benches, tools.trials)
    return (*bookkeeping(tools.recorder, tools.client, tools.settings.config_dir, control), observation.look)


def bookkeeping(recorder: StageRecorder, client: Client, config_dir: Path, control: str) -> Activities:
    """Those of them that only talk to Postgres and Temporal."""
    records = RecordActivities(recorder)
    governance = GovernanceActivities(recorder, PolicyBook(config_dir))
    queue = MergeQueueActivities(recorder.db, client, MERGE_DOORS, control)
    reconcile = ReconcileActivities(recorder, client, MISSION_SIGNALS, config_dir)
    return (
        records.record_control,
        records.heed_runs,
        records.conclude,
        governance.settle_round,
        governance.settle,
        governance.ask_about_rollback,
        queue.request_slot,
        queue.release_slot,
        queue.offer_slot,
        queue.has_ended,
        reconcile.repeat_answers,
        reconcile.close_ended,
        reconcile.leftovers,
        reconcile.keep_house,
    )


def shared_activities(tools: Tools) -> Activities:
    """Work that any host may take."""
    return (_proof(tools).open_round, _context(tools).take_over)


def host_activities(tools: Tools) -> Activities:
    """Work on this host's worktrees."""
    proof = _proof(tools)
    code = CodeActivities(tools.recorder, tools.benches)
    merging = MergeActivities(tools.recorder, tools.benches, PolicyBook(tools.settings.config_dir))
    observation = ObservationActivities(tools.recorder, tools.benches, tools.trials)
    return (
        proof.open_round,
        proof.prove_candidate,
        code.close_workbench,
        merging.merge,
        merging.roll_back,
        observation.probe,
        observation.finish,
        observation.verify_rollback,
    )


def _proof(tools: Tools) -> ProofActivities:
    code = CodeActivities(tools.recorder, tools.benches)
    testing = TestingActivities(tools.recorder, tools.benches, tools.trials)
    scanning = ScanActivities(tools.recorder, tools.benches, tools.trials)
    probing = ProbeActivities(tools.recorder, tools.benches, tools.trials)
    return ProofActivities(_context(tools), code, testing, scanning, probing)


def _context(tools: Tools) -> ContextActivities:
    queue = host_queue(tools.settings.task_queue_prefix, tools.host)
    return ContextActivities(tools.recorder, tools.benches, CodeActivities(tools.recorder, tools.benches), queue)
