"""The ports that answer at once and the real ones: the same answers in the same form, and the same rows behind them.

Tests of workflows, replays and the pipeline's benchmark stand on the former, and are worth what holds here.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text

from models.contracts.pipeline import CandidateTask, Conclusion, MergeResult, ObserveEnd, ObserveResult, Opened, Proof
from models.domain.errors import MissionControlError
from models.domain.events import EventType, Subject
from models.domain.stages import StageName, StageStatus
from models.domain.states import MissionOutcome, MissionStatus, Severity
from models.store import events, running
from models.store.events import Actor
from tests.fixtures.instant_ports import InstantPorts, Script
from tests.fixtures.stage_hosts import FIRST_RUN, Case, Shop, do

PROVED = ["branch_and_patch", "security_scan", "run_tests"]
BROKEN = {"calc.txt": "a * b\n"}


class Ports:
    """A mission, and who works for it; what is scripted for the one is made so in the repository for the other."""

    def __init__(self, case: Case, hands: dict[str, Callable[..., Any]]) -> None:
        self.case, self._hands = case, hands

    async def open_round(self, first_run_id: str = "", **info: Any) -> Opened:
        task = self.case.task(StageName.FETCH_CONTEXT).model_copy(update={"first_run_id": first_run_id})
        answer: Opened = await do(self._hands["open_round"], task, **info)
        self.case.base_sha = answer.context.base_sha
        self.case.head_sha = answer.proof.head_sha if answer.proof else ""
        return answer

    async def prove(self, **info: int) -> Proof:
        task = CandidateTask(ref=self.case.ref(StageName.RUN_TESTS), base_sha=self.case.base_sha)
        answer: Proof = await do(self._hands["prove_candidate"], task, **info)
        return answer

    async def merge(self, token: int = 1, **info: int) -> MergeResult:
        answer: MergeResult = await do(self._hands["merge"], self.case.merge(token=token), **info)
        self.case.merge_sha = answer.merge_sha
        return answer

    async def roll_back(self, token: int = 2, **info: int) -> MergeResult:
        answer: MergeResult = await do(self._hands["roll_back"], self.case.merge(StageName.RESOLVE, token), **info)
        return answer

    async def look(self, number: int) -> ObserveResult:
        answer: ObserveResult = await do(self._hands["look"], await self.case.look(number))
        return answer

    async def finish(self, number: int, **info: int) -> ObserveEnd:
        answer: ObserveEnd = await do(self._hands["finish"], await self.case.look(number), **info)
        return answer

    async def merged(self) -> "Ports":
        """Do all up to the merge."""
        await self.open_round()
        assert (await self.merge()).status is StageStatus.PASSED
        return self

    async def records(self) -> list[tuple[str, StageStatus]]:
        """What is recorded of each stage; all that ended are signed, and say in their answer how they ended."""
        sql = text("SELECT * FROM stage WHERE mission_id = :mission ORDER BY started_at, round, candidate")
        async with self.case.db.workspace(self.case.workspace_id) as session:
            rows = (await session.execute(sql, {"mission": self.case.mission_id})).all()
        for row in rows:
            signed = [bool(value) for value in (row.digest, row.signature, row.key_id)]
            assert signed == [row.ended_at is not None] * 3, row.stage
            assert row.ended_at is None or row.result["answer"]["status"] == row.status
        return [(row.stage, StageStatus(row.status)) for row in rows]

    async def told(self) -> list[str]:
        """The events since the mission was filed."""
        sql = text("SELECT type FROM event WHERE workspace_id = :workspace AND subject_id = :mission ORDER BY id")
        values = {"workspace": self.case.workspace_id, "mission": self.case.mission_id}
        async with self.case.db.workspace(self.case.workspace_id) as session:
            return [str(kind) for kind in (await session.execute(sql, values)).scalars()][1:]


Make = Callable[..., Awaitable[Ports]]


@pytest.fixture(params=["real", "instant"])
def ports(shop: Shop, request: pytest.FixtureRequest) -> Make:
    """Makes a mission of either kind; the instant ports go by the script, the real ones by patch and repository."""

    async def make(script: Script | None = None, patch: dict[str, str | None] | None = None) -> Ports:
        case = await shop.mission(patch=patch, acceptance_criteria={"must_pass_tests": ["calc::adds"]})
        host, names = case.host, ["open_round", "prove_candidate", "merge", "roll_back", "look", "finish"]
        owners: tuple[Any, ...] = (host.proving, host.merging, host.observing)
        if request.param == "instant":
            owners = (InstantPorts(host.recorder, "host-one", {case.mission_id: script or Script()}),)
        found = {name: getattr(owner, name) for owner in owners for name in names if hasattr(owner, name)}
        return Ports(case, found)

    return make


def passed(*stages: str) -> list[tuple[str, StageStatus]]:
    return [(stage, StageStatus.PASSED) for stage in stages]


class TestOpenRound:
    async def test_it_starts_the_mission_and_proves_the_first_candidate(self, ports: Make) -> None:
        it = await ports()
        opened = await it.open_round()
        context, proof, row = opened.context, opened.proof or Proof(), await it.case.row()
        assert (context.status, context.failed_stage, context.candidates) == (StageStatus.PASSED, None, 1)
        assert (context.repository_id, context.branch, context.severity) == (row.repository_id, "main", Severity.LOW)
        assert (context.host_queue, context.created_at) == ("host-one", row.created_at)
        assert (context.has_stress, context.has_probe) == (False, False)
        assert [is_sha(sha) for sha in (context.base_sha, proof.head_sha)] == [True, True]
        assert context.config_hash.startswith("sha256:")
        assert (proof.failed_stage, proof.reason, bool(proof.patch_id)) == (None, "", True)
        assert (row.status, row.run_id, bool(row.started_at)) == (MissionStatus.IN_PROGRESS, FIRST_RUN, True)
        assert await it.records() == passed("fetch_context", "pull_code", *PROVED)
        assert await it.told() == ["mission.started", *["stage.started", "stage.passed"] * 5]

    async def test_a_second_delivery_changes_nothing(self, ports: Make) -> None:
        it = await ports()
        first = await it.open_round()
        before = await it.records(), await it.told()
        assert await it.open_round(attempt=2) == first
        assert (await it.records(), await it.told()) == before

    async def test_a_run_that_was_reset_goes_on_and_another_is_refused(self, ports: Make) -> None:
        it = await ports()
        first = await it.open_round()
        assert await it.open_round(FIRST_RUN, workflow_run_id="run-2") == first
        assert await code(it.open_round(workflow_run_id="run-2")) == "mission_not_open"
        assert (await it.case.row()).run_id == FIRST_RUN

    async def test_so_does_one_that_was_reset_after_its_merge(self, ports: Make) -> None:
        it = await ports()
        first, merge = await it.open_round(), await it.merge()
        before = await it.records(), await it.told()
        assert await it.open_round(FIRST_RUN, workflow_run_id="run-2") == first
        assert await it.merge(token=2) == merge
        assert (await it.records(), await it.told()) == before

    async def test_a_mission_that_was_closed_is_refused(self, ports: Make) -> None:
        it = await ports()
        await close(it.case)
        assert await code(it.open_round()) == "mission_not_open"
        assert await it.records() == []


class TestProveCandidate:
    async def test_a_second_delivery_answers_the_same(self, ports: Make) -> None:
        it = await ports()
        opened = await it.open_round()
        assert [await it.prove(attempt=attempt) for attempt in (1, 2)] == [opened.proof] * 2
        assert await it.records() == passed("fetch_context", "pull_code", *PROVED)

    async def test_the_stage_that_fails_is_the_last(self, ports: Make) -> None:
        it = await ports(Script(failing={StageName.RUN_TESTS: 1}), patch=dict(BROKEN))
        proof = (await it.open_round()).proof or Proof()
        assert (proof.failed_stage, bool(proof.reason)) == (StageName.RUN_TESTS, True)
        assert (is_sha(proof.head_sha), bool(proof.patch_id)) == (True, True)
        assert (await it.records())[-2:] == [*passed("security_scan"), ("run_tests", StageStatus.FAILED)]
        assert (await it.told())[-2:] == ["stage.started", "stage.failed"]


class TestMerge:
    async def test_the_mission_observes_from_then_on(self, ports: Make) -> None:
        it = await ports()
        await it.open_round()
        first, again = await it.merge(), await it.merge(attempt=2)
        assert (first, first.status, first.moved_to) == (again, StageStatus.PASSED, "")
        row = await it.case.row()
        assert (row.status, row.merge_sha, is_sha(first.merge_sha)) == (MissionStatus.OBSERVING, first.merge_sha, True)
        assert row.merged_at is not None
        assert (await it.records())[-2:] == [*passed("merge"), ("observe", StageStatus.RUNNING)]
        assert sorted((await it.told())[-5:]) == [
            "mission.merged",
            "mission.observing",
            "stage.passed",
            "stage.started",
            "stage.started",
        ]

    async def test_nothing_is_merged_into_a_branch_that_moved(self, ports: Make) -> None:
        it = await ports(Script(moves=1))
        await it.open_round()
        it.case.repo.commit({"other.txt": "somebody's work\n"})
        answer = await it.merge()
        assert (answer.status, answer.merge_sha, is_sha(answer.moved_to)) == (StageStatus.SKIPPED, "", True)
        row = await it.case.row()
        assert (row.status, row.merge_sha) == (MissionStatus.IN_PROGRESS, None)
        assert (await it.records())[-1] == ("merge", StageStatus.SKIPPED)
        assert (await it.told())[-1] == "stage.skipped"

    async def test_an_older_token_is_refused(self, ports: Make) -> None:
        it = await ports()
        await it.open_round()
        await it.case.pass_fence(token=2)
        assert await code(it.merge(token=1)) == "slot_lost"
        assert (await it.records())[-1] == ("merge", StageStatus.RUNNING)

    async def test_a_mission_that_was_closed_merges_no_more(self, ports: Make) -> None:
        it = await ports()
        await it.open_round()
        await close(it.case)
        assert await code(it.merge()) == "mission_ended"
        assert (await it.case.row()).merge_sha is None


class TestRollBack:
    async def test_twice_is_one_revert(self, ports: Make) -> None:
        it = await (await ports()).merged()
        first, again = await it.roll_back(), await it.roll_back(attempt=2)
        assert (first, first.status, is_sha(first.merge_sha)) == (again, StageStatus.PASSED, True)
        assert (await it.case.row()).revert_sha == first.merge_sha
        assert (await it.told()).count("mission.rolled_back") == 1

    async def test_a_conflict_is_an_answer(self, ports: Make) -> None:
        it = await (await ports(Script(conflicts=1))).merged()
        it.case.repo.commit(BROKEN)
        answer = await it.roll_back()
        assert (answer.status, answer.merge_sha, bool(answer.reason)) == (StageStatus.FAILED, "", True)
        assert (await it.case.row()).revert_sha is None

    async def test_an_older_token_is_refused(self, ports: Make) -> None:
        it = await ports()
        await it.open_round()
        await it.merge(token=2)
        assert await code(it.roll_back(token=1)) == "slot_lost"


class TestLook:
    async def test_where_all_is_well_it_leaves_nothing(self, ports: Make) -> None:
        it = await (await ports()).merged()
        before = await it.records(), await it.told()
        assert await it.look(1) == ObserveResult()
        assert (await it.records(), await it.told()) == before

    async def test_an_anomaly_ends_the_stage_once(self, ports: Make) -> None:
        anomaly = "error in calc: division by zero"
        it = await (await ports(Script(anomaly=anomaly))).merged()
        await error_in_calc(it.case)
        assert [await it.look(1), await it.look(1)] == [ObserveResult(anomaly=anomaly)] * 2
        assert (await it.records())[-1] == ("observe", StageStatus.FAILED)
        assert (await it.told()).count("stage.failed") == 1
        assert (await it.case.row()).status == MissionStatus.OBSERVING


class TestFinish:
    async def test_it_ends_the_window_and_gives_the_workbench_back(self, ports: Make) -> None:
        it = await (await ports()).merged()
        assert await it.look(1) == ObserveResult()
        first, again = await it.finish(2), await it.finish(2, attempt=2)
        assert (first, first.status, first.bench_closed) == (again, StageStatus.PASSED, True)
        assert (await it.records())[-1] == ("observe", StageStatus.PASSED)
        assert (await it.told())[-1] == "stage.passed"
        assert (await it.case.row()).status == MissionStatus.OBSERVING

    async def test_a_failure_keeps_the_workbench(self, ports: Make) -> None:
        it = await (await ports(Script(failing={StageName.OBSERVE: 1}))).merged()
        it.case.repo.commit(BROKEN)
        ended = await it.finish(1)
        assert (ended.status, ended.bench_closed, bool(ended.reason)) == (StageStatus.FAILED, False, True)
        assert (await it.records())[-1] == ("observe", StageStatus.FAILED)


def is_sha(value: str) -> bool:
    return len(value) == 40 and set(value) <= set("0123456789abcdef")


async def code(asked: Awaitable[object]) -> str:
    """Await what is refused; its code."""
    with pytest.raises(MissionControlError) as refused:
        await asked
    return refused.value.code


async def close(case: Case) -> None:
    """Close a mission from outside."""
    end = Conclusion(ref=case.ref(StageName.RESOLVE), outcome=MissionOutcome.TERMINATED, reason="gone", capa=False)
    async with case.db.workspace(case.workspace_id) as session:
        assert await running.conclude(session, end, "reconciler")


async def error_in_calc(case: Case) -> None:
    about, actor = Subject(kind="subsystem", id="calc"), Actor("monitor", "request-3")
    async with case.db.workspace(case.workspace_id) as session:
        await events.append(
            session, case.workspace_id, EventType.SUBSYSTEM_ERROR, about, actor, {"message": "division by zero"}
        )
