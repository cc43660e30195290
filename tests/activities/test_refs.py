"""A candidate's ref stands for the commit it named when it was first applied, on every host and in every round."""

from collections.abc import Callable

import pytest

from models.contracts.pipeline import StageInput
from models.domain.stages import StageName, StageStatus
from models.store import candidates
from models.store.candidates import NewCandidate
from tests.fixtures.product import FIX
from tests.fixtures.stage_hosts import Case, Shop, do

PATCH, TESTS = StageName.BRANCH_AND_PATCH, StageName.RUN_TESTS


def task(case: Case, stage: StageName, round_: int = 0) -> StageInput:
    """Ask for a stage with the mission's second candidate."""
    ref = case.ref(stage, round_).model_copy(update={"candidate": 1})
    return StageInput(ref=ref, base_sha=case.base_sha, head_sha=case.head_sha)


async def patched(shop: Shop) -> Case:
    """A mission whose second candidate is a branch, as stage 3 leaves it."""
    case = await shop.mission()
    case.repo.branch("fix", FIX)
    async with case.db.workspace(case.workspace_id) as session:
        await candidates.keep(session, case.workspace_id, case.mission_id, [NewCandidate("olga", ref="fix")], "olga")
    await case.begun()
    answer = await do(case.host.code.branch_and_patch, task(case, PATCH))
    assert answer.head_sha, answer.reason
    case.head_sha = answer.head_sha
    return case


def move(case: Case) -> None:
    case.repo.git("checkout", "-q", "fix")
    case.repo.commit({"more.txt": "more\n"})
    case.repo.git("checkout", "-q", "main")


def delete(case: Case) -> None:
    case.repo.git("branch", "-q", "-D", "fix")


def rewrite(case: Case) -> None:
    delete(case)
    case.repo.branch("fix", {"calc.txt": "b + a\n"})


async def test_a_tree_that_git_checks_out_nowhere_fails_its_stage(shop: Shop) -> None:
    case = await shop.mission()
    case.repo.odd_branch("odd", "120000", ".gitmodules")
    async with case.db.workspace(case.workspace_id) as session:
        await candidates.keep(session, case.workspace_id, case.mission_id, [NewCandidate("olga", ref="odd")], "olga")
    await case.begun()
    answer = await do(case.host.code.branch_and_patch, task(case, PATCH))
    assert answer.status is StageStatus.FAILED
    assert "may not write '.gitmodules'" in answer.reason


@pytest.mark.parametrize("happens", [move, delete, rewrite])
async def test_another_host_makes_the_same_commit(shop: Shop, happens: Callable[[Case], None]) -> None:
    case = await patched(shop)
    happens(case)
    answer = await do(shop.host("two").testing.run_tests, task(case, TESTS))
    assert answer.status is StageStatus.PASSED, answer.reason


async def test_another_host_says_that_the_commit_is_gone(shop: Shop) -> None:
    case = await patched(shop)
    delete(case)
    case.repo.git("reflog", "expire", "--expire=now", "--all")
    case.repo.git("gc", "-q", "--prune=now")
    answer = await do(shop.host("two").testing.run_tests, task(case, TESTS))
    assert answer.status is StageStatus.FAILED
    assert "push it again, then retry the mission" in answer.reason


@pytest.mark.parametrize("happens", [move, delete, rewrite])
async def test_a_later_round_brings_the_same_change(shop: Shop, happens: Callable[[Case], None]) -> None:
    case = await patched(shop)
    first = await do(case.host.code.branch_and_patch, task(case, PATCH))
    happens(case)
    case.repo.commit({"other.txt": "work of others\n"})
    context = await do(case.host.context.fetch_context, task(case, StageName.FETCH_CONTEXT, round_=1))
    assert context.base_sha != case.base_sha
    case.base_sha = context.base_sha
    again = await do(case.host.code.branch_and_patch, task(case, PATCH, round_=1))
    assert (again.status, again.patch_id) == (StageStatus.PASSED, first.patch_id), again.reason
