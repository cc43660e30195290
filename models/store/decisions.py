"""The human's side of decisions: finding them and answering them, once."""

from collections.abc import Mapping

from sqlalchemy import func, or_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from models.domain.errors import Conflict, MissionControlError, NotFound, NotPermitted
from models.domain.events import EventType, Subject
from models.domain.states import DecisionStatus
from models.schemas.pagination import PageRequest
from models.store import events, lists
from models.store.events import Actor
from models.store.pagination import Rows
from models.tables.missions import Decision


async def list_page(
    session: AsyncSession, workspace_id: str, filters: Mapping[str, object], page: PageRequest
) -> Rows[Decision]:
    """Read one page of questions."""
    keys = (col(Decision.requested_at), col(Decision.decision_id))
    return await lists.fetch(session, Decision, workspace_id, filters, keys, page)


async def require(session: AsyncSession, workspace_id: str, decision_id: str) -> Decision:
    """Read a decision that must be there."""
    decision = await session.get(Decision, (workspace_id, decision_id))
    if decision is None:
        raise not_found(decision_id)
    return decision


def not_found(decision_id: str) -> NotFound:
    """What is said of a decision that is not there, or not the caller's to see."""
    return NotFound("decision_not_found", f"there is no decision {decision_id!r}")


async def resolve(
    session: AsyncSession, workspace_id: str, decision_id: str, answer: DecisionStatus, explanation: str, actor: Actor
) -> Decision:
    """Answer a pending decision in one compare-and-set, so that of two people at once one is first.

    Raises:
        NotFound: no such decision.
        Conflict: `already_resolved` by whom, `decision_expired` by the database's clock, or `decision_canceled`.
        NotPermitted: nobody answers what they asked themselves (V-23).
    """
    statement = (
        update(Decision)
        .where(
            col(Decision.workspace_id) == workspace_id,
            col(Decision.decision_id) == decision_id,
            col(Decision.status) == DecisionStatus.PENDING.value,
            or_(col(Decision.expires_at).is_(None), col(Decision.expires_at) > func.mc_now()),
            col(Decision.requested_by) != actor.name,
        )
        .values(status=answer.value, resolved_by=actor.name, resolved_at=func.mc_now(), explanation=explanation)
        .returning(Decision)
    )
    decision = (await session.scalars(statement)).one_or_none()
    if decision is None:
        raise _refusal(await require(session, workspace_id, decision_id), actor)
    await _tell(session, decision, actor)
    return decision


def _refusal(decision: Decision, actor: Actor) -> MissionControlError:
    """Say why the compare-and-set found nothing to answer."""
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
    if status is DecisionStatus.PENDING and decision.requested_by == actor.name:
        return NotPermitted("own_decision", "you asked for this decision; somebody else must answer it")
    return Conflict("decision_expired", "its time is over; retry the mission to be asked again")


async def _tell(session: AsyncSession, decision: Decision, actor: Actor) -> None:
    approved = decision.status == DecisionStatus.APPROVED.value
    kind = EventType.DECISION_APPROVED if approved else EventType.DECISION_DENIED
    data = {"mission_id": decision.mission_id, "kind": decision.kind, "explanation": decision.explanation}
    about = Subject(kind="decision", id=decision.decision_id)
    await events.append(session, decision.workspace_id, kind, about, actor, data)
