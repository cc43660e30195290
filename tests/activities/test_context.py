"""Stage 1: what a mission stands on, and when a repository that cannot be read fails it."""

import shutil
from datetime import UTC, date, datetime
from typing import Any

import pytest

from activities.patience import SECONDS, Patience
from activities.workbench.git import GitError
from models.domain.errors import MissionControlError
from models.domain.stages import StageName, StageStatus
from models.domain.states import MissionStatus
from models.store.database import Clock
from tests.fixtures.stage_hosts import Case, Shop, do

LOOK = StageName.FETCH_CONTEXT
AWAY = "https://127.0.0.1:1/app.git"


async def looked(case: Case, **info: Any) -> Any:
    return await do(case.host.context.fetch_context, case.task(LOOK), **info)


class TestFetchContext:
    async def test_it_settles_what_the_mission_stands_on(self, shop: Shop) -> None:
        case = await shop.mission()
        answer = await looked(case)
        row, record = await case.row(), await case.record(LOOK)
        assert (answer.base_sha, answer.candidates, answer.host_queue) == (case.repo.sha(), 1, "host-one")
        assert (row.status, row.run_id) == (MissionStatus.IN_PROGRESS, "run-1")
        assert row.commands["test"] == "sh check.sh"
        assert (record.git_sha, record.config_hash) == (answer.base_sha, answer.config_hash)

    async def test_its_price_is_that_of_the_databases_day(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        case, days = await shop.mission(), list[date]()
        monkeypatch.setattr(case.host.recorder, "second", days.append)
        monkeypatch.setattr(Clock, "now", datetime(2031, 5, 6, 23, tzinfo=UTC))
        await looked(case)
        assert days == [date(2031, 5, 6)]

    async def test_a_second_delivery_changes_nothing(self, shop: Shop) -> None:
        case = await shop.mission()
        first = await looked(case)
        case.repo.commit({"calc.txt": "moved on\n"})
        assert await looked(case, attempt=2) == first
        assert await case.told("mission.started") == 1

    async def test_a_death_before_the_record_is_made_good(self, shop: Shop) -> None:
        case = await shop.mission()
        async with case.death():
            await looked(case)
        assert (await looked(case, attempt=2)).base_sha == case.repo.sha()
        assert (await case.told("mission.started"), await case.told("stage.started")) == (1, 1)

    async def test_another_run_is_refused(self, shop: Shop) -> None:
        case = await shop.mission()
        await looked(case)
        with pytest.raises(MissionControlError, match="it runs only once"):
            await looked(case, workflow_run_id="run-2")

    async def test_a_workflow_that_was_reset_is_the_same_mission(self, shop: Shop) -> None:
        case = await shop.mission()
        first = await looked(case)
        again = case.task(LOOK).model_copy(update={"first_run_id": "run-1"})
        assert await do(case.host.context.fetch_context, again, workflow_run_id="run-2") == first

    async def test_one_that_was_reset_after_its_merge_is_told_what_it_knew(self, shop: Shop) -> None:
        case = await shop.mission()
        first = await looked(case)
        await case.merged()
        again = case.task(LOOK).model_copy(update={"first_run_id": "run-1"})
        assert await do(case.host.context.fetch_context, again, workflow_run_id="run-2") == first
        assert (await case.row()).status == MissionStatus.OBSERVING

    async def test_its_code_is_there_when_a_round_is_open(self, shop: Shop) -> None:
        case = await shop.mission()
        answers = [await do(case.host.context.open, case.task(LOOK), attempt=attempt) for attempt in (1, 2)]
        assert answers[0] == answers[1]
        assert (await case.record(StageName.PULL_CODE)).git_sha == answers[0].base_sha
        assert await case.told("stage.passed") == 2

    async def test_the_config_hash_names_the_rules(self, shop: Shop) -> None:
        plain, same = await looked(await shop.mission()), await looked(await shop.mission())
        other = await looked(await shop.mission({".mission-control.yaml": "test: sh check.sh -v\n"}))
        kept = await looked(await shop.mission(registered={"protected": True}))
        assert plain.config_hash == same.config_hash
        assert len({plain.config_hash, other.config_hash, kept.config_hash}) == 3

    async def test_an_override_may_not_loosen(self, shop: Shop) -> None:
        answer = await looked(await shop.mission(overrides={"timeout": "2h"}))
        assert answer.status is StageStatus.FAILED
        assert "may only shorten the timeout" in answer.reason

    async def test_any_host_takes_over(self, shop: Shop) -> None:
        case = await shop.mission()
        assert (await do(shop.host("two").context.take_over, case.close)).name == "host-two"


class TestUnreadable:
    async def test_a_path_that_vanished_fails_the_stage(self, shop: Shop) -> None:
        case = await shop.mission()
        shutil.rmtree(case.repo.path)
        answer = await looked(case)
        assert answer.status is StageStatus.FAILED
        assert answer.reason.startswith("There is no git repository at that path")

    async def test_a_refusal_fails_the_stage_at_once(self, shop: Shop) -> None:
        answer = await looked(case := await shop.mission(url="https://hosting.invalid/app.git"))
        assert answer.status is StageStatus.FAILED
        assert answer.reason.endswith("or mend name resolution on this machine; then retry the mission.")
        assert (await case.record(LOOK)).result["code"] == "repository_host_unknown"

    async def test_one_that_is_away_is_tried_again(self, shop: Shop) -> None:
        case = await shop.mission(url=f"{AWAY}/{shop.workspace_id}")
        with pytest.raises(GitError) as failed:
            await looked(case)
        assert failed.value.retryable
        assert "try 1: git ls-remote failed" in await case.log(LOOK)
        assert (await case.record(LOOK)).ended_at is None

    async def test_one_that_stays_away_fails_the_stage(self, shop: Shop) -> None:
        case = await shop.mission(url=f"{AWAY}/{shop.workspace_id}")
        now = 0.0
        case.host.recorder.patience = Patience(lambda: now)
        for attempt in (1, 2):
            with pytest.raises(GitError):
                await looked(case, attempt=attempt)
        now = SECONDS
        answer = await looked(case, attempt=3)
        assert answer.status is StageStatus.FAILED
        assert "Git could not do it for 10 minutes: git ls-remote failed" in answer.reason
        assert "Couldn't connect to server" in answer.reason
        assert str(shop.root) not in answer.reason
        record = await case.record(LOOK)
        assert record.result["code"] == "git_failed"
        assert str(shop.root) not in record.result["stderr"]
        assert await case.pieces() == 0
