"""A target that only the repository's probe supplies: it is measured at the candidate, before stage 7 judges."""

from typing import Any

import pytest

from models.contracts.pipeline import Opened, StageInput
from models.domain.stages import StageName, StageStatus
from models.store import probes, stages
from models.store.probes import Probed
from models.tables.missions import MetricSample, Stage
from tests.fixtures.stage_hosts import Case, Shop, do, sandbox

METRICS = StageName.COLLECT_METRICS
RULES = "test: sh check.sh\njunit: /out/junit.xml\nprobe: sh probe.sh\n"
COUNTS = "grep -q 'a + b' calc.txt && echo calc.right 1 || echo calc.right 0\n"
"""Tells the candidate from its base."""
TARGET = {"metric_targets": [{"metric_id": "calc.right", "comparator": "==", "target": 1}]}


async def filed(shop: Shop, probe: str = COUNTS, **changes: Any) -> Case:
    """A mission on a repository with this probe."""
    files = {".mission-control.yaml": RULES, "probe.sh": probe}
    return await shop.mission(files, **{"acceptance_criteria": TARGET, **changes})


async def proved(case: Case, attempt: int = 1) -> Case:
    """Open the mission's round, with all that its candidate proves."""
    task = StageInput(ref=case.ref(StageName.FETCH_CONTEXT))
    opened: Opened = await do(case.host.proving.open_round, task, attempt=attempt)
    assert opened.proof is not None
    assert opened.proof.failed_stage is None, opened.proof.reason
    case.base_sha, case.head_sha = opened.context.base_sha, opened.proof.head_sha
    return case


async def test_the_probe_measures_the_candidate_before_the_merge(shop: Shop) -> None:
    case = await proved(await filed(shop))
    for attempt in (1, 2):
        answer = await case.settle(attempt=attempt)
        assert (answer.failed_stage, answer.reason) == (None, "")
    record = await case.record(METRICS)
    assert (record.status, record.reason) == (StageStatus.PASSED, "calc.right is 1, must be == 1 (1 sample(s))")
    assert record.result["isolation"] == sandbox().isolation.value
    assert "calc.right 1\n" in await case.log(METRICS)
    assert [kind for kind, _ in await case.kept(METRICS)] == ["log", "metric"]
    assert await case.pieces() == 0
    told = sorted(await case.rows(Stage), key=lambda row: (row.started_at, row.position))
    assert [row.position for row in told] == sorted(row.position for row in told), "stages begin in their order"
    assert {"stress_tests", "publish_diagnostics"} <= {row.stage for row in told}


async def test_a_second_delivery_measures_nothing_twice(shop: Shop) -> None:
    case = await proved(await proved(await filed(shop)), attempt=2)
    assert await case.samples("probe/before/0/0") == {"calc.right": 1.0}
    assert (await case.record(METRICS)).attempt == 1
    await case.settle()
    assert (await case.log(METRICS)).count("probing patched") == 1
    assert await case.told("stage.started") == len(await case.rows(Stage))


async def test_a_probe_that_was_killed_runs_again(shop: Shop) -> None:
    case = await filed(shop)
    async with case.db.workspace(case.workspace_id) as session:
        await stages.begin(session, case.ref(METRICS), 1)
    await proved(case, attempt=2)
    assert (await case.settle()).failed_stage is None
    record = await case.record(METRICS)
    assert (record.attempt, await case.samples("probe/before/0/0")) == (2, {"calc.right": 1.0})


async def test_one_that_was_superseded_leaves_nothing(shop: Shop) -> None:
    case = await proved(await filed(shop, "echo calc.right 0\n"))
    async with case.db.workspace(case.workspace_id) as session:
        stale = await stages.load(session, case.ref(METRICS))
        assert stale is not None
        session.expunge(stale)
        await stages.begin(session, case.ref(METRICS), 2)
        assert not await probes.note(session, stale, Probed(broken="late"))
        assert probes.noted(stale) == Probed(isolation=sandbox().isolation.value)


async def test_a_target_that_the_candidate_misses_fails_it(shop: Shop) -> None:
    case = await proved(await filed(shop, "echo calc.right 0\n"))
    answer = await case.settle()
    assert (answer.failed_stage, answer.reason) == (METRICS, "calc.right must be == 1: observed 0 over 10 min")


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        ("echo no gauge; exit 3\n", "The probe ended with code 3 (at the patch); "),
        ("echo so so la la\n", "what the probe printed: 'so so la la' is not `metric_id value` (at the patch); "),
    ],
)
async def test_a_probe_that_breaks_is_named(shop: Shop, probe: str, said: str) -> None:
    case = await proved(await filed(shop, probe))
    answer = await case.settle()
    assert (answer.failed_stage, answer.reason.startswith(said)) == (METRICS, True), answer.reason
    assert probe.split(";")[0].removeprefix("echo ").strip() in await case.log(METRICS)


async def test_a_metric_that_it_does_not_print_is_still_missing(shop: Shop) -> None:
    case = await proved(await filed(shop, "echo calc.wrong 1\n"))
    reason = (await case.settle()).reason
    assert reason.startswith("calc.right must be == 1: no sample in the last 10 min; the probe printed no such metric")


async def test_without_targets_nothing_is_probed(shop: Shop) -> None:
    case = await proved(await filed(shop, "exit 3\n", acceptance_criteria={}))
    answer = await case.settle()
    record = await case.record(METRICS)
    assert (answer.failed_stage, record.reason) == (None, "the mission has no metric targets")
    assert await case.rows(MetricSample) == []
