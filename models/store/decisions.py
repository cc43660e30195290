"""Decisions as those find them who may answer: listed, counted, and with what was answered by now."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, func, literal, or_, union
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from models.contracts.pipeline import DecisionRef, StageRef
from models.domain.answers import Given
from models.domain.budgets import Scope
from models.domain.refusals import missing
from models.domain.stages import StageName
from models.domain.states import DecisionStatus
from models.schemas.pagination import PageRequest
from models.store import lists, pagination
from models.store.database import within
from models.store.pagination import Rows
from models.store.questions import FALLEN
from models.tables.budgets import Run
from models.tables.memory import MemoryNote
from models.tables.missions import Decision, Mission
from models.tables.policies import DecisionAnswer

SORTS: Mapping[str, tuple[Any, ...]] = {
    "requested_at": (col(Decision.requested_at), col(Decision.decision_id)),
    "expires_at": (col(Decision.answer_until), col(Decision.decision_id)),
    "risk": (col(Decision.risk_rank), col(Decision.requested_at), col(Decision.decision_id)),
}
"""Orders of the list, each served by an index."""


async def list_page(
    session: AsyncSession,
    workspace_id: str,
    filters: Mapping[str, object],
    page: PageRequest,
    agent: str | None = None,
    requester: str | None = None,
) -> Rows[Decision]:
    """Read one page of questions; only what concerns `agent`, and what `requester` asks for, where one is given.

    A `mission_id` finds those about the mission's runs, too: what holds a run holds its mission.
    """
    mission_id = filters.get("mission_id")
    columns = {name: value for name, value in filters.items() if name != "mission_id"}
    statement = lists.matching(Decision, workspace_id, columns).where(*_concerning(workspace_id, agent))
    if mission_id is not None:
        statement = statement.where(col(Decision.decision_id).in_(_of_mission(workspace_id, mission_id)))
    if requester is not None:
        statement = statement.where(col(Decision.terms).contains({"requesters": [requester]}))
    return await pagination.fetch(session, statement, SORTS[page.sort.field], page)


def _of_mission(workspace_id: str, mission_id: object) -> CompoundSelect[tuple[str]]:
    """Name what a mission asks, and what is asked about its runs' calls and limits and its notes; all by an index."""
    one, other = aliased(Decision), aliased(Decision)
    own = select(one.decision_id).where(one.workspace_id == workspace_id, one.mission_id == mission_id)
    names = func.unnest(array([col(Run.run_id), literal(f"{Scope.RUN.value}/") + col(Run.run_id)]))
    runs = select(names).where(Run.workspace_id == workspace_id, Run.mission_id == mission_id)
    theirs = select(other.decision_id).where(other.workspace_id == workspace_id, col(other.about).in_(runs))
    asked, here = col(MemoryNote.decision_id), MemoryNote.workspace_id == workspace_id
    notes = select(asked).where(here, MemoryNote.mission_id == mission_id, asked.is_not(None))
    return union(own, theirs, notes)


async def require(session: AsyncSession, workspace_id: str, decision_id: str, agent: str | None = None) -> Decision:
    """Read a decision that must be there, and concern `agent`, where one is given."""
    statement = lists.matching(Decision, workspace_id, {"decision_id": decision_id})
    decision = (await session.scalars(statement.where(*_concerning(workspace_id, agent)))).one_or_none()
    if decision is None:
        raise missing("decision", decision_id)
    return decision


async def readable(session: AsyncSession, workspace_id: str, names: Collection[str], agent: str) -> set[str]:
    """Find which of these questions an agent may read."""
    mine = of_agent(workspace_id, agent).where(col(Decision.decision_id).in_(names))
    return set(await session.scalars(mine))


def of_agent(workspace_id: str, agent: str) -> SelectOfScalar[str]:
    """Name the questions that an agent may read."""
    here = select(Decision.decision_id).where(Decision.workspace_id == workspace_id)
    return here.where(*_concerning(workspace_id, agent))


async def answers(session: AsyncSession, decision: Decision) -> list[DecisionAnswer]:
    """Read what people have answered, the first first, and whether it counts: now, or when the question closed."""
    key = {"workspace_id": decision.workspace_id, "decision_id": decision.decision_id}
    return [DecisionAnswer(**row) for row in await within(session)(_ANSWERS, key)]


_ANSWERS = f"""
    SELECT a.workspace_id, a.decision_id, a.principal, a.answer, a.explanation, a.at,
    a.counts AND NOT (d.status = 'pending' AND {FALLEN}) AS counts
    FROM decision d JOIN decision_answer a ON a.workspace_id = d.workspace_id AND a.decision_id = d.decision_id
    WHERE d.workspace_id = %(workspace_id)s AND d.decision_id = %(decision_id)s ORDER BY a.at
"""  # noqa: S608  # a constant, no input


async def given(session: AsyncSession, decision: Decision) -> Given:
    """List what people answered; of what rests on an earlier approval, what was answered then.

    One person's answer is in the decision's row, so that only several are looked up.
    """
    if earlier := decision.question.get("rests_on"):
        return list(earlier["answers"])
    if decision.terms.get("people", 1) > 1:
        return [
            {"by": one.principal, "decision": one.answer, "explanation": one.explanation}
            | ({} if one.counts else {"counts": False})
            for one in await answers(session, decision)
        ]
    said, by = decision.explanation, decision.resolved_by or ""
    return [] if said is None else [{"by": by, "decision": decision.status, "explanation": said}]


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
