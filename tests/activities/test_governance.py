"""Stage 8 on real records: a question is put once, and its answer ends the stage once."""

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlmodel import col

from models.contracts.pipeline import DecisionRef, GovernanceAnswer
from models.domain.policy_names import FACTS
from models.domain.principals import Role
from models.domain.stages import StageName, StageStatus
from models.domain.states import DecisionStatus
from models.store import answers, candidates, decisions, governance, running
from models.store.events import Actor
from models.tables.agents import AgentRow
from models.tables.missions import Candidate, Decision, Mission
from models.tables.policies import VerdictRow
from tests.fixtures.access import make_key
from tests.fixtures.api import add_agents
from tests.fixtures.budgets import MONTH, cap, clock_moved
from tests.fixtures.policies import NO_FORCE, SOURCE, in_force
from tests.fixtures.product import FIX
from tests.fixtures.runs import human
from tests.fixtures.stage_hosts import Case, Shop, do

NO_FRIDAYS = """rules:
  - rule: freeze
    because: nobody merges on fridays
    when: {action: mission.merge}
    deny: true
"""
THREE = """rules:
  - rule: three-people
    because: it takes three
    when: {action: mission.merge}
    ask: {people: 3}
"""
PASS = Actor("reconciler", "pass-1")
GOVERNANCE, RESOLVE = StageName.GOVERNANCE, StageName.RESOLVE


async def asked(case: Case, approved: GovernanceAnswer | None = None, round_: int = 0, **info: Any) -> GovernanceAnswer:
    answer = (await case.settle(approved.binding if approved else None, round_, **info)).answer
    assert answer is not None
    return answer


async def settled(case: Case, answer: GovernanceAnswer, **info: int) -> GovernanceAnswer:
    ref = DecisionRef(ref=case.ref(GOVERNANCE), decision_id=answer.decision_id)
    return await do(case.host.governance.settle, ref, **info)


async def resolved(case: Case, answer: GovernanceAnswer, status: DecisionStatus, by: str = "anna") -> None:
    async with case.db.workspace(case.workspace_id) as session:
        await answers.give(session, human(case.workspace_id, by), answer.decision_id, status, "read it")


async def belongs_to(case: Case, level: str, **given: str) -> None:
    """Let the mission be filed by, or assigned to, an agent of this level."""
    async with case.db.workspace(case.workspace_id) as session:
        await add_agents(session, case.workspace_id, "bot")
        changed = update(AgentRow).where(col(AgentRow.workspace_id) == case.workspace_id).values(level=level)
        await session.execute(changed)
        await session.execute(update(Mission).where(col(Mission.mission_id) == case.mission_id).values(**given))


class TestAsk:
    async def test_where_nobody_must_be_asked_the_policy_answers(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        answer = await asked(case)
        assert (answer.status, answer.reason) == (DecisionStatus.APPROVED, "approved by policy")
        assert await asked(case, attempt=2) == answer
        assert (await case.record(GOVERNANCE)).status == StageStatus.PASSED

    async def test_where_a_rule_denies_the_reason_says_its_sentence(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        await in_force(case.db, case.workspace_id, NO_FRIDAYS)
        answer = await asked(case)
        said = "denied by policy: mission.merge is in no class of the policy, and so YELLOW; nobody merges on fridays"
        assert (answer.status, answer.reason) == (DecisionStatus.DENIED, said)
        record = await case.record(GOVERNANCE)
        assert (record.status, record.reason) == (StageStatus.FAILED, said)

    async def test_what_very_many_rules_deny_is_shortened(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        rules = "".join(f"  - {{rule: r{n}, because: {'x' * 300}, deny: true}}\n" for n in range(100))
        await in_force(case.db, case.workspace_id, f"rules:\n{rules}")
        assert len((await asked(case)).reason) <= len("denied by policy: ") + 1_000

    async def test_what_costs_more_than_its_caps_leave_asks_an_admin(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        other = await (await shop.another(case)).patched()
        await cap(shop.db, shop.workspace_id, MONTH, "1")
        assert (await asked(case)).status is DecisionStatus.APPROVED
        await cap(shop.db, shop.workspace_id, MONTH, "0")
        answer = await asked(other)
        assert answer.status is DecisionStatus.PENDING
        [decision] = await other.rows(Decision)
        assert decision.reasons == ["it would cost more than its caps leave"]
        assert decision.terms["role"] == "admin"
        judged = [row.input["context"] for row in await case.rows(VerdictRow) + await other.rows(VerdictRow)]
        left = [Decimal(context["usd_left"]) for context in judged]
        assert left == [1 - 600 * Decimal("0.00002"), 0], "what it reserved itself is left for it"
        assert all(0 < Decimal(context["usd"]) < 1 for context in judged)

    @pytest.mark.parametrize("name", ["check.sh", "pytest.toml", "Makefile", "json.py"])
    async def test_a_patch_that_changes_its_judges_is_asked_about_by_their_names(self, shop: Shop, name: str) -> None:
        case = await (await shop.mission(patch={**FIX, name: "true\n"})).patched()
        answer = await asked(case)
        async with case.db.workspace(case.workspace_id) as session:
            decision = await decisions.require(session, case.workspace_id, answer.decision_id)
        assert answer.status is DecisionStatus.PENDING
        assert [reason for reason in decision.reasons if name in reason] == decision.reasons

    async def test_a_late_try_takes_no_slot_for_what_has_merged(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        assert ((await case.settle()).slot_token, (await case.settle(attempt=2)).slot_token) == (1, 1)
        async with case.db.workspace(case.workspace_id) as session:
            await running.record_merge(session, case.ref(StageName.MERGE), "e" * 40, 1)
        assert (await case.settle(attempt=3)).slot_token is None

    async def test_asking_twice_puts_one_question(self, shop: Shop) -> None:
        case = await (await shop.mission(registered={"protected": True})).patched()
        first, again = await asked(case), await asked(case, attempt=2)
        assert first == again
        [decision] = await case.rows(Decision)
        assert decision.reasons == ["the branch is protected"]
        assert decision.question["diff"] == (await case.record(StageName.BRANCH_AND_PATCH)).result["diff"]
        assert (await case.record(GOVERNANCE)).status == StageStatus.WAITING_DECISION
        assert await case.told("decision.requested") == 1

    async def test_a_test_file_that_goes_asks(self, shop: Shop) -> None:
        case = await (await shop.mission({"tests/old.txt": "a test\n"}, {"tests/old.txt": None})).patched()
        await asked(case)
        [decision] = await case.rows(Decision)
        assert decision.reasons == ["the patch changes existing tests: tests/old.txt"]

    @pytest.mark.parametrize(
        ("trust", "source", "reason"),
        [
            ({"memory_write_scope": "propose"}, SOURCE, "memory_write_scope is propose"),
            ({"memory_write_scope": "propose"}, NO_FORCE, "memory_write_scope is propose"),
            ({"requires_governance_approval": True}, NO_FORCE, "the mission requires governance approval"),
        ],
    )
    async def test_what_its_mission_wants_decided_is_asked_whatever_the_policy_says(
        self, shop: Shop, trust: dict[str, Any], source: str, reason: str
    ) -> None:
        case = await (await shop.mission(trust_requirements=trust)).patched()
        await in_force(case.db, case.workspace_id, source)
        assert ((await asked(case)).status, await case.told("decision.requested")) == (DecisionStatus.PENDING, 1)
        assert (await case.settle(attempt=2)).slot_token is None, "nothing merges meanwhile"
        [decision] = await case.rows(Decision)
        assert reason in decision.reasons[-1]

    @pytest.mark.parametrize("source", ["", NO_FORCE])
    async def test_a_branch_that_no_operator_chose_is_asked_about_as_protected(self, shop: Shop, source: str) -> None:
        case = await (await shop.mission(registered={"target_branch": "develop"}, workspace_branch="main")).patched()
        if source:
            await in_force(case.db, case.workspace_id, source)
        assert (await asked(case)).status is DecisionStatus.PENDING
        [decision] = await case.rows(Decision)
        assert decision.reasons[-1] == "whoever filed it chose the branch 'main', not the registered one"
        assert ("the branch is protected" in decision.reasons) == (not source)
        facts = decision.question["facts"]
        assert (facts["protected"], facts["chosen_branch"]) == (True, "main")

    async def test_what_may_persist_asks_nobody(self, shop: Shop) -> None:
        case = await (await shop.mission(trust_requirements={"memory_write_scope": "persist"})).patched()
        assert (await asked(case)).status is DecisionStatus.APPROVED

    async def test_the_verdict_keeps_its_input_without_what_an_override_says(self, shop: Shop) -> None:
        case = await (await shop.mission(overrides={"test": "TOKEN=hush sh check.sh"})).patched()
        answer = await asked(case)
        [verdict] = await case.rows(VerdictRow)
        assert (verdict.verdict_id, verdict.policy_version, verdict.outcome) == (answer.decision_id, 1, "ask")
        facts = verdict.input["context"]["facts"]
        assert facts["overrides"] == ["test"]
        assert facts.keys() <= FACTS, "a policy may name each of them"
        assert verdict.input["context"]["paths"] == ["calc.txt"]
        assert "hush" not in str(verdict.input)

    async def test_who_filed_started_and_wrote_it_may_not_approve_it(self, shop: Shop) -> None:
        case = await (await shop.mission(registered={"protected": True})).patched()
        await asked(case, started_by="sam")
        [decision] = await case.rows(Decision)
        assert decision.terms["requesters"] == ["olga", "sam"]

    async def test_so_may_nobody_who_filed_what_it_files_again(self, shop: Shop) -> None:
        case = await (await shop.mission(registered={"protected": True})).patched()
        first, second = await shop.mission(), await shop.mission()
        async with case.db.workspace(case.workspace_id) as session:
            await add_agents(session, case.workspace_id, "bot")
            for each, values in (
                (first, {"created_by": "eve"}),
                (second, {"created_by": "bot", "retry_of": first.mission_id}),
                (case, {"retry_of": second.mission_id}),
            ):
                one = update(Mission).where(col(Mission.mission_id) == each.mission_id)
                await session.execute(one.values(**values))
        await asked(case)
        [decision], [verdict] = await case.rows(Decision), await case.rows(VerdictRow)
        assert decision.terms["requesters"] == ["bot", "eve", "olga"]
        assert verdict.input["principal"]["name"] == "bot", "nor is it judged by another one's trust"

    async def test_who_brought_the_change_in_another_name_may_not_approve_it(self, shop: Shop) -> None:
        case = await shop.mission(registered={"protected": True})
        async with case.db.workspace(case.workspace_id) as session:
            [candidate] = await candidates.of_mission(session, case.workspace_id, case.mission_id)
            candidate.author, candidate.added_by = "ghost", "otto"
        await asked(await case.patched())
        [decision] = await case.rows(Decision)
        assert (decision.terms["requesters"], decision.terms["named"]) == (["ghost", "olga", "otto"], ["ghost"])

    async def test_an_approval_stands_for_the_same_binding(self, shop: Shop) -> None:
        case = await (await shop.mission(registered={"protected": True})).patched()
        await resolved(case, await asked(case), DecisionStatus.APPROVED)
        approved = await settled(case, await asked(case))
        assert approved.binding is not None
        assert approved.binding.rules == ("protected-branch",)
        again = await asked(case, approved, round_=1)
        assert again.status is DecisionStatus.APPROVED
        assert again.reason == (
            f"approved by anna in {approved.decision_id}, which stands: same files, configuration and policy"
        )
        later = next(row for row in await case.rows(Decision) if row.round == 1)
        assert later.question["rests_on"] == {
            "decision_id": approved.decision_id,
            "resolved_by": "anna",
            "answers": [{"by": "anna", "decision": "approved", "explanation": "read it"}],
        }
        assert (later.resolved_by, later.reasons) == ("policy", ["the branch is protected", again.reason])

    async def test_where_it_does_not_stand_people_are_told_what_differs(self, shop: Shop) -> None:
        case = await (await shop.mission(registered={"protected": True})).patched()
        await resolved(case, await asked(case), DecisionStatus.APPROVED)
        approved = await settled(case, await asked(case))
        assert approved.binding is not None
        again = await asked(case, approved, round_=1, patch_id="other")
        assert again.status is DecisionStatus.PENDING
        later = next(row for row in await case.rows(Decision) if row.round == 1)
        assert later.question["asked_again"] == (
            f"approved by anna in {approved.decision_id}, which stands no more; "
            "what differs by now: the files that it touches"
        )

    @pytest.mark.parametrize("given", [{"created_by": "bot"}, {"assigned_to": "bot"}])
    async def test_a_mission_of_an_agent_is_judged_by_its_level(self, shop: Shop, given: dict[str, str]) -> None:
        case = await (await shop.mission()).patched()
        await belongs_to(case, level="intern", **given)
        assert (await asked(case)).status is DecisionStatus.PENDING
        [decision], [verdict] = await case.rows(Decision), await case.rows(VerdictRow)
        assert decision.reasons == ["an intern asks before whatever may do harm"]
        assert verdict.input["principal"] == {"name": "bot", "kind": "agent", "role": None, "level": "intern"}

    async def test_who_is_assigned_it_does_not_answer(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        await belongs_to(case, level="intern", assigned_to="bot")
        assert (await asked(case)).status is DecisionStatus.PENDING
        [decision] = await case.rows(Decision)
        assert "bot" in decision.terms["requesters"]

    @pytest.mark.parametrize("given", [{"author": "bot"}, {"added_by": "bot"}])
    async def test_so_is_a_patch_of_an_agent_whoever_has_the_mission_now(
        self, shop: Shop, given: dict[str, str]
    ) -> None:
        case = await (await shop.mission()).patched()
        await belongs_to(case, level="intern", assigned_to="boss")
        async with case.db.workspace(case.workspace_id) as session:
            await add_agents(session, case.workspace_id, "boss")
            lead = update(AgentRow).where(col(AgentRow.workspace_id) == case.workspace_id, col(AgentRow.name) == "boss")
            await session.execute(lead.values(level="lead"))
            mine = update(Candidate).where(col(Candidate.mission_id) == case.mission_id)
            await session.execute(mine.values(**given))
        assert (await asked(case)).status is DecisionStatus.PENDING
        [verdict] = await case.rows(VerdictRow)
        assert verdict.input["principal"]["name"] == "bot"

    @pytest.mark.parametrize("status", ["quarantined", "stopped"])
    async def test_one_that_was_set_apart_is_trusted_least(self, shop: Shop, status: str) -> None:
        case = await (await shop.mission()).patched()
        await belongs_to(case, level="lead", created_by="bot")
        async with case.db.workspace(case.workspace_id) as session:
            held = update(AgentRow).where(col(AgentRow.workspace_id) == case.workspace_id).values(status=status)
            await session.execute(held)
        assert (await asked(case)).status is DecisionStatus.PENDING

    async def test_a_trusted_agent_s_merge_needs_nobody(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        await belongs_to(case, level="lead", created_by="bot")
        assert (await asked(case)).status is DecisionStatus.APPROVED


class TestSettle:
    async def test_an_answer_ends_the_stage_once(self, shop: Shop) -> None:
        case = await (await shop.mission(registered={"protected": True})).patched()
        question = await asked(case)
        assert (await settled(case, question)).status is DecisionStatus.PENDING
        await resolved(case, question, DecisionStatus.DENIED)
        first, again = await settled(case, question), await settled(case, question, attempt=2)
        assert (first, first.reason) == (again, "denied by anna: read it")
        assert (await case.record(GOVERNANCE)).status == StageStatus.FAILED
        [decision] = await case.rows(Decision)
        assert decision.acknowledged_at is not None
        assert await case.told("stage.failed") == 1

    async def test_a_question_whose_time_is_over_expires(self, shop: Shop) -> None:
        case = await shop.mission(registered={"protected": True}, approval_timeout_minutes=0.0001)
        question = await asked(await case.patched())
        answers = [await settled(case, question, attempt=attempt) for attempt in (1, 2)]
        assert {answer.status for answer in answers} == {DecisionStatus.EXPIRED}

    @pytest.mark.parametrize(
        ("by", "said"),
        [
            ((), "nobody answered"),
            (("anna",), "1 of 3 approved (anna: read it)"),
            (("anna", "bert"), "2 of 3 approved (anna: read it; bert: read it)"),
        ],
    )
    async def test_who_approved_what_expires_is_named_and_counted(
        self, shop: Shop, by: tuple[str, ...], said: str
    ) -> None:
        case = await (await shop.mission(approval_timeout_minutes=30)).patched()
        await in_force(case.db, case.workspace_id, THREE)
        question = await asked(case)
        for name in by:
            await resolved(case, question, DecisionStatus.APPROVED, name)
        async with clock_moved(shop.owner_url, "1 hour"):
            answer = await settled(case, question)
        record = await case.record(GOVERNANCE)
        reason = f"{said} within 30 min (the mission's `approval_timeout_minutes`)"
        assert (answer.status, answer.reason, record.reason) == (DecisionStatus.EXPIRED, reason, reason)
        assert [one["by"] for one in record.result.get("answers", ())] == list(by)

    async def test_whose_approval_counts_no_more_is_marked_and_not_counted(self, shop: Shop) -> None:
        case = await (await shop.mission(approval_timeout_minutes=30)).patched()
        await in_force(case.db, case.workspace_id, THREE)
        question = await asked(case)
        async with case.db.system() as session:
            await make_key(session, case.workspace_id, "anna", role=Role.OPERATOR)
        for name in ("anna", "bert"):
            await resolved(case, question, DecisionStatus.APPROVED, name)
        async with case.db.system() as session:
            gone = "UPDATE principal SET deactivated_at = now() WHERE workspace_id = :w AND name = 'anna'"
            await session.execute(text(gone), {"w": case.workspace_id})
        async with clock_moved(shop.owner_url, "1 hour"):
            answer = await settled(case, question)
        said = "1 of 3 approved (anna (counts no more): read it; bert: read it) within 30 min"
        assert answer.reason.startswith(said)
        assert [one.get("counts") for one in (await case.record(GOVERNANCE)).result["answers"]] == [False, None]

    @pytest.mark.parametrize(("by", "said"), [((), ""), (("anna",), ", 1 of 3 approved (anna: read it)")])
    async def test_who_approved_what_is_withdrawn_is_named_and_counted(
        self, shop: Shop, by: tuple[str, ...], said: str
    ) -> None:
        case = await (await shop.mission()).patched()
        await in_force(case.db, case.workspace_id, THREE)
        question = await asked(case)
        for name in by:
            await resolved(case, question, DecisionStatus.APPROVED, name)
        async with case.db.workspace(case.workspace_id) as session:
            await governance.withdraw(session, case.workspace_id, question.decision_id, Actor("worker", "task-1"))
        assert (await settled(case, question)).reason == f"canceled by worker{said}"

    async def test_one_of_several_who_denies_ends_it_and_all_are_named(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        await in_force(case.db, case.workspace_id, THREE)
        question = await asked(case)
        await resolved(case, question, DecisionStatus.APPROVED)
        await resolved(case, question, DecisionStatus.DENIED, "bert")
        said = "denied by bert: read it (after anna: read it)"
        assert ((await settled(case, question)).reason, (await case.record(GOVERNANCE)).reason) == (said, said)

    async def test_where_the_mission_sets_no_time_it_never_expires(self, shop: Shop) -> None:
        case = await (await shop.mission(registered={"protected": True})).patched()
        question = await asked(case)
        assert question.expires_at is None
        async with clock_moved(shop.owner_url, "1000 days"):
            async with shop.db.system() as session:
                assert await governance.tell_half_time(session, PASS, 100) == 0
                assert await governance.expire_overdue(session, PASS, 100) == 0
            assert (await settled(case, question)).status is DecisionStatus.PENDING
            await resolved(case, question, DecisionStatus.APPROVED)
        assert (await settled(case, question)).status is DecisionStatus.APPROVED
