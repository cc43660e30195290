"""Stage 11's question about a merge that cannot be taken back by itself: put once per try, and not to who wants it."""

from typing import Any

from models.contracts.pipeline import DecisionRef, GovernanceAnswer
from models.domain.events import EventType, Subject
from models.domain.stages import StageName, StageStatus
from models.domain.states import DecisionStatus
from models.schemas.metrics import ObservationCreate
from models.store import events, metrics
from models.store.events import Actor
from models.tables.missions import Decision
from tests.fixtures.policies import NO_FORCE, SOURCE, in_force
from tests.fixtures.stage_hosts import Case, Shop, do

RESOLVE = StageName.RESOLVE


async def asked_about_rollback(case: Case, repeat: int = 1, **info: Any) -> GovernanceAnswer:
    ref = DecisionRef(
        ref=case.ref(RESOLVE), decision_id="", detail="a file changed since", repeat=repeat, started_by="sam"
    )
    return await do(case.host.governance.ask_about_rollback, ref, **info)


async def test_a_rollback_that_conflicts_asks_once_per_try(shop: Shop) -> None:
    case = await (await shop.mission()).merged()
    for repeat, attempt in ((1, 1), (1, 2), (2, 1)):
        assert (await asked_about_rollback(case, repeat, attempt=attempt)).status is DecisionStatus.PENDING
    assert len(await case.rows(Decision)) == 2
    assert (await case.record(RESOLVE)).status == StageStatus.WAITING_DECISION


async def test_who_asked_for_it_never_forces_a_rollback_in_production(shop: Shop) -> None:
    case = await (await shop.mission(registered={"env": "prod"})).merged()
    await asked_about_rollback(case)
    [decision] = await case.rows(Decision)
    assert (decision.terms["people"], decision.terms["four_eyes"]) == (2, "required")
    assert decision.terms["requesters"] == ["olga", "sam"]


async def test_who_told_of_what_went_wrong_asks_for_the_rollback(shop: Shop) -> None:
    criteria = {"metric_targets": [{"metric_id": "calc.p95", "comparator": "<", "target": 10}]}
    case = await (await shop.mission(acceptance_criteria=criteria)).merged()
    async with case.db.workspace(case.workspace_id) as session:
        bad = [ObservationCreate.model_validate({"metric_id": "calc.p95", "value": 99})]
        await metrics.observe(session, case.workspace_id, bad, Actor("nina", "request-4"))
        about = Subject(kind="subsystem", id="calc")
        await events.append(session, case.workspace_id, EventType.SUBSYSTEM_ERROR, about, Actor("max", "request-5"), {})
    seen = await do(case.host.observing.look, await case.look(1, ("calc.p95",)))
    assert "calc.p95 was outside" in seen.anomaly
    await asked_about_rollback(case)
    [decision] = await case.rows(Decision)
    assert decision.terms["requesters"] == ["max", "nina", "olga", "sam"]


async def test_a_rule_that_denies_makes_a_forced_rollback_no_easier(shop: Shop) -> None:
    case = await (await shop.mission(registered={"env": "prod"})).merged()
    await asked_about_rollback(case)
    await in_force(case.db, case.workspace_id, SOURCE.replace("rules:\n", NO_FORCE, 1))
    await asked_about_rollback(case, repeat=2)
    first, denied = sorted(await case.rows(Decision), key=lambda row: row.decision_id)
    assert denied.reasons[0] == "never here"
    assert denied.terms == first.terms
