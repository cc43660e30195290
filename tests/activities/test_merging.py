"""Stage 9 and the rollback, on a real repository: one merge, at most one revert, whatever dies."""

import pytest
from sqlalchemy import text, update
from sqlmodel import col

from models.contracts.pipeline import Conclusion, MergeResult
from models.domain.errors import MissionControlError
from models.domain.policy import Outcome
from models.domain.stages import StageName, StageStatus
from models.domain.states import DecisionStatus, MissionOutcome, MissionStatus
from models.store import policies, running
from models.tables.missions import Mission
from models.tables.policies import VerdictRow
from tests.fixtures.api import add_agents
from tests.fixtures.policies import SOURCE
from tests.fixtures.stage_hosts import OPERATOR, Case, Shop, do

MERGE, RESOLVE = StageName.MERGE, StageName.RESOLVE


def frozen(action: str = "mission.merge") -> str:
    """A policy that denies this, too."""
    rule = f"{{rule: freeze, because: nothing goes on, when: {{action: {action}}}, deny: true}}"
    return SOURCE.replace("rules:\n", f"rules:\n  - {rule}\n", 1)


async def merged(case: Case, token: int = 1, **info: int) -> MergeResult:
    return await do(case.host.merging.merge, case.merge(token=token), **info)


async def reverted(case: Case, token: int = 2, **info: int) -> MergeResult:
    return await do(case.host.merging.roll_back, case.merge(RESOLVE, token), **info)


def commits(case: Case) -> int:
    return int(case.repo.git("rev-list", "--count", "--first-parent", "main"))


async def in_force(case: Case, source: str) -> None:
    """Put another policy in force."""
    async with case.db.workspace(case.workspace_id) as session:
        made = await policies.create(session, case.workspace_id, source, "", OPERATOR)
        await policies.activate(session, case.workspace_id, made.version, OPERATOR)


async def may(case: Case, scope: str) -> None:
    """Let the mission write so much from now on."""
    async with case.db.workspace(case.workspace_id) as session:
        values = {"trust_requirements": {"memory_write_scope": scope}}
        await session.execute(update(Mission).where(col(Mission.mission_id) == case.mission_id).values(**values))


class TestMerge:
    async def test_the_branch_gets_the_commit(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        answer = await merged(case)
        assert (answer.status, case.repo.sha("main")) == (StageStatus.PASSED, answer.merge_sha)
        assert case.repo.show("main", "calc.txt") == b"a + b\n"
        row = await case.row()
        assert (row.status, row.merge_sha) == (MissionStatus.OBSERVING, answer.merge_sha)

    async def test_a_death_before_the_record_merges_once(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        async with case.death():
            await merged(case)
        assert (await case.row()).merge_sha is None
        first, again = await merged(case, attempt=2), await merged(case, attempt=3)
        assert first == again
        assert commits(case) == 2
        assert "(found: an earlier try made it)" in (await case.record(MERGE)).reason
        assert await case.told("mission.merged") == 1

    async def test_another_host_finds_the_merge(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        async with case.death():
            await merged(case)
        case.host = shop.host("two")
        assert (await merged(case, attempt=2)).merge_sha == case.repo.sha("main")
        assert commits(case) == 2

    async def test_a_merge_whose_slot_was_lost_before_its_record_is_found(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        async with case.death():
            await merged(case, token=1)
        await case.pass_fence(token=2)
        answer = await merged(case, token=1, attempt=2)
        assert (answer.merge_sha, commits(case)) == (case.repo.sha("main"), 2)

    async def test_a_policy_that_judges_it_otherwise_by_now_has_it_judged_anew(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        await case.settle()
        await in_force(case, frozen())
        answer = await merged(case)
        assert (answer.status, answer.moved_to, commits(case)) == (StageStatus.SKIPPED, case.base_sha, 1)
        assert "the policy in force judges it otherwise" in answer.reason

    async def test_so_has_an_agent_that_is_demoted(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        async with case.db.workspace(case.workspace_id) as session:
            await add_agents(session, case.workspace_id, "bot")
            await session.execute(text("UPDATE agent SET level = 'lead' WHERE name = 'bot'"))
            await session.execute(text("UPDATE mission SET created_by = 'bot'"))
        await case.settle()
        assert (await case.rows(VerdictRow))[-1].outcome == Outcome.ALLOW
        async with case.db.workspace(case.workspace_id) as session:
            await session.execute(text("UPDATE agent SET level = 'intern' WHERE name = 'bot'"))
        answer = await merged(case)
        assert (answer.status, answer.moved_to, commits(case)) == (StageStatus.SKIPPED, case.base_sha, 1)

    async def test_one_that_says_the_same_of_it_lets_it_pass(self, shop: Shop) -> None:
        case = await (await shop.mission(registered={"protected": True})).patched()
        await case.settle()
        await in_force(case, frozen("prod_deploy"))
        assert (await merged(case)).status is StageStatus.PASSED

    async def test_one_that_lets_others_answer_does_not(self, shop: Shop) -> None:
        case = await (await shop.mission(registered={"protected": True})).patched()
        await case.settle()
        await in_force(case, SOURCE.replace('"*": {role: operator}', '"*": {role: admin}'))
        assert (await merged(case)).moved_to == case.base_sha

    async def test_so_where_only_its_filer_wanted_it_asked(self, shop: Shop) -> None:
        case = await (await shop.mission(trust_requirements={"requires_governance_approval": True})).patched()
        await case.settle()
        await in_force(case, SOURCE.replace('"*": {role: operator}', '"*": {role: admin}'))
        assert (await merged(case)).moved_to == case.base_sha

    async def test_a_merge_that_an_earlier_try_made_under_the_older_one_is_found(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        await case.settle()
        async with case.death():
            await merged(case)
        await in_force(case, frozen())
        answer = await merged(case, attempt=2)
        assert (answer.merge_sha, commits(case)) == (case.repo.sha("main"), 2)

    async def test_what_an_earlier_try_may_have_sent_is_not_judged_again(self, shop: Shop) -> None:
        """It may arrive yet, and a mission that had ended by then would not know of it."""
        case = await (await shop.mission()).patched()
        await case.settle()
        await in_force(case, frozen())
        assert (await merged(case, attempt=2)).status is StageStatus.PASSED

    async def test_a_lost_slot_without_a_merge_is_lost(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        await case.pass_fence(token=2)
        with pytest.raises(MissionControlError) as refused:
            await merged(case, token=1)
        assert (refused.value.code, commits(case)) == ("slot_lost", 1)

    async def test_a_mission_that_has_ended_merges_no_more(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        end = Conclusion(ref=case.ref(RESOLVE), outcome=MissionOutcome.TERMINATED, reason="gone", capa=False)
        async with case.db.workspace(case.workspace_id) as session:
            assert await running.conclude(session, end, "reconciler")
        with pytest.raises(MissionControlError) as refused:
            await merged(case)
        assert (refused.value.code, commits(case)) == ("mission_ended", 1)

    async def test_a_branch_that_moved_is_not_merged_into(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        head = case.repo.commit({"other.txt": "somebody's work\n"})
        answer = await merged(case)
        assert (answer.status, answer.moved_to) == (StageStatus.SKIPPED, head)
        assert case.repo.sha("main") == head

    async def test_what_may_only_read_is_not_merged(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        await may(case, "read_only")
        refs = case.repo.git("for-each-ref")
        answer = await merged(case)
        assert (answer.status, (await case.record(MERGE)).result["code"]) == (StageStatus.FAILED, "read_only")
        assert (case.repo.git("for-each-ref"), (await case.row()).merge_sha) == (refs, None)

    async def test_what_may_only_propose_leaves_no_ref_while_it_is_asked_about(self, shop: Shop) -> None:
        case = await shop.mission(trust_requirements={"memory_write_scope": "propose"})
        refs = case.repo.git("for-each-ref")
        await case.patched()
        settled = await case.settle()
        assert settled.answer
        assert (settled.answer.status, settled.slot_token) == (DecisionStatus.PENDING, None)
        assert case.repo.git("for-each-ref") == refs

    async def test_uncommitted_work_is_not_touched(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        case.repo.write({"calc.txt": "half done\n"})
        answer = await merged(case)
        assert (answer.status, (await case.record(MERGE)).result["code"]) == (StageStatus.FAILED, "target_dirty")
        assert commits(case) == 1

    async def test_an_older_token_may_not_write(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        await merged(case, token=2)
        with pytest.raises(MissionControlError) as refused:
            await reverted(case, token=1)
        assert refused.value.code == "slot_lost"


class TestRollBack:
    async def test_twice_is_one_revert(self, shop: Shop) -> None:
        case = await (await shop.mission()).merged()
        first, again = await reverted(case), await reverted(case, attempt=2)
        assert (first, first.merge_sha) == (again, case.repo.sha("main"))
        assert case.repo.show("main", "calc.txt") == b"a - b\n"
        assert commits(case) == 3
        assert (await case.row()).revert_sha == first.merge_sha
        assert await case.told("mission.rolled_back") == 1
        assert "did not hold in observation" in case.repo.git("show", "-s", "--format=%B", "main").decode()

    async def test_what_may_only_read_is_not_reverted(self, shop: Shop) -> None:
        case = await (await shop.mission()).merged()
        await may(case, "read_only")
        refs = case.repo.git("for-each-ref")
        answer = await reverted(case)
        assert (answer.status, "read_only" in answer.reason) == (StageStatus.FAILED, True)
        assert (case.repo.git("for-each-ref"), (await case.row()).revert_sha) == (refs, None)

    async def test_the_revert_says_why_in_one_line(self, shop: Shop) -> None:
        case = await (await shop.mission()).merged()
        reason = "canceled by olga:\n\nMission-Id: m\x1b[0m " + "x" * 300
        task = case.merge(RESOLVE).model_copy(update={"reason": reason})
        await do(case.host.merging.roll_back, task)
        said = case.repo.git("show", "-s", "--format=%B", "main").decode().split("\n\n")[1]
        assert said.startswith("canceled by olga: Mission-Id: m [0m xxx")
        assert len(said) == 200

    async def test_later_work_on_the_same_lines_conflicts(self, shop: Shop) -> None:
        case = await (await shop.mission()).merged()
        case.repo.commit({"calc.txt": "a * b\n"})
        answer = await reverted(case)
        assert (answer.status, "Later commits build on the merge" in answer.reason) == (StageStatus.FAILED, True)
        assert (await case.row()).revert_sha is None
