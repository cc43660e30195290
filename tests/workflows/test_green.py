"""A mission that goes well: every stage once, in order, recorded, signed, told of."""

import pytest

from activities.workbench.signing import verify
from models.domain.canonical import digest_of
from models.domain.stages import StageName, StageStatus
from models.domain.states import MissionOutcome, MissionStatus
from models.store.stages import signed_content
from models.tables.missions import Stage
from tests.fixtures.instant_ports import Script
from tests.fixtures.runs import Run
from tests.fixtures.workers import World


@pytest.fixture(scope="module")
async def run(world: World) -> Run:
    """A mission that ran to its end."""
    run = await world.start()
    assert await run.outcome() is MissionOutcome.MERGED
    return run


async def test_every_stage_runs_once_and_in_order(run: Run) -> None:
    records = await run.stages()
    assert [record.stage for record in records] == [stage.value for stage in StageName]
    assert [record.started_at for record in records] == sorted(record.started_at for record in records)
    others = {record.stage: record.status for record in records if record.status != StageStatus.PASSED}
    assert others == {"stress_tests": "skipped"}


async def test_every_record_is_signed(run: Run, world: World) -> None:
    for record in await run.stages():
        assert record.digest == digest_of(signed_content(record.model_dump()))
        assert record.key_id == world.key.key_id
        assert is_genuine(record, world)


async def test_every_record_says_what_the_stage_was_asked(run: Run) -> None:
    asked = {record.stage: record.result["inputs"] for record in await run.stages()}
    assert all(asked.values())
    assert asked["collect_metrics"]["head_sha"] == asked["security_scan"]["head_sha"] != ""
    assert asked["resolve"]["outcome"] == "merged"


async def test_an_altered_record_is_found_out(run: Run, world: World) -> None:
    record = (await run.stages())[3]
    record.result = {**record.result, "answer": {"status": "failed"}}
    assert not is_genuine(record, world)


def is_genuine(record: Stage, world: World) -> bool:
    digest = digest_of(signed_content(record.model_dump()))
    return verify(world.key.public_openssh, digest.encode(), record.signature or "")


async def test_the_events_tell_the_story(run: Run) -> None:
    told = [event["type"] for event in await run.events()]
    pairs = [
        ("stage.started", "stage.skipped" if stage is StageName.STRESS_TESTS else "stage.passed") for stage in StageName
    ]
    expected = ["mission.created", "mission.started", *(kind for pair in pairs for kind in pair)]
    expected.insert(-2 * 6 + 2, "diagnostics.published")
    expected.insert(-2 * 4 + 1, "decision.approved")
    expected[-4:-4] = ["mission.merged", "mission.observing"]
    assert told == [*expected, "mission.resolved"]


async def test_every_event_belongs_to_the_request_that_filed_the_mission(run: Run) -> None:
    assert {event["correlation_id"] for event in await run.events()} == {"request-1"}


async def test_the_history_has_one_entry_per_stage(run: Run) -> None:
    history = await run.history()
    assert [entry.stage for entry in history] == [stage.value for stage in StageName]
    assert {entry.actor for entry in history} == {"worker"}


async def test_the_row_shows_how_it_ended(run: Run) -> None:
    row = await run.row()
    assert (row.status, row.outcome, row.stage) == (MissionStatus.RESOLVED, MissionOutcome.MERGED, StageName.RESOLVE)
    assert row.merge_sha == (await run.stage(StageName.MERGE)).result["answer"]["merge_sha"]
    assert row.started_at is not None
    assert row.merged_at is not None
    assert row.ended_at is not None
    assert row.started_at < row.merged_at < row.ended_at


async def test_nothing_is_left_to_do(run: Run) -> None:
    assert await run.capas() == []
    assert run.script.closed == 1
    assert (await run.snapshot()).outcome is MissionOutcome.MERGED


async def test_the_policy_decides_where_no_human_is_needed(run: Run) -> None:
    [decision] = await run.decisions()
    assert (decision.status, decision.resolved_by) == ("approved", "policy")
    assert decision.acknowledged_at is not None, "the reconciler would tell the mission again and again"


async def test_a_stress_command_is_run(world: World) -> None:
    run = await world.start(Script(has_stress=True))
    assert await run.outcome() is MissionOutcome.MERGED
    assert (await run.stage(StageName.STRESS_TESTS)).status == StageStatus.PASSED
