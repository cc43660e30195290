"""A thousand missions that wait for approval: what they cost while nothing happens, and how soon one goes on."""

import asyncio
import time

import psutil
from temporalio.client import Client

from benchmarks.measure import Meter
from benchmarks.pipeline import MissionHandle, Office
from benchmarks.servers import BenchWorker, pid_of, serving
from models.contracts.pipeline import DecisionRef, StageRef
from models.domain.ids import mission_workflow_id
from models.domain.principals import Kind, Principal, Role
from models.domain.stages import StageName
from models.domain.states import DecisionStatus
from models.store import answers, lists
from models.store.database import Database
from models.tables.missions import Decision
from tests.fixtures.waiting import eventually
from workflows.client import connect
from workflows.coding_pipeline import CodingPipelineWorkflow

IN_FLIGHT = 20
SETTLE_SECONDS = 5.0
PATIENCE = 900.0
APPROVER = "bench-approver"


async def run(quick: bool) -> dict[str, float]:
    """Measure; there is no other side to compare with."""
    count, seconds = (100, 10.0) if quick else (1_000, 30.0)
    async with serving("postgres", "temporal") as stack, BenchWorker(stack.settings) as worker:
        client, db = await connect(stack.settings), Database.from_settings(stack.settings)
        try:
            office = await Office.open(client, db, 20)
            await _wait_for_approval(office, await office.file(IN_FLIGHT, approval=True))
            memory = psutil.Process(pid_of(worker)).memory_info
            before = memory().rss
            await _wait_for_approval(office, await office.file(count, approval=True))
            after = memory().rss
            await asyncio.sleep(SETTLE_SECONDS)
            meter = Meter(worker=pid_of(worker), temporal=stack.pid("temporal"), postgres=stack.pid("postgres"))
            await asyncio.sleep(seconds)
            idle = meter.cpu(per=meter.seconds)
            return {
                "waiting": count,
                **{f"{name}_share": value for name, value in idle.items()},
                "worker_mib_before": before / 2**20,
                "worker_mib_after": after / 2**20,
                "kib_per_mission": (after - before) / 1024 / count,
                "resolve_to_merge_seconds": await _resolve_one(office, client),
            }
        finally:
            await db.close()


async def _wait_for_approval(office: Office, mission_ids: list[str]) -> None:
    """Start missions, a few at a time, and see each of them put its question."""
    free = asyncio.Semaphore(IN_FLIGHT)

    async def one(mission_id: str) -> None:
        async with free:
            await office.start(mission_id)
            await eventually(lambda: _question(office, mission_id), PATIENCE)

    await asyncio.gather(*(one(mission_id) for mission_id in mission_ids))


async def _question(office: Office, mission_id: str) -> Decision | None:
    wanted = {"mission_id": mission_id, "status": DecisionStatus.PENDING.value}
    async with office.db.workspace(office.workspace_id) as session:
        found = await session.scalars(lists.matching(Decision, office.workspace_id, wanted))
        return found.one_or_none()


async def _resolve_one(office: Office, client: Client) -> float:
    """Approve one mission as the API does; how long until it is merged and closed."""
    (mission_id,) = await office.file(1, approval=True)
    await _wait_for_approval(office, [mission_id])
    question = await _question(office, mission_id)
    assert question is not None
    began = time.perf_counter()
    async with office.db.workspace(office.workspace_id) as session:
        approved = DecisionStatus.APPROVED
        by = Principal(office.workspace_id, APPROVER, Kind.HUMAN, Role.OPERATOR, "bench")
        await answers.give(session, by, question.decision_id, approved, "fine")
    name = mission_workflow_id(office.workspace_id, mission_id)
    handle: MissionHandle = client.get_workflow_handle_for(CodingPipelineWorkflow.run, name)
    ref = StageRef(workspace_id=office.workspace_id, mission_id=mission_id, stage=StageName.GOVERNANCE)
    answered = DecisionRef(ref=ref, decision_id=question.decision_id)
    await handle.signal(CodingPipelineWorkflow.decision_resolved, answered)
    await handle.result()
    return time.perf_counter() - began
