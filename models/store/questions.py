"""How a question is put and closed, of whatever kind: always together with the event that tells of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, func, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from models.domain.canonical import canonical_json
from models.domain.decisions import Terms
from models.domain.events import EventType
from models.domain.names import POLICY
from models.domain.policy import Outcome, Risk
from models.domain.principals import Role
from models.domain.states import DECISION_TRANSITIONS, DecisionKind, DecisionStatus, sources
from models.domain.system_acts import require_may_set
from models.store.database import mark_events, within
from models.store.events import Actor
from models.tables.missions import Decision

EVENTS = {
    DecisionStatus.PENDING: EventType.DECISION_REQUESTED,
    DecisionStatus.APPROVED: EventType.DECISION_APPROVED,
    DecisionStatus.DENIED: EventType.DECISION_DENIED,
    DecisionStatus.EXPIRED: EventType.DECISION_EXPIRED,
    DecisionStatus.CANCELED: EventType.DECISION_CANCELED,
}
_STATUS = {
    Outcome.ASK: DecisionStatus.PENDING,
    Outcome.ALLOW: DecisionStatus.APPROVED,
    Outcome.DENY: DecisionStatus.DENIED,
}


@dataclass(frozen=True)
class Question:
    """What is asked: `shown` is what whoever answers sees, `binding` what the answer stands for.

    It is asked in the name of `requested_by`, whoever puts it. What is not to be asked was answered by the policy.
    """

    workspace_id: str
    decision_id: str
    kind: DecisionKind
    risk: Risk
    reasons: Sequence[str]
    shown: Mapping[str, Any]
    binding: Mapping[str, Any]
    requested_by: str
    terms: Terms
    expires_in: timedelta | None = None
    mission_id: str | None = None
    round: int = 0
    candidate: int = 0
    outcome: Outcome = Outcome.ASK

    def values(self, actor: Actor) -> dict[str, Any]:
        """Give all that a statement with `inserted` and its event takes."""
        status = _STATUS[self.outcome]
        names = ("workspace_id", "decision_id", "requested_by", "mission_id", "round", "candidate")
        return {name: getattr(self, name) for name in names} | {
            "kind": self.kind.value,
            "status": status.value,
            "risk": self.risk.value,
            "reasons": _json(list(self.reasons)),
            "question": _json(self.shown),
            "binding": _json(self.binding),
            "terms": _json(self.terms.model_dump(mode="json")),
            "expires_in": self.expires_in if status is DecisionStatus.PENDING else None,
            "resolved_by": None if status is DecisionStatus.PENDING else POLICY,
            "type": EVENTS[status].value,
            "actor": actor.name if status is DecisionStatus.PENDING else POLICY,
            "correlation_id": actor.correlation_id,
        }


def inserted(decision_id: str = "%(decision_id)s", source: str = "") -> str:
    """Write the part of a statement that puts a question, once."""
    answered = "CASE WHEN CAST(%(resolved_by)s AS text) IS NOT NULL THEN mc_now() END"
    return f"""
        INSERT INTO decision (workspace_id, decision_id, kind, mission_id, round, candidate, status, risk, reasons,
        question, binding, requested_by, expires_at, terms, resolved_by, resolved_at, acknowledged_at)
        SELECT %(workspace_id)s, {decision_id}, %(kind)s, %(mission_id)s, %(round)s, %(candidate)s, %(status)s,
        %(risk)s, CAST(%(reasons)s AS jsonb), CAST(%(question)s AS jsonb), CAST(%(binding)s AS jsonb), %(requested_by)s,
        mc_now() + CAST(%(expires_in)s AS interval), CAST(%(terms)s AS jsonb), CAST(%(resolved_by)s AS text),
        {answered}, {answered} {source} ON CONFLICT DO NOTHING RETURNING *
    """  # constants of the modules that call it, no input


TOLD = """jsonb_build_object('mission_id', mission_id, 'kind', kind, 'risk', risk, 'reasons', reasons, 'binding',
        binding, 'requested_by', requested_by, 'expires_at', expires_at, 'explanation', explanation, 'single_operator',
        single_operator)"""
"""What every event about a decision tells of its row, whoever answered it, if anybody has."""


async def put(session: AsyncSession, question: Question, actor: Actor) -> Decision:
    """Put a question, or find it already put."""
    found = await within(session)(_PUT, question.values(actor))
    if found:
        mark_events(session)
        return Decision(**found[0])
    known = await session.get(Decision, (question.workspace_id, question.decision_id))
    assert known is not None  # noqa: S101  # it was not inserted, so it is there: the key is ours
    return known


async def close(
    session: AsyncSession, to: DecisionStatus, actor: Actor, *which: ColumnElement[bool], **values: Any
) -> list[Decision]:
    """Close those pending decisions that are meant, each once, and tell of it: whoever else closes them is too late.

    `values` are columns that are set besides.
    """
    require_may_set(actor.name, to)
    closing = {"status": to.value, "resolved_by": actor.name, "resolved_at": func.mc_now()} | values
    pending = col(Decision.status).in_(sources(DECISION_TRANSITIONS, to))
    statement = update(Decision).where(pending, *which).values(closing).returning(Decision)
    closed = list(await session.scalars(statement, execution_options={"populate_existing": True}))
    await tell_each(session, closed, EVENTS[to], actor)
    return closed


def named(workspace_id: str, decision_id: str) -> ColumnElement[bool]:
    """Mean one decision."""
    return and_(col(Decision.workspace_id) == workspace_id, col(Decision.decision_id) == decision_id)


async def tell_each(session: AsyncSession, decisions: Sequence[Decision], kind: EventType, actor: Actor) -> None:
    """Do what `tell_all` does, about decisions of any workspaces."""
    for workspace_id in dict.fromkeys(decision.workspace_id for decision in decisions):
        names = [decision.decision_id for decision in decisions if decision.workspace_id == workspace_id]
        await tell_all(session, workspace_id, names, kind, actor)


async def tell(
    session: AsyncSession, decision: Decision, kind: EventType, actor: Actor, given: Mapping[str, Any] | None = None
) -> None:
    """Do what `tell_all` does, about one decision."""
    await tell_all(session, decision.workspace_id, [decision.decision_id], kind, actor, given)


async def tell_all(
    session: AsyncSession,
    workspace_id: str,
    decision_ids: Sequence[str],
    kind: EventType,
    actor: Actor,
    given: Mapping[str, Any] | None = None,
) -> None:
    """Write an event about each of a workspace's decisions as its row is now, and what was `given` besides.

    With the event that closes it, the answers that count no more are marked, once and for good.
    """
    if decision_ids:
        about = {"workspace_id": workspace_id, "decision_ids": decision_ids, "given": _json(given or {})}
        told = {"type": kind.value, "actor": actor.name, "correlation_id": actor.correlation_id}
        await within(session)(_TELL, about | told)
        mark_events(session)


_EVENT = f"""
    INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
    SELECT workspace_id, %(type)s, 'decision', decision_id, %(actor)s, %(correlation_id)s, {TOLD}"""
_PUT = f"WITH put AS ({inserted()}), told AS ({_EVENT} FROM put) SELECT * FROM put"  # noqa: S608  # as above
_RANK = f"array_position(ARRAY{[role.value for role in Role]}, "
_SAME = "a.workspace_id = d.workspace_id AND a.decision_id = d.decision_id"
FALLEN = f"""a.answer = 'approved' AND CAST(d.terms->>'people' AS integer) > 1 AND (
        EXISTS (SELECT FROM principal p WHERE p.workspace_id = a.workspace_id AND p.name = a.principal
        AND (p.deactivated_at IS NOT NULL OR COALESCE({_RANK} p.role), 0) < {_RANK} d.terms->>'role')))
        OR EXISTS (SELECT FROM decision_answer n WHERE n.workspace_id = a.workspace_id AND n.decision_id = a.decision_id
        AND n.answer = 'denied' AND split_part(n.principal, '/', -1) = split_part(a.principal, '/', -1)))"""  # noqa: S608
"""Whether the answer `a` to the decision `d` counts no more: an approval, as one of several, of who has left the
workspace since, may not answer such questions now, or denied after all."""
_TELL = f"""WITH marked AS (
        UPDATE decision_answer a SET counts = false FROM decision d WHERE d.workspace_id = %(workspace_id)s
        AND d.decision_id = ANY(%(decision_ids)s) AND d.status <> 'pending' AND {_SAME} AND a.counts AND {FALLEN}
    ) {_EVENT} || CAST(%(given)s AS jsonb) FROM decision
    WHERE workspace_id = %(workspace_id)s AND decision_id = ANY(%(decision_ids)s)"""  # noqa: S608  # as above


def _json(value: Any) -> str:
    return canonical_json(value).decode()
