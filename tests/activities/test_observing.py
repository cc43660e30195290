"""Stages 10 and 11: looks at the world with a real probe, tests on the merged branch, and what is kept of both."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from activities.logs import LOOKS_KEPT
from models.contracts.pipeline import Conclusion, ObserveResult, RollbackCheck
from models.domain.canonical import digest_of
from models.domain.errors import MissionControlError
from models.domain.events import EventType, Subject
from models.domain.stages import StageName, StageStatus
from models.domain.states import MissionOutcome
from models.domain.testing import TestReport
from models.store import events
from models.store.events import Actor
from models.store.stages import signed_content
from models.tables.missions import MetricSample
from tests.fixtures.product import CHECK
from tests.fixtures.reporting import filed_by_kin, reported
from tests.fixtures.stage_hosts import Case, Shop, do, sandbox

OBSERVE, RESOLVE = StageName.OBSERVE, StageName.RESOLVE
RULES = "test: sh check.sh\njunit: /out/junit.xml\nprobe: sh probe.sh\n"
PROBED = {".mission-control.yaml": RULES, "probe.sh": "echo search.p95 50\n"}
BROKEN = PROBED | {"probe.sh": "i=0; while [ $i -lt 999 ]; do echo $i; i=$((i+1)); done; echo no gauge >&2; exit 3\n"}
TARGETS = [{"metric_id": "search.p95", "comparator": "<", "target": 10}]
CRITERIA = {"must_pass_tests": ["calc::adds"], "metric_targets": TARGETS}


FLOOD = """
    INSERT INTO metric_observation (workspace_id, observation_id, metric_id, value, source)
    SELECT :place, 'flood-' || n, 'search.p95', 0, 'watcher' FROM generate_series(1, 10_000) AS n
"""


async def error_in(case: Case, subsystem: str, message: str) -> None:
    async with case.db.workspace(case.workspace_id) as session:
        about, actor = Subject(kind="subsystem", id=subsystem), Actor("monitor", "request-3")
        await events.append(session, case.workspace_id, EventType.SUBSYSTEM_ERROR, about, actor, {"message": message})


async def probed(case: Case, number: int, breaches: tuple[str, ...] = (), **info: int) -> ObserveResult:
    return await do(case.host.observing.probe, await case.look(number, breaches), **info)


class TestProbe:
    async def test_what_it_prints_is_readable_while_the_stage_runs(self, shop: Shop) -> None:
        case = await (await shop.mission(PROBED)).merged()
        await probed(case, 1)
        assert await case.log(OBSERVE) == "[mission-control] look 1\nsearch.p95 50\n"
        assert [(row.metric_id, row.value) for row in await case.rows(MetricSample)] == [("search.p95", 50.0)]

    async def test_a_look_is_kept_once(self, shop: Shop) -> None:
        case = await (await shop.mission(PROBED, acceptance_criteria=CRITERIA)).merged()
        first, again = await probed(case, 1), await probed(case, 1, attempt=2)
        assert first == again == ObserveResult(breaches=("search.p95",))
        assert (await case.log(OBSERVE)).count("look 1") == 1

    async def test_two_breaches_end_the_stage_with_all_looks_in_its_log(self, shop: Shop) -> None:
        case = await (await shop.mission(PROBED, acceptance_criteria=CRITERIA)).merged()
        seen = await probed(case, 1)
        answers = [await probed(case, 2, seen.breaches, attempt=attempt) for attempt in (1, 2)]
        assert {answer.anomaly for answer in answers} == {
            "search.p95 was outside its target, or broken, twice in a row"
            " (search.p95 must be < 10: observed 50 over 10 min)"
        }
        record = await case.record(OBSERVE)
        assert (record.status, record.result["isolation"]) == (StageStatus.FAILED, sandbox().isolation.value)
        assert [kind for kind, _ in await case.kept(OBSERVE)] == ["log"]
        assert [line for line in (await case.log(OBSERVE)).splitlines() if "look" in line] == [
            "[mission-control] look 1",
            "[mission-control] look 2",
        ]
        assert await case.pieces() == 0

    @pytest.mark.parametrize(("value", "measured"), [(0, 50), (1_000, 5)], ids=["for it", "against it"])
    @pytest.mark.parametrize("reporter", ["watcher", "bot", "prom"], ids=["kin", "filer", "whom it names"])
    async def test_whose_work_it_may_be_speaks_against_it_only(
        self, shop: Shop, value: float, measured: float, reporter: str
    ) -> None:
        files = PROBED | {"probe.sh": f"echo search.p95 {measured}\n"}
        case = await (await shop.mission(files, acceptance_criteria=CRITERIA)).merged()
        await filed_by_kin(case, assigned_to="prom")
        await reported(case, reporter, value)
        assert (await probed(case, 1)).breaches == ("search.p95",)

    async def test_what_the_filer_saw_before_the_merge_is_no_anomaly(self, shop: Shop) -> None:
        good = PROBED | {"probe.sh": "echo search.p95 5\n"}
        case = await (await shop.mission(good, acceptance_criteria=CRITERIA)).merged()
        await filed_by_kin(case)
        merged_at = (await case.row()).merged_at
        assert merged_at
        await reported(case, "bot", 1_000, merged_at - timedelta(minutes=1))
        assert (await probed(case, 1)).breaches == ()

    async def test_whom_it_names_is_heard_however_much_the_filers_kin_say(self, shop: Shop) -> None:
        targets = {"metric_targets": TARGETS * 100}
        good = PROBED | {"probe.sh": "echo search.p95 5\n"}
        case = await (await shop.mission(good, acceptance_criteria=targets)).merged()
        await filed_by_kin(case, assigned_to="prom")
        await reported(case, "prom", 1_000)
        async with case.db.workspace(case.workspace_id) as session:
            await session.execute(text(FLOOD), {"place": case.workspace_id})
        assert set((await probed(case, 1)).breaches) == {"search.p95"}

    async def test_of_a_probe_that_fails_the_last_words_are_kept(self, shop: Shop) -> None:
        case = await (await shop.mission(BROKEN)).merged()
        assert (await probed(case, 1)).breaches == ("the probe (The probe ended with code 3.)",)
        log = await case.log(OBSERVE)
        assert log.endswith("998\nno gauge\n[mission-control] The probe ended with code 3.\n")
        assert len(log) < 5_000

    async def test_a_reset_workflow_measures_anew(self, shop: Shop) -> None:
        case = await (await shop.mission(PROBED, acceptance_criteria=CRITERIA)).merged()
        await probed(case, 1)
        later = await case.look(1)
        later = later.model_copy(update={"started_at": later.started_at + timedelta(minutes=5)})
        for attempt in (1, 2):
            await do(case.host.observing.probe, later, attempt=attempt)
        assert [row.value for row in await case.rows(MetricSample)] == [50.0, 50.0]

    async def test_of_a_long_window_the_latest_looks_are_kept(self, shop: Shop) -> None:
        case = await (await shop.mission(PROBED)).merged()
        for number in (1, 2, 2 + LOOKS_KEPT):
            await probed(case, number)
        assert (await case.log(OBSERVE)).count("look") == 1


class TestLook:
    async def test_an_error_of_the_subsystem_ends_the_stage_once(self, shop: Shop) -> None:
        case = await (await shop.mission()).merged()
        assert await do(case.host.observing.look, await case.look(1)) == ObserveResult()
        await error_in(case, "calc", "division by zero")
        await error_in(case, "search", "not ours")
        answers = [await do(case.host.observing.look, await case.look(2), attempt=attempt) for attempt in (1, 2)]
        assert {answer.anomaly for answer in answers} == {"error in calc: division by zero"}
        record = await case.record(OBSERVE)
        assert (record.status, "isolation" in record.result) == (StageStatus.FAILED, False)
        assert await case.told("stage.failed") == 1

    async def test_the_record_begins_with_the_merge(self, shop: Shop) -> None:
        case = await (await shop.mission()).merged()
        begun, row = await case.record(OBSERVE), await case.row()
        assert row.merged_at is not None
        assert (begun.status, row.stage, row.merged_at <= begun.started_at) == (StageStatus.RUNNING, OBSERVE, True)
        await do(case.host.observing.look, await case.look(1))
        await error_in(case, "calc", "division by zero")
        await do(case.host.observing.look, await case.look(2))
        assert (await case.record(OBSERVE)).started_at == begun.started_at

    async def test_an_error_in_the_first_look_ends_the_record(self, shop: Shop) -> None:
        case = await (await shop.mission()).merged()
        await error_in(case, "calc", "division by zero")
        await do(case.host.observing.look, await case.look(1))
        record = await case.record(OBSERVE)
        assert record.status == StageStatus.FAILED
        assert record.digest == digest_of(signed_content(record.model_dump()))


class TestFinish:
    async def test_the_log_goes_on_behind_the_looks(self, shop: Shop) -> None:
        case = await (await shop.mission(PROBED, acceptance_criteria={"must_pass_tests": ["calc::adds"]})).merged()
        await probed(case, 1)
        async with case.death():
            await do(case.host.observing.finish, await case.look(2))
        answers = [await do(case.host.observing.finish, await case.look(2), attempt=attempt) for attempt in (2, 3)]
        assert {answer.reason for answer in answers} == {"no anomaly in 1 look(s)"}
        log, record = await case.log(OBSERVE), await case.record(OBSERVE)
        assert log.startswith("[mission-control] look 1\nsearch.p95 50\n")
        assert "testing merged" in log
        assert record.result["isolation"] == sandbox().isolation.value
        assert await case.pieces() == 0

    async def test_a_window_that_has_passed_is_no_anomaly_to_a_reset_workflow(self, shop: Shop) -> None:
        case = await (await shop.mission()).merged()
        await do(case.host.observing.finish, await case.look(1))
        await error_in(case, "calc", "too late to be seen in it")
        assert await do(case.host.observing.look, await case.look(1)) == ObserveResult()

    async def test_what_broke_since_the_merge_is_named(self, shop: Shop) -> None:
        case = await (await shop.mission(acceptance_criteria={"must_pass_tests": ["calc::adds"]})).merged()
        case.repo.commit({"calc.txt": "a * b\n"})
        answer = await do(case.host.observing.finish, await case.look(1))
        assert (answer.status, answer.reason) == (StageStatus.FAILED, "failing at the window's end: calc::adds")

    async def test_a_branch_that_no_file_system_takes_is_judged_too(self, shop: Shop) -> None:
        case = await (await shop.mission(acceptance_criteria={"must_pass_tests": ["calc::adds"]})).merged()
        with_a_long_name(case)
        answer = await do(case.host.observing.finish, await case.look(1))
        assert answer.status is StageStatus.FAILED
        assert "longer than this machine's file system takes" in answer.reason


def with_a_long_name(case: Case) -> None:
    """Have somebody push a file whose name is longer than a file system takes."""
    blob = case.repo.git("rev-parse", "HEAD:calc.txt").decode().strip()
    case.repo.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{'z' * 300}")
    case.repo.git("commit", "-q", "-m", "long")


class TestVerifyRollback:
    async def end(self, case: Case, revert_sha: str, check: RollbackCheck) -> Conclusion:
        """Conclude as the workflow does."""
        end = Conclusion(
            ref=case.ref(RESOLVE),
            outcome=MissionOutcome.ROLLED_BACK,
            reason="errors rise",
            merge_sha=case.merge_sha,
            revert_sha=revert_sha,
            check=check,
        )
        await do(case.host.records.conclude, end)
        return end

    async def test_the_tests_after_a_rollback_are_evidence_of_stage_11(self, shop: Shop) -> None:
        case = await shop.mission()
        revert_sha = await case.rolled_back()
        check = await do(case.host.observing.verify_rollback, case.task(RESOLVE))
        assert (check.status, check.reason) == (StageStatus.PASSED, "the tests pass")
        await self.end(case, revert_sha, check)
        record, kept = await case.record(RESOLVE), dict(await case.kept(RESOLVE))
        assert (record.result["tests"]["passed"], record.result["tests"]["failed"]) == (1, 1)
        assert record.result["isolation"] == sandbox().isolation.value
        assert set(TestReport.model_validate_json(kept["test"]).by_id) == {"calc::adds", "calc::stands"}
        assert f"testing merged at {revert_sha[:12]}" in await case.log(RESOLVE)
        assert kept["log"].decode() == await case.log(RESOLVE)
        assert await case.pieces() == 0

    async def test_a_second_delivery_keeps_one_log(self, shop: Shop) -> None:
        case = await shop.mission()
        revert_sha = await case.rolled_back()
        checks = [await do(case.host.observing.verify_rollback, case.task(RESOLVE), attempt=n) for n in (1, 2)]
        end = await self.end(case, revert_sha, checks[-1])
        await do(case.host.records.conclude, end, attempt=2)
        assert [kind for kind, _ in await case.kept(RESOLVE)] == ["log", "test"]
        assert (await case.told("mission.escalated"), await case.pieces()) == (1, 0)

    async def test_its_log_can_be_followed_before_the_end(self, shop: Shop) -> None:
        slow = CHECK + "i=0; while [ $i -lt 9000 ]; do echo 'a line of output'; i=$((i+1)); done; exit 1\n"
        case = await shop.mission({"check.sh": slow})
        await case.rolled_back()
        await do(case.host.observing.verify_rollback, case.task(RESOLVE))
        assert "a line of output" in await case.log(RESOLVE)

    async def test_what_fails_without_the_merge_is_named_and_kept(self, shop: Shop) -> None:
        case = await shop.mission()
        await case.rolled_back()
        case.repo.commit({"check.sh": CHECK.replace('"stands"/>', '"stands"><failure/></testcase>')})
        check = await do(case.host.observing.verify_rollback, case.task(RESOLVE))
        assert (check.status, check.reason) == (StageStatus.FAILED, "failing after the rollback: calc::stands")
        assert (check.tests["failed"], bool(check.log_digest), bool(check.report_digest)) == (2, True, True)

    async def test_a_branch_that_no_file_system_takes_is_said(self, shop: Shop) -> None:
        case = await shop.mission()
        await case.rolled_back()
        with_a_long_name(case)
        check = await do(case.host.observing.verify_rollback, case.task(RESOLVE))
        assert check.status is StageStatus.FAILED
        assert "longer than this machine's file system takes" in check.reason

    async def test_nothing_is_tested_for_a_mission_that_was_closed(self, shop: Shop) -> None:
        case = await shop.mission()
        revert_sha = await case.rolled_back()
        await self.end(case, revert_sha, RollbackCheck(status=StageStatus.PASSED))
        with pytest.raises(MissionControlError, match="closed from outside"):
            await do(case.host.observing.verify_rollback, case.task(RESOLVE))
        assert await case.pieces() == 0
