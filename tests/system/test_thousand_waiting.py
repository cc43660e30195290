"""A thousand workflows wait for as many answers: one goes on at once, and no restart loses or repeats any.

The workflows, their records and the servers are real; the worker's git, test and scan ports answer at once.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import structlog
from temporalio.client import Client

from benchmarks.pipeline import IN_FLIGHT, REPOSITORIES, Office
from benchmarks.servers import PREFIX, BenchWorker
from models.domain.principals import Role
from models.store.database import Database
from tests.fixtures.access import make_key
from tests.fixtures.product import Product, running
from tests.fixtures.waiting import eventually
from worker.schedules import ensure_reconciler
from workflows.client import connect

pytestmark = pytest.mark.timeout(600)

MANY = 1_000
ALONE = 5
"""So many are answered one after the other, while all others wait."""
ANSWERED = 100
"""So many are answered in all; the others go on waiting."""
GOES_ON = 1.0
"""Seconds from an answer to the moment when the mission's workflow has heard of it."""
APPROVED = RACED = 10
"""Each tenth is approved, the others are denied; each tenth is answered by two people at once."""
HOW = {"approved": "approve", "denied": "deny"}
PATIENCE = 240
"""Seconds for what takes the cores half a minute where they have nothing else to do."""
PAUSE = 0.5
"""Seconds between two looks: more often, and the looks take the cores from what they wait for."""

HEARD = """
SELECT extract(epoch FROM acknowledged_at - resolved_at)::float AS seconds FROM decision
WHERE decision_id = %s AND acknowledged_at IS NOT NULL
"""
LEFT = """
SELECT (SELECT count(*) FROM mission WHERE outcome IS NULL) AS open,
(SELECT count(*) FROM decision WHERE acknowledged_at IS NULL AND status <> 'pending') AS unheard
"""
TOLD = """
SELECT m.mission_id, m.outcome, d.status,
(SELECT count(*) FROM decision_answer a WHERE a.decision_id = d.decision_id) AS answers,
(SELECT count(*) FROM event e WHERE e.subject_id = d.decision_id AND e.type = 'decision.' || d.status) AS events,
(SELECT count(*) FROM stage s WHERE s.mission_id = m.mission_id AND s.stage = 'merge' AND s.status = 'passed') AS merges
FROM mission m JOIN decision d ON d.workspace_id = m.workspace_id AND d.mission_id = m.mission_id
WHERE d.status <> 'pending'
"""

log = structlog.get_logger()


@dataclass
class Waiting:
    """The servers, the API, a worker whose ports answer at once, and two people who answer."""

    product: Product
    worker: BenchWorker
    temporal: Client
    office: Office
    people: Sequence[httpx2.AsyncClient]

    async def ask(self) -> dict[str, str]:
        """Let all missions run until they wait; their decisions."""
        filed = await asyncio.gather(*(self.office.file(MANY // IN_FLIGHT, approval=True) for _ in range(IN_FLIGHT)))
        await asyncio.gather(*(self._start(missions) for missions in filed))
        return await eventually(self._all_pending, PATIENCE, pause=PAUSE)

    def pending(self) -> dict[str, str]:
        """What waits for an answer: decisions, with their missions."""
        rows = self.product.rows("SELECT decision_id, mission_id FROM decision WHERE status = 'pending'")
        return {row["decision_id"]: row["mission_id"] for row in rows}

    async def running(self) -> int:
        """How many missions' workflows have not ended."""
        query = "ExecutionStatus = 'Running' AND WorkflowType = 'CodingPipelineWorkflow'"
        return (await self.temporal.count_workflows(query)).count

    async def answer(self, person: int, decision: str, how: str) -> int:
        """Answer over HTTP."""
        body = {"decision": how, "explanation": "read it"}
        return (await self.people[person].post(f"/decisions/{decision}/resolve", json=body)).status_code

    async def heard(self, decision: str) -> float:
        """How long it took from an answer until its workflow had heard of it."""

        async def find() -> list[dict[str, float]]:
            return self.product.rows(HEARD, decision)

        [found] = await eventually(find, 30)
        return found["seconds"]

    async def all_heard(self) -> bool:
        """Whether each answer was heard, and each mission that has one has ended with its workflow."""
        waiting = MANY - ANSWERED
        return self.product.rows(LEFT) == [{"open": waiting, "unheard": 0}] and await self.running() == waiting

    async def restart(self) -> None:
        """Kill everything at once, and start it again."""
        assert self.worker.child
        await asyncio.gather(self.worker.child.kill(), *map(self.product.stack.kill, ("api", "temporal", "postgres")))
        for part in ("postgres", "temporal"):
            await self.product.stack.start(part)
        await self.worker.start()
        await self.product.stack.start("api")

    async def _all_pending(self) -> dict[str, str] | None:
        found = self.pending()
        return found if len(found) == MANY else None

    async def _start(self, missions: Sequence[str]) -> None:
        for mission in missions:
            await self.office.start(mission)


@pytest.fixture
async def waiting(server_dir: Path) -> AsyncIterator[Waiting]:
    """An installation of the test's own."""
    root = server_dir / "thousand-waiting"
    root.mkdir()
    async with AsyncExitStack() as stack:
        parts = ("postgres", "temporal", "api")
        product = await stack.enter_async_context(running(root, parts=parts, task_queue_prefix=PREFIX))
        settings = product.stack.settings
        worker = await stack.enter_async_context(BenchWorker(settings))
        temporal, db = await connect(settings), Database.from_settings(settings)
        stack.push_async_callback(db.close)
        await ensure_reconciler(temporal, settings)
        office = await Office.open(temporal, db, REPOSITORIES)
        people = []
        for name in ("anna", "olga"):
            async with db.system() as session:
                key = await make_key(session, office.workspace_id, name, role=Role.OPERATOR)
            person = httpx2.AsyncClient(
                base_url=product.api.base_url, headers={"Authorization": f"Bearer {key}"}, timeout=60
            )
            people.append(await stack.enter_async_context(person))
        yield Waiting(product, worker, temporal, office, people)


async def test_each_goes_on_once(waiting: Waiting) -> None:
    decisions = await waiting.ask()
    assert len(set(decisions.values())) == await waiting.running() == MANY
    names = list(decisions)
    alone, others, unasked = names[:ALONE], names[ALONE:ANSWERED], names[ANSWERED:]
    answers = {name: "denied" if number % APPROVED else "approved" for number, name in enumerate(others)}

    seconds = []
    for name in alone:
        answers[name] = "approved"
        assert await waiting.answer(0, name, "approve") == 200
        seconds.append(await waiting.heard(name))
    log.info("answered one by one", seconds=seconds, waiting=len(others) + len(unasked))
    assert min(seconds) < GOES_ON

    await waiting.restart()
    assert waiting.pending().keys() == {*others, *unasked}, "none is lost"
    await answered(waiting, {name: answers[name] for name in others})

    await eventually(waiting.all_heard, PATIENCE, pause=PAUSE)
    assert waiting.pending().keys() == set(unasked)
    told = {row.pop("mission_id"): row for row in waiting.product.rows(TOLD)}
    assert told == {decisions[name]: as_answered(status) for name, status in answers.items()}


async def answered(waiting: Waiting, answers: dict[str, str]) -> None:
    """Answer everything, some of it by two people at once, of whom one is the first."""
    free = asyncio.Semaphore(IN_FLIGHT)

    async def one(number: int, name: str) -> list[int]:
        async with free:
            people, how = range(1 if number % RACED else 2), HOW[answers[name]]
            return sorted(await asyncio.gather(*(waiting.answer(person, name, how) for person in people)))

    codes = await asyncio.gather(*(one(number, name) for number, name in enumerate(answers)))
    assert codes == [[200] if number % RACED else [200, 409] for number in range(len(answers))]


def as_answered(status: str) -> dict[str, object]:
    """What there must be of a mission that was answered like this."""
    outcome, merges = ("merged", 1) if status == "approved" else ("denied", 0)
    return {"outcome": outcome, "status": status, "answers": 1, "events": 1, "merges": merges}
