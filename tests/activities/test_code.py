"""Stages 2 and 3 on real repositories, and giving the workbench back."""

import os

import pytest

from activities.patience import SECONDS, Patience
from models.domain.errors import WorkbenchLost
from models.domain.stages import StageName, StageStatus
from models.store import workbenches
from models.tables.missions import Workbench
from tests.fixtures.stage_hosts import Case, Shop, do

CRASHES = "diff --git a/q.py b/q.py\nt b/n.txt\n--- /dev/null\n+++ b/n.txt\n@@ -0,0 +1 @@\n+c\n"
"""Git 2.39 fails an assertion of its own on it."""

PULL, PATCH = StageName.PULL_CODE, StageName.BRANCH_AND_PATCH


async def stored(case: Case) -> tuple[bytes, ...]:
    """List each object that the repository, its mirror and the mission hold, and each ref of the repository."""
    listing = ("cat-file", "--batch-all-objects", "--batch-check")
    mirrored = (await (await case.job()).mirror.git(*listing)).out
    return case.repo.git(*listing), case.repo.git("for-each-ref"), mirrored


class TestPullCode:
    async def test_the_checkout_is_the_base(self, shop: Shop) -> None:
        case = await (await shop.mission()).begun()
        for attempt in (1, 2):
            answer = await do(case.host.code.pull_code, case.task(PULL), attempt=attempt)
            assert answer.status is StageStatus.PASSED
        assert ((await case.job()).bench.root / "base" / "calc.txt").read_text() == "a - b\n"
        assert (await case.record(PULL)).git_sha == case.base_sha

    async def test_a_death_before_the_record_is_made_good(self, shop: Shop) -> None:
        case = await (await shop.mission()).begun()
        async with case.death():
            await do(case.host.code.pull_code, case.task(PULL))
        assert (await do(case.host.code.pull_code, case.task(PULL), attempt=2)).status is StageStatus.PASSED

    async def test_a_base_that_is_nowhere_is_asked_for_again_but_not_for_ever(self, shop: Shop) -> None:
        case = await (await shop.mission()).begun()
        gone = case.task(PULL).model_copy(update={"base_sha": "f" * 40})
        now = 0.0
        case.host.recorder.patience = Patience(lambda: now)
        for attempt in (1, 2):
            with pytest.raises(WorkbenchLost):
                await do(case.host.code.pull_code, gone, attempt=attempt)
            assert (await case.record(PULL)).ended_at is None
        now = SECONDS
        answer = await do(case.host.code.pull_code, gone, attempt=3)
        assert (answer.status, (await case.record(PULL)).result["code"]) == (StageStatus.FAILED, "commit_lost")

    async def test_a_name_that_no_file_system_takes_fails_the_stage(self, shop: Shop) -> None:
        case = await shop.mission()
        blob = case.repo.git("rev-parse", "HEAD:calc.txt").decode().strip()
        case.repo.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{'x' * 300}")
        case.repo.git("commit", "-q", "-m", "long")
        await case.begun()
        answer = await do(case.host.code.pull_code, case.task(PULL))
        assert (answer.status, (await case.record(PULL)).result["code"]) == (StageStatus.FAILED, "path_too_long")


class TestBranchAndPatch:
    async def test_the_commit_holds_the_candidate(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        record = await case.record(PATCH)
        diff = await (await case.job()).mirror.diff(case.base_sha, case.head_sha)
        assert b"+a + b" in diff
        assert await case.kept(PATCH) == [("log", diff)]
        assert (record.git_sha, record.reason) == (case.head_sha, f"1 file(s), +1 -1 as {case.head_sha[:12]}")

    async def test_the_registered_repository_is_left_alone(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        assert case.repo.git("for-each-ref", "--format=%(refname)").split() == [b"refs/heads/main"]

    async def test_a_death_before_the_record_makes_the_same_commit(self, shop: Shop) -> None:
        case = await (await shop.mission()).begun()
        async with case.death():
            await do(case.host.code.branch_and_patch, case.task(PATCH))
        first = await do(case.host.code.branch_and_patch, case.task(PATCH), attempt=2)
        elsewhere = await do(shop.host("two").code.branch_and_patch, case.task(PATCH), attempt=3)
        assert first == elsewhere
        refs = await (await case.job()).mirror.git("for-each-ref", "refs/mission-control/")
        assert refs.text.count("\n") == 0

    async def test_a_diff_that_crashes_git_fails_the_stage(self, shop: Shop) -> None:
        case = await (await shop.mission(patch=CRASHES)).begun()
        answer = await do(case.host.code.branch_and_patch, case.task(PATCH))
        assert answer.status is StageStatus.FAILED
        assert (await case.record(PATCH)).result["code"] in ("git_crashed", "patch_does_not_apply")

    async def test_read_only_missions_make_no_commit_and_push_no_branch(self, shop: Shop) -> None:
        case = await (await shop.mission(trust_requirements={"memory_write_scope": "read_only"})).begun()
        before = await stored(case)
        for attempt in (1, 2):
            answer = await do(case.host.code.branch_and_patch, case.task(PATCH), attempt=attempt)
            assert (answer.status, answer.head_sha) == (StageStatus.FAILED, "")
        assert "it may not change code" in answer.reason
        assert (await case.record(PATCH)).result["code"] == "read_only"
        assert await stored(case) == before
        assert await stored(await (await shop.another(case)).patched()) != before, "what changes would be seen"

    async def test_a_patch_for_another_base_fails(self, shop: Shop) -> None:
        case = await shop.mission()
        case.repo.commit({"calc.txt": "something else\n"})
        await case.begun()
        answer = await do(case.host.code.branch_and_patch, case.task(PATCH))
        assert "does not apply" in answer.reason
        assert (await case.record(PATCH)).result["code"] == "patch_does_not_apply"


class TestCloseWorkbench:
    async def test_nothing_is_left_however_often_it_is_asked(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        await do(case.host.code.pull_code, case.task(PULL))
        for attempt in (1, 2):
            await do(case.host.code.close_workbench, case.close, attempt=attempt)
        job = await case.job()
        assert not job.bench.root.exists()
        assert (await job.mirror.git("for-each-ref", "refs/mission-control/")).out == b""
        assert [bench.closed_at is None for bench in await case.rows(Workbench)] == [False]

    async def test_mirrors_unused_for_a_month_go_unless_a_workbench_is_open(self, shop: Shop) -> None:
        closing, open_, idle, fresh = [await (await shop.mission()).patched() for _ in range(4)]
        for case in (idle, fresh):
            await do(case.host.code.close_workbench, case.close)
        mirrors = {case.mission_id: (await case.job()).mirror.path for case in (open_, idle, fresh)}
        for case in (open_, idle):
            os.utime(mirrors[case.mission_id] / "HEAD", (0, 0))
        await do(closing.host.code.close_workbench, closing.close)
        left = {mission_id for mission_id, path in mirrors.items() if path.exists()}
        assert left == {open_.mission_id, fresh.mission_id}

    async def test_a_host_closes_only_its_own(self, shop: Shop) -> None:
        case: Case = await (await shop.mission()).patched()
        async with case.db.workspace(case.workspace_id) as session:
            await workbenches.open_on(session, case.workspace_id, case.mission_id, "two")
        await do(case.host.code.close_workbench, case.close)
        assert {bench.host: bench.closed_at is None for bench in await case.rows(Workbench)} == {
            "one": False,
            "two": True,
        }
