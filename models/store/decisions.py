"""The human's side of decisions: finding them and answering them, once."""

from collections.abc import Mapping

from sqlalchemy import ColumnElement, func, or_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.contracts.pipeline import DecisionRef, StageRef
from models.domain.errors import Conflict, MissionControlError, NotFound, NotPermitted
from models.domain.events import EventType, Subject
from models.domain.stages import StageName
from models.domain.states import DECISION_TRANSITIONS, DecisionStatus, sources
from models.schemas.pagination import PageRequest
from models.store import events, lists, pagination
from models.store.events import Actor
from models.store.pagination import Rows
from models.tables.missions import Decision, Mission


async def list_page(
    session: AsyncSession, workspace_id: str, filters: Mapping[str, object], page: PageRequest, agent: str | None = None
) -> Rows[Decision]:
    """Read one page of questions; only what concerns `agent`, where one is given."""
    keys = (col(Decision.requested_at), col(Decision.decision_id))
    statement = lists.matching(Decision, workspace_id, filters).where(*_concerning(workspace_id, agent))
    return await pagination.fetch(session, statement, keys, page)


async def require(session: AsyncSession, workspace_id: str, decision_id: str, agent: str | None = None) -> Decision:
    """Read a decision that must be there, and concern `agent`, where one is given."""
    statement = lists.matching(Decision, workspace_id, {"decision_id": decision_id})
    decision = (await session.scalars(statement.where(*_concerning(workspace_id, agent)))).one_or_none()
    if decision is None:
        raise NotFound("decision_not_found", f"there is no decision {decision_id!r}")
    return decision


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
            col(Decision.status).in_(sources(DECISION_TRANSITIONS, answer)),
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
    """Pick what an agent asked itself, and what is asked about missions that it filed or is assigned."""
    if agent is None:
        return []
    own = select(Mission.mission_id).where(
        Mission.workspace_id == workspace_id,
        or_(col(Mission.created_by) == agent, col(Mission.assigned_to) == agent),
    )
    return [or_(col(Decision.requested_by) == agent, col(Decision.mission_id).in_(own))]


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
