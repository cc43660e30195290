"""The human's side of decisions: finding them and answering them, once."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, false, func, or_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.contracts.pipeline import DecisionRef, StageRef
from models.domain.decisions import Terms
from models.domain.errors import Conflict, MissionControlError, NotFound
from models.domain.events import EventType
from models.domain.principals import Principal
from models.domain.stages import StageName
from models.domain.states import DECISION_TRANSITIONS, DecisionStatus, sources
from models.schemas.pagination import PageRequest
from models.store import keys, lists, pagination, questions
from models.store.events import Actor
from models.store.pagination import Rows
from models.tables.missions import Decision, Mission
from models.tables.policies import DecisionAnswer

SORTS: Mapping[str, tuple[Any, ...]] = {
    "requested_at": (col(Decision.requested_at), col(Decision.decision_id)),
    "risk": (col(Decision.risk_rank), col(Decision.requested_at), col(Decision.decision_id)),
}
"""Orders of the list, each served by an index."""


async def list_page(
    session: AsyncSession, workspace_id: str, filters: Mapping[str, object], page: PageRequest, agent: str | None = None
) -> Rows[Decision]:
    """Read one page of questions; only what concerns `agent`, where one is given."""
    statement = lists.matching(Decision, workspace_id, filters).where(*_concerning(workspace_id, agent))
    return await pagination.fetch(session, statement, SORTS[page.sort.field], page)


async def require(session: AsyncSession, workspace_id: str, decision_id: str, agent: str | None = None) -> Decision:
    """Read a decision that must be there, and concern `agent`, where one is given."""
    statement = lists.matching(Decision, workspace_id, {"decision_id": decision_id})
    decision = (await session.scalars(statement.where(*_concerning(workspace_id, agent)))).one_or_none()
    if decision is None:
        raise NotFound("decision_not_found", f"there is no decision {decision_id!r}")
    return decision


async def answers(session: AsyncSession, decision: Decision) -> list[DecisionAnswer]:
    """Read what people have answered by now, the first first."""
    of_it = (
        DecisionAnswer.workspace_id == decision.workspace_id,
        DecisionAnswer.decision_id == decision.decision_id,
    )
    return list(await session.scalars(select(DecisionAnswer).where(*of_it).order_by(col(DecisionAnswer.at))))


async def counts(
    session: AsyncSession, workspace_id: str, status: DecisionStatus, agent: str | None = None
) -> list[tuple[str, str, int]]:
    """Count questions in a state by kind and risk; only what concerns `agent`, where one is given."""
    statement = (
        select(Decision.kind, Decision.risk, func.count())
        .where(Decision.workspace_id == workspace_id, Decision.status == status.value)
        .where(*_concerning(workspace_id, agent))
        .group_by(Decision.kind, Decision.risk)
    )
    return [(kind, risk, number) for kind, risk, number in await session.execute(statement)]


async def resolve(
    session: AsyncSession,
    by: Principal,
    decision_id: str,
    answer: DecisionStatus,
    explanation: str,
    correlation_id: str = "",
) -> Decision:
    """Answer a pending decision, one after another: of two people at once one is first.

    Where several must approve, it stays pending until the last of them has; one who denies is enough.

    Raises:
        NotFound: no such decision.
        Conflict: `already_resolved` by whom, `already_approved` by the caller, `decision_expired` by the database's
            clock, or `decision_canceled`.
        NotPermitted: `own_decision`, nobody answers what they asked themselves; `not_permitted`, it takes others.
    """
    decision = await _lock(session, by.workspace_id, decision_id)
    terms = Terms.model_validate(decision.terms)
    given = {each.principal for each in await answers(session, decision)} if terms.people > 1 else set()
    own = by.name in terms.asking
    others = not own or await keys.other_resolvers(session, by.workspace_id, terms.role, terms.asking)
    if refusal := terms.refusal(by, given, others=others):
        raise refusal
    await _keep_answer(session, decision, by, answer, explanation)
    actor = Actor(by.known_as, correlation_id)
    if answer is DecisionStatus.APPROVED and len(given) + 1 < terms.people:
        data = {"approvals": len(given) + 1, "of": terms.people, "explanation": explanation}
        await questions.tell(session, decision, EventType.DECISION_APPROVAL_GIVEN, actor, data)
        return decision
    return await _close(session, decision, answer, explanation, actor, single_operator=own)


def reference(decision: Decision) -> DecisionRef:
    """Name an answered decision as its mission's workflow knows it."""
    ref = StageRef(
        workspace_id=decision.workspace_id,
        mission_id=decision.mission_id or "",
        stage=StageName.GOVERNANCE,
        round=decision.round,
        candidate=decision.candidate,
    )
    return DecisionRef(ref=ref, decision_id=decision.decision_id)


def _concerning(workspace_id: str, agent: str | None) -> list[ColumnElement[bool]]:
    """Pick what an agent asked or may answer itself, and what is asked about missions that it filed or is assigned."""
    if agent is None:
        return []
    own = select(Mission.mission_id).where(
        Mission.workspace_id == workspace_id,
        or_(col(Mission.created_by) == agent, col(Mission.assigned_to) == agent),
    )
    may_answer = col(Decision.terms)["agents"].contains([agent])
    return [or_(col(Decision.requested_by) == agent, col(Decision.mission_id).in_(own), may_answer)]


async def _lock(session: AsyncSession, workspace_id: str, decision_id: str) -> Decision:
    """Take a pending decision, so that nobody else answers, expires or withdraws it meanwhile."""
    is_over = func.coalesce(col(Decision.expires_at) <= func.mc_now(), false())
    statement = select(Decision, is_over).where(
        Decision.workspace_id == workspace_id, Decision.decision_id == decision_id
    )
    found = (await session.execute(statement.with_for_update())).one_or_none()
    if found is None:
        raise NotFound("decision_not_found", f"there is no decision {decision_id!r}")
    decision: Decision = found[0]
    if decision.status != DecisionStatus.PENDING.value or found[1]:
        raise _refusal(decision)
    return decision


async def _keep_answer(
    session: AsyncSession, decision: Decision, by: Principal, answer: DecisionStatus, explanation: str
) -> None:
    row = {"workspace_id": decision.workspace_id, "decision_id": decision.decision_id, "principal": by.known_as}
    await session.execute(insert(DecisionAnswer).values(**row, answer=answer.value, explanation=explanation))


async def _close(
    session: AsyncSession,
    decision: Decision,
    answer: DecisionStatus,
    explanation: str,
    actor: Actor,
    *,
    single_operator: bool,
) -> Decision:
    statement = (
        update(Decision)
        .where(
            col(Decision.workspace_id) == decision.workspace_id,
            col(Decision.decision_id) == decision.decision_id,
            col(Decision.status).in_(sources(DECISION_TRANSITIONS, answer)),
        )
        .values(
            status=answer.value,
            resolved_by=actor.name,
            resolved_at=func.mc_now(),
            explanation=explanation,
            single_operator=single_operator,
        )
        .returning(Decision)
    )
    closed = (await session.scalars(statement, execution_options={"populate_existing": True})).one()
    await questions.tell(session, closed, questions.EVENTS[answer], actor)
    return closed


def _refusal(decision: Decision) -> MissionControlError:
    """Say why there is nothing to answer."""
    status = DecisionStatus(decision.status)
    if status in (DecisionStatus.APPROVED, DecisionStatus.DENIED):
        return Conflict(
            "already_resolved",
            f"{decision.resolved_by} answered first: {status.value}",
            resolved_by=decision.resolved_by,
            resolved_at=decision.resolved_at and decision.resolved_at.isoformat(),
            status=status.value,
        )
    if status is DecisionStatus.CANCELED:
        return Conflict("decision_canceled", "what it was about is gone; there is nothing left to decide")
    return Conflict("decision_expired", "its time is over; retry the mission to be asked again")
