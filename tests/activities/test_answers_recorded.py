"""What signed records tell of several people's answers."""

from sqlalchemy import text

from models.contracts.pipeline import Conclusion
from models.domain.principals import Role
from models.domain.stages import StageName, StageStatus
from models.domain.states import DecisionStatus, MissionOutcome
from tests.activities.test_governance import THREE, asked, resolved, settled
from tests.activities.test_rollback_questions import asked_about_rollback
from tests.fixtures.access import make_key
from tests.fixtures.policies import in_force
from tests.fixtures.stage_hosts import Case, Shop, do

YES, NO = DecisionStatus.APPROVED, DecisionStatus.DENIED
GOVERNANCE = StageName.GOVERNANCE
REMOVED = "UPDATE principal SET deactivated_at = now() WHERE workspace_id = :w AND name = 'anna'"


async def canceled(case: Case) -> None:
    end = Conclusion(ref=case.ref(StageName.RESOLVE), outcome=MissionOutcome.CANCELED, reason="canceled by olga")
    await do(case.host.records.conclude, end)


async def test_who_approved_and_denied_is_named_with_both(shop: Shop) -> None:
    case = await (await shop.mission()).patched()
    await in_force(case.db, case.workspace_id, THREE)
    question = await asked(case)
    for status in (YES, NO):
        await resolved(case, question, status)
    assert (await settled(case, question)).reason == "denied by anna: read it (after anna (counts no more): read it)"
    told = (await case.record(GOVERNANCE)).result["answers"]
    assert [(one["decision"], one.get("counts")) for one in told] == [("approved", False), ("denied", None)]


async def test_who_left_after_it_closed_counted(shop: Shop) -> None:
    case = await (await shop.mission()).patched()
    await in_force(case.db, case.workspace_id, THREE)
    question = await asked(case)
    async with case.db.system() as session:
        await make_key(session, case.workspace_id, "anna", role=Role.OPERATOR)
    await resolved(case, question, YES)
    await resolved(case, question, NO, "bert")
    async with case.db.system() as session:
        await session.execute(text(REMOVED), {"w": case.workspace_id})
    assert (await settled(case, question)).reason == "denied by bert: read it (after anna: read it)"


async def test_a_mission_that_ends_meanwhile_names_who_approved(shop: Shop) -> None:
    case = await (await shop.mission()).patched()
    await in_force(case.db, case.workspace_id, THREE)
    question = await asked(case)
    await resolved(case, question, YES)
    await canceled(case)
    record = await case.record(GOVERNANCE)
    assert (record.status, record.reason) == (StageStatus.FAILED, "canceled by olga")
    assert record.result["decision_id"] == question.decision_id
    assert record.result["answers"] == [{"by": "anna", "decision": "approved", "explanation": "read it"}]
    assert record.inputs == {"decision_id": question.decision_id}


async def test_who_answered_about_a_rollback_is_named_by_the_last_stage(shop: Shop) -> None:
    case = await (await shop.mission(registered={"env": "prod"})).merged()
    question = await asked_about_rollback(case)
    await resolved(case, question, YES)
    await canceled(case)
    told = (await case.record(StageName.RESOLVE)).result
    assert (told["decision_id"], [one["by"] for one in told["answers"]]) == (question.decision_id, ["anna"])
