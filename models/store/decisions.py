"""Decisions as those find them who may answer: listed, counted, and with what was answered by now."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, func, or_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.contracts.pipeline import DecisionRef, StageRef
from models.domain.decisions import Terms
from models.domain.errors import NotFound
from models.domain.principals import Role
from models.domain.stages import StageName
from models.domain.states import DecisionStatus
from models.schemas.pagination import PageRequest
from models.store import lists, pagination
from models.store.pagination import Rows
from models.tables.missions import Decision, Mission
from models.tables.policies import DecisionAnswer
from models.tables.workspaces import PrincipalRow

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


async def fallen(session: AsyncSession, decision: Decision) -> set[str]:
    """Name those whose approval counts no more: they have left the workspace, or may not answer such questions now."""
    gone = or_(col(PrincipalRow.deactivated_at).is_not(None), col(PrincipalRow.role).not_in(_high_enough(decision)))
    of_it = (
        col(PrincipalRow.workspace_id) == DecisionAnswer.workspace_id,
        col(PrincipalRow.name) == DecisionAnswer.principal,
        DecisionAnswer.workspace_id == decision.workspace_id,
        DecisionAnswer.decision_id == decision.decision_id,
    )
    return set(await session.scalars(select(DecisionAnswer.principal).where(*of_it, gone)))


def _high_enough(decision: Decision) -> list[str]:
    least = Terms.model_validate(decision.terms).role
    return [role.value for role in Role if role.includes(least)]


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
