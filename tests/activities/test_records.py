"""What only touches Postgres: skipped stages, the report, metrics, commands, the end."""

import json
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import update
from sqlmodel import col

from models.contracts.missions import AcceptanceCriteria
from models.contracts.pipeline import Conclusion, ControlRecord
from models.domain.stages import StageName, StageStatus
from models.domain.states import MissionOutcome
from models.store import metric_windows, missions, stages
from models.store.events import Actor
from models.tables.missions import Capa, MetricSample, Mission, RemediationRow
from tests.fixtures.api import add_agents
from tests.fixtures.reporting import filed_by_kin, reported
from tests.fixtures.stage_hosts import Case, Shop, do

STRESS, REPORT, METRICS = StageName.STRESS_TESTS, StageName.PUBLISH_DIAGNOSTICS, StageName.COLLECT_METRICS
TARGET = {"metric_targets": [{"metric_id": "search.p95", "comparator": "<", "target": 10}]}


async def measured(case: Case, value: float) -> None:
    async with case.db.workspace(case.workspace_id) as session:
        await metric_windows.add(session, case.workspace_id, case.mission_id, "test", {"search.p95": value})


async def test_a_stage_that_is_skipped_says_why_once(shop: Shop) -> None:
    case = await (await shop.mission()).begun()
    for attempt in (1, 2):
        await case.settle(attempt=attempt)
    record = await case.record(STRESS)
    assert (record.status, record.reason) == (StageStatus.SKIPPED, "the repository has no stress command")
    assert await case.told("stage.skipped") == 1


class TestDiagnostics:
    async def test_the_report_holds_the_stages_and_what_was_measured(self, shop: Shop) -> None:
        case = await (await shop.mission(acceptance_criteria=TARGET)).begun()
        await measured(case, 20)
        for attempt in (1, 2):
            await case.settle(attempt=attempt)
        [(kind, content)] = await case.kept(REPORT)
        report = json.loads(content)
        assert (await case.record(REPORT)).reason == "a report of 2 stage(s) is stored"
        assert (kind, [stage["stage"] for stage in report["stages"]]) == (
            "diagnostics",
            ["fetch_context", "stress_tests"],
        )
        assert [sample["value"] for sample in report["metrics"]["samples"]] == [20]
        assert [found["metric_id"] for found in report["metrics"]["unmet"]] == ["search.p95"]
        assert await case.told("diagnostics.published") == 1


class TestMetrics:
    @pytest.mark.parametrize(("value", "status"), [(5.0, StageStatus.PASSED), (20.0, StageStatus.FAILED)])
    async def test_the_samples_judge_and_are_kept(self, shop: Shop, value: float, status: StageStatus) -> None:
        case = await (await shop.mission(acceptance_criteria=TARGET)).begun()
        await measured(case, value)
        for attempt in (1, 2):
            failed = (await case.settle(attempt=attempt)).failed_stage
            assert failed is (METRICS if status is StageStatus.FAILED else None)
        assert (await case.record(METRICS)).status == status
        assert [row.value for row in await case.rows(MetricSample) if row.phase == "before_merge"] == [value]
        assert [kind for kind, _ in await case.kept(METRICS)] == ["metric"]

    @pytest.mark.parametrize("theirs", [{"created_by": "bot"}, {"assigned_to": "bot"}, {}])
    async def test_what_an_agent_reports_of_its_own_work_does_not_count(
        self, shop: Shop, theirs: dict[str, str]
    ) -> None:
        """{} is that of another agent, which does."""
        case = await (await shop.mission(acceptance_criteria=TARGET)).begun()
        await measured(case, 20)
        async with case.db.workspace(case.workspace_id) as session:
            await add_agents(session, case.workspace_id, "bot")
            own = update(Mission).where(col(Mission.mission_id) == case.mission_id)
            await session.execute(own.values(**{"correlation_id": "c"} | theirs))
        for _ in range(9):
            await reported(case, "bot", 0)
        answer = await case.settle()
        assert answer.failed_stage is (METRICS if theirs else None)

    @pytest.mark.parametrize(("value", "failed"), [(0, METRICS), (1_000, None)], ids=["alone", "against it"])
    @pytest.mark.parametrize("reporter", ["watcher", "bot"], ids=["kin", "filer"])
    async def test_what_it_and_its_kin_saw_before_the_merge_is_not_the_patch(
        self, shop: Shop, value: float, failed: StageName | None, reporter: str
    ) -> None:
        case = await (await shop.mission(acceptance_criteria=TARGET)).begun()
        if value:
            await measured(case, 5)
        await filed_by_kin(case)
        await reported(case, reporter, value)
        assert (await case.settle()).failed_stage is failed

    async def test_whom_a_filer_only_names_is_heard(self, shop: Shop) -> None:
        case = await (await shop.mission(acceptance_criteria=TARGET)).begun()
        await measured(case, 5)
        await filed_by_kin(case, assigned_to="prom")
        await reported(case, "prom", 1_000)
        assert (await case.settle()).failed_stage is METRICS

    async def test_a_metric_of_several_targets_counts_each_sample_once(self, shop: Shop) -> None:
        target = TARGET["metric_targets"][0]
        criteria = {"metric_targets": [target | {"rolling_window_minutes": minutes} for minutes in (1, 60)]}
        case = await (await shop.mission(acceptance_criteria=criteria)).begun()
        await measured(case, 5)
        async with case.db.workspace(case.workspace_id) as session:
            mission, now = await case.row(), await metric_windows.now(session)
            targets = AcceptanceCriteria.model_validate(criteria).metric_targets
            assert len((await metric_windows.samples(session, mission, targets, now)).samples) == 1

    async def test_who_started_a_mission_says_nothing_for_it(self, shop: Shop) -> None:
        """Not even where it was given to nobody in the moment in which it was started."""
        case = await (await shop.mission(acceptance_criteria=TARGET)).begun()
        async with case.db.workspace(case.workspace_id) as session:
            await add_agents(session, case.workspace_id, "starter")
            await missions.note_execute(session, await case.row(), Actor("starter", "request-1"))
        await reported(case, "starter", 5)
        answer = await case.settle()
        assert answer.failed_stage is METRICS
        assert "no sample in the last 10 min" in answer.reason

    async def test_no_sample_is_not_met(self, shop: Shop) -> None:
        case = await (await shop.mission(acceptance_criteria=TARGET)).begun()
        answer = await case.settle()
        assert answer.failed_stage is METRICS
        assert answer.reason.startswith("search.p95 must be < 10: no sample in the last 10 min; post an observation")
        assert "`POST /api/v1/metrics/observations`" in answer.reason


async def test_a_command_is_written_down_once(shop: Shop) -> None:
    case = await (await shop.mission()).begun()
    known = {"workspace_id": case.workspace_id, "mission_id": case.mission_id, "actor": "olga"}
    for number, action in ((1, "pause"), (2, "resume"), (1, "pause")):
        change = ControlRecord(key=f"update-{number}", version=number, action=action, **known)
        await do(case.host.records.record_control, change)
    row = await case.row()
    assert (row.paused, row.control_version) == (False, 2)
    actions = [entry.action for entry in await case.rows(RemediationRow)]
    assert (actions.count("pause"), actions.count("resume")) == (1, 1)


class TestConclude:
    async def ended(self, case: Case, outcome: MissionOutcome, **facts: Any) -> Capa:
        """Conclude twice; the one CAPA of it."""
        end = Conclusion(ref=case.ref(StageName.RESOLVE), outcome=outcome, reason="errors rise", **facts)
        for attempt in (1, 2):
            await do(case.host.records.conclude, end, attempt=attempt)
        assert await case.told("mission.escalated") == 1
        [capa] = await case.rows(Capa)
        assert isinstance(capa, Capa)
        return capa

    @pytest.mark.parametrize(
        ("outcome", "facts", "severity"),
        [
            (MissionOutcome.FAILED, {}, "low"),
            (MissionOutcome.FAILED, {"merge_sha": "a" * 40}, "critical"),
            (MissionOutcome.TERMINATED, {"merge_sha": "a" * 40}, "critical"),
            (MissionOutcome.ROLLED_BACK, {"merge_sha": "a" * 40, "revert_sha": "b" * 40}, "low"),
            (MissionOutcome.TERMINATED, {"merge_sha": "a" * 40, "revert_sha": "b" * 40}, "low"),
            (MissionOutcome.CANCELED, {"merge_sha": "a" * 40}, "low"),
        ],
    )
    async def test_a_merge_that_should_have_gone_is_critical(
        self, shop: Shop, outcome: MissionOutcome, facts: dict[str, str], severity: str
    ) -> None:
        capa = await self.ended(await (await shop.mission()).begun(), outcome, **facts)
        assert capa.severity == severity

    @pytest.mark.parametrize(
        ("outcome", "severity"), [(MissionOutcome.FAILED, "critical"), (MissionOutcome.CANCELED, "low")]
    )
    async def test_a_merge_that_a_reset_run_knows_nothing_of_is_named(
        self, shop: Shop, outcome: MissionOutcome, severity: str
    ) -> None:
        case = await (await shop.mission()).merged()
        capa = await self.ended(case, outcome, capa=False)
        assert (capa.severity, capa.cause) == (
            severity,
            "errors rise after its merge, which nobody observed to the end",
        )
        assert (await case.row()).reason == capa.cause
        assert (await case.record(StageName.RESOLVE)).git_sha == case.merge_sha

    async def test_nor_does_it_forget_that_the_merge_was_taken_back(self, shop: Shop) -> None:
        case = await shop.mission()
        revert_sha = await case.rolled_back()
        capa = await self.ended(case, MissionOutcome.FAILED)
        assert (capa.severity, capa.cause) == ("low", "errors rise")
        assert capa.corrective == f"The merge was taken back by {revert_sha}."

    async def test_a_stage_that_was_broken_off_keeps_what_it_printed(self, shop: Shop) -> None:
        case = await (await shop.mission(probe_files())).merged()
        await do(case.host.observing.probe, await case.look(1))
        await self.ended(case, MissionOutcome.TERMINATED, merge_sha=case.merge_sha)
        record = await case.record(StageName.OBSERVE)
        assert (record.status, record.reason) == (StageStatus.FAILED, "errors rise")
        assert "search.p95 50" in await case.log(StageName.OBSERVE)
        assert await case.pieces() == 0

    @pytest.mark.parametrize(
        ("outcome", "score"),
        [
            (MissionOutcome.MERGED, "0.52"),
            (MissionOutcome.ROLLED_BACK, "0.30"),
            (MissionOutcome.FAILED, "0.40"),
            (MissionOutcome.DENIED, "0.40"),
            (MissionOutcome.CANCELED, "0.50"),
        ],
    )
    async def test_it_moves_the_score_of_the_missions_agent_once(
        self, shop: Shop, outcome: MissionOutcome, score: str
    ) -> None:
        async with shop.db.system() as session:
            await add_agents(session, shop.workspace_id, "bot", "bert")
        case = await (await shop.mission(assigned_to="bot")).begun()
        end = Conclusion(ref=case.ref(StageName.RESOLVE), outcome=outcome, reason="it is over", capa=False)
        for attempt in (1, 2):
            await do(case.host.records.conclude, end, attempt=attempt)
        found = await shop.db.alone(shop.workspace_id, "SELECT name, trust FROM agent", {})
        assert {row["name"]: row["trust"] for row in found} == {"bot": Decimal(score), "bert": Decimal("0.50")}
        assert await case.told("agent.trust_changed") == (score != "0.50")

    async def test_it_closes_every_stage(self, shop: Shop) -> None:
        case = await (await shop.mission()).begun()
        async with case.db.workspace(case.workspace_id) as session:
            await stages.begin(session, case.ref(StageName.RUN_TESTS), 1)
        await self.ended(case, MissionOutcome.FAILED)
        async with case.db.workspace(case.workspace_id) as session:
            assert await stages.open_of(session, case.workspace_id, case.mission_id) == []


def probe_files() -> dict[str, str]:
    return {".mission-control.yaml": "test: sh check.sh\nprobe: echo search.p95 50\n"}
