"""Our workflow, records, signatures and merge queue over instant ports, against eleven empty activities."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from temporalio.client import Client, WorkflowHandle

from benchmarks.bare_workflow import BareWorkflow
from benchmarks.measure import Comparison, Goal, Meter, Numbers, alternate, percentile
from benchmarks.servers import PREFIX, BenchWorker, pid_of, serving
from benchmarks.worker import BARE_QUEUE
from models.contracts.pipeline import PipelineInput
from models.domain.ids import mission_workflow_id
from models.domain.repositories import RepositoryUrl
from models.domain.states import MissionOutcome
from models.schemas.missions import MissionCreate
from models.schemas.repositories import RepositoryCreate
from models.store import missions, repositories
from models.store.database import Database
from models.store.events import Actor
from models.tables.workspaces import Repository
from tests.fixtures.access import make_workspace
from workflows.client import connect
from workflows.coding_pipeline import CodingPipelineWorkflow
from workflows.queues import control_queue

IN_FLIGHT = 20
REPOSITORIES = 20
GOAL = Goal("runs_per_second", "higher", 0.8)
NO_GOAL = Goal("runs_per_second", "higher", None)
"""One branch merges one mission at a time, and nothing of the bare side does."""
OPERATOR = Actor("bench", "bench")

Run = Callable[[], Awaitable[None]]
MissionHandle = WorkflowHandle[CodingPipelineWorkflow, MissionOutcome]


@dataclass
class Office:
    """Files missions and starts them, as the API does."""

    client: Client
    db: Database
    workspace_id: str
    repositories: Sequence[Repository]

    @classmethod
    async def open(cls, client: Client, db: Database, repository_count: int) -> "Office":
        """Make a workspace with repositories; nobody looks whether they are there."""
        workspace_id = f"bench-{uuid.uuid4().hex[:8]}"
        async with db.system() as session:
            await make_workspace(session, workspace_id)
        places = [RepositoryCreate(url=f"https://example.org/{workspace_id}/{n}.git") for n in range(repository_count)]
        async with db.workspace(workspace_id) as session:
            made = [
                await repositories.register(session, workspace_id, place, RepositoryUrl(place.url), "dev", OPERATOR)
                for place in places
            ]
        return cls(client, db, workspace_id, made)

    async def file(self, count: int, *, approval: bool = False) -> list[str]:
        """File missions, over all repositories in turn; their ids."""
        filed = []
        for number in range(count):
            repository = self.repositories[number % len(self.repositories)]
            new = MissionCreate(
                subsystem_id="bench",
                severity="high",
                repository=repository.repository_id,
                requires_governance_approval=approval,
            )
            async with self.db.workspace(self.workspace_id) as session:
                mission = await missions.create(session, self.workspace_id, new, repository, OPERATOR)
            filed.append(mission.mission_id)
        return filed

    async def start(self, mission_id: str) -> str:
        """Start a mission's workflow; its id."""
        handle = await self.client.start_workflow(
            CodingPipelineWorkflow.run,
            PipelineInput(workspace_id=self.workspace_id, mission_id=mission_id, started_by=OPERATOR.name),
            id=mission_workflow_id(self.workspace_id, mission_id),
            task_queue=control_queue(PREFIX),
        )
        async with self.db.workspace(self.workspace_id) as session:
            await missions.note_start(session, self.workspace_id, mission_id, handle.result_run_id or "")
        return handle.id

    async def see_through(self, mission_id: str) -> None:
        """Start a mission and wait for its merge; its row is closed before its workflow is."""
        name = await self.start(mission_id)
        handle: MissionHandle = self.client.get_workflow_handle_for(CodingPipelineWorkflow.run, name)
        outcome = await handle.result()
        assert outcome is MissionOutcome.MERGED, outcome


async def run(quick: bool) -> list[Comparison]:
    """Compare with many repositories, and with one, whose merge queue lets one merge at a time."""
    count, rounds = (40, 2) if quick else (100, 5)
    async with serving("postgres", "temporal") as stack, BenchWorker(stack.settings) as worker:
        client, db = await connect(stack.settings), Database.from_settings(stack.settings)
        meter_of: dict[str, int | None] = {
            "worker": pid_of(worker),
            "temporal": stack.pid("temporal"),
            "postgres": stack.pid("postgres"),
        }

        async def bare() -> Numbers:
            return await _timed([_bare(client)] * count, meter_of)

        async def compared(name: str, repository_count: int, goal: Goal) -> Comparison:
            office = await Office.open(client, db, repository_count)

            async def ours() -> Numbers:
                filed = await office.file(count)
                return await _timed([_mission(office, mission_id) for mission_id in filed], meter_of)

            return await alternate(name, goal, ours, bare, rounds)

        try:
            many = await compared(f"pipeline, {REPOSITORIES} repositories", REPOSITORIES, GOAL)
            return [many, await compared("pipeline, one repository", 1, NO_GOAL)]
        finally:
            await db.close()


def _bare(client: Client) -> Run:
    async def go() -> None:
        await client.execute_workflow(BareWorkflow.run, id=f"bare/{uuid.uuid4().hex}", task_queue=BARE_QUEUE)

    return go


def _mission(office: Office, mission_id: str) -> Run:
    async def go() -> None:
        await office.see_through(mission_id)

    return go


async def _timed(runs: Sequence[Run], parts: dict[str, int | None]) -> Numbers:
    """Do all runs, `IN_FLIGHT` at a time."""
    free, latencies = asyncio.Semaphore(IN_FLIGHT), []

    async def one(go: Run) -> None:
        async with free:
            began = time.perf_counter()
            await go()
            latencies.append(time.perf_counter() - began)

    meter = Meter(**parts)
    await asyncio.gather(*(one(go) for go in runs))
    seconds = meter.seconds
    return {
        "runs_per_second": len(runs) / seconds,
        "p50_ms": 1000 * percentile(latencies, 0.5),
        **meter.cpu(per=len(runs)),
    }
