"""Decisions on the side of whoever asked: put, expired, withdrawn, and their answers acknowledged.

So do a mission's workflow, whoever ends a run or opens a limit, and the reconciler for those that cannot any more.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, and_, any_, func, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.contracts.pipeline import StageRef
from models.domain.approval import Binding
from models.domain.decisions import Terms
from models.domain.events import EventType
from models.domain.names import POLICY
from models.domain.policy import Level, Verdict, Who, least_trusted
from models.domain.principals import Kind
from models.domain.stages import StageName
from models.domain.states import DecisionKind, DecisionStatus
from models.store import missions
from models.store.agents import LET_IN
from models.store.compute_statements import COMPUTING
from models.store.database import within
from models.store.events import Actor
from models.store.questions import Question, close, named, put, tell_each
from models.tables.missions import Candidate, Decision, Mission


def decision_id(ref: StageRef, kind: str, repeat: int = 0) -> str:
    """Name a decision after what it decides, so that asking twice asks once."""
    return f"{ref.mission_id}.{kind}.{ref.round}.{repeat or ref.candidate}"


@dataclass(frozen=True)
class Matter:
    """What a mission's stage asks: `shown` is what whoever answers sees, `binding` what the answer stands for.

    `repeat` tells apart what a stage asks again and again of the same candidate in its round.
    """

    ref: StageRef
    kind: DecisionKind
    verdict: Verdict
    shown: dict[str, Any]
    terms: Terms
    binding: Binding | None = None
    expires_in: timedelta | None = None
    repeat: int = 0


async def ask(session: AsyncSession, matter: Matter, actor: Actor) -> Decision:
    """Put a question, or find it already put. What the policy allows or denies is answered by it at once.

    The workflow, which asks, knows of such an answer.
    """
    ref, verdict = matter.ref, matter.verdict
    asked = Question(
        ref.workspace_id,
        decision_id(ref, matter.kind, matter.repeat),
        matter.kind,
        verdict.risk,
        verdict.reasons,
        shown=matter.shown,
        binding=matter.binding.model_dump(mode="json") if matter.binding else {},
        requested_by=actor.name,
        terms=matter.terms,
        expires_in=matter.expires_in,
        mission_id=ref.mission_id,
        round=ref.round,
        candidate=ref.candidate,
        outcome=verdict.outcome,
    )
    return await put(session, asked, actor)


@dataclass(frozen=True)
class Grounds:
    """What a verdict about a mission depends on."""

    filers: list[str]
    """Who filed the mission, and what it files again."""
    found: list[dict[str, Any]]
    """What each stage found that was asked for, with the candidate in its round; {} for one that was not run."""
    agent: Who | None
    """Of the agents that filed the mission, are assigned it, wrote the candidate or brought it in, the one that is
    trusted least, as one that was set apart or ended is; None where only people did."""
    seconds: Decimal
    """How long hosts have worked on the mission by now."""
    usd_left: Decimal | None
    """The least that its limits leave for the work of hosts; None where none is set."""


async def grounds(session: AsyncSession, ref: StageRef, mission: Mission, *names: StageName) -> Grounds:
    """Read what a verdict about a mission depends on, in one statement."""
    filers = await missions.filers(session, mission)
    values = {
        "workspace_id": ref.workspace_id,
        "mission_id": ref.mission_id,
        "round": ref.round,
        "candidate": ref.candidate,
        "stages": [name.value for name in names],
        "whose": [*filers, mission.assigned_to],
        "computing": COMPUTING,
        "least": Level.INTERN.value,
    }
    rows = await within(session)(_GROUNDS, values)
    found = {row["stage"]: row["found"] for row in rows if row["kind"] == "stage"}
    agents = [Who(kind=Kind.AGENT, **row["found"]) for row in rows if row["kind"] == "agent"]
    [spent] = [row for row in rows if row["kind"] == "spent"]
    told = [found.get(name.value, {}) for name in names]
    return Grounds(filers, told, least_trusted(agents), spent["took"], spent["usd_left"])


# What the mission reserved itself is left for it.
_GROUNDS = f"""
    SELECT 'stage' AS kind, stage, result AS found, CAST(NULL AS numeric) AS took,
    CAST(NULL AS numeric) AS usd_left FROM stage
    WHERE workspace_id = %(workspace_id)s AND mission_id = %(mission_id)s AND round = %(round)s
    AND candidate = %(candidate)s AND stage = ANY(%(stages)s)
    UNION ALL
    SELECT 'agent', NULL, jsonb_build_object('name', name, 'level',
        CASE WHEN status IN ('quarantined', 'stopped') THEN %(least)s ELSE level END), NULL, NULL FROM agent
    WHERE workspace_id = %(workspace_id)s AND name = ANY(%(whose)s || ARRAY(
        SELECT unnest(ARRAY[author, added_by]) FROM candidate WHERE workspace_id = %(workspace_id)s
        AND mission_id = %(mission_id)s AND number = %(candidate)s
    )) AND {LET_IN}
    UNION ALL
    SELECT 'spent', NULL, NULL, (
        SELECT COALESCE(sum(extract(epoch FROM GREATEST(ended_at - started_at, interval '0'))), 0) FROM stage
        WHERE workspace_id = %(workspace_id)s AND mission_id = %(mission_id)s AND stage = ANY(%(computing)s)
    ), (
        SELECT min(CASE WHEN b.crossed THEN 0 ELSE b.cap_usd - b.settled_usd - b.reserved_usd + l.usd END)
        FROM ledger l JOIN budget b ON b.workspace_id = l.workspace_id AND b.cap_usd IS NOT NULL AND (
        (b.scope = 'run' AND b.subject = l.run_id AND b.period = '')
        OR (b.scope = 'workspace_month' AND b.subject = '' AND b.period = l.month))
        WHERE l.workspace_id = %(workspace_id)s AND l.run_id = %(mission_id)s AND l.cost_id = 'compute'
        AND l.kind = 'reserve'
    )
"""  # noqa: S608  # a constant, no input


async def candidate(session: AsyncSession, ref: StageRef) -> Candidate | None:
    """Find the candidate that a question is about: its author, and who brought it in that one's name, ask, too."""
    return await session.get(Candidate, (ref.workspace_id, ref.mission_id, ref.candidate))


async def approval(session: AsyncSession, workspace_id: str, mission_id: str, binding: Binding) -> Decision | None:
    """Find the human's approval of a merge that bound this, the latest if there are several."""
    statement = select(Decision).where(
        Decision.workspace_id == workspace_id,
        Decision.mission_id == mission_id,
        Decision.status == DecisionStatus.APPROVED.value,
        col(Decision.binding) == binding.model_dump(mode="json"),
        col(Decision.resolved_by) != POLICY,
    )
    return (await session.scalars(statement.order_by(col(Decision.resolved_at).desc()))).first()


async def expire(session: AsyncSession, workspace_id: str, name: str, actor: Actor) -> Decision | None:
    """Expire a pending decision whose time is over by the database clock; return it as it is now."""
    is_over = col(Decision.expires_at) <= func.mc_now()
    await close(session, DecisionStatus.EXPIRED, actor, named(workspace_id, name), is_over, **_KNOWN)
    return await session.get(Decision, (workspace_id, name), populate_existing=True)


async def withdraw(session: AsyncSession, workspace_id: str, name: str, actor: Actor) -> None:
    """Cancel a pending decision whose subject is gone."""
    await close(session, DecisionStatus.CANCELED, actor, named(workspace_id, name), **_KNOWN)


async def withdraw_about(
    session: AsyncSession, workspace_id: str, kind: DecisionKind, about: Collection[str], actor: Actor, but: str = ""
) -> None:
    """Cancel a kind's open questions about these, `but` one; what is being answered now is left to its answer."""
    asked = (
        select(Decision.decision_id)
        .where(Decision.workspace_id == workspace_id, Decision.kind == kind.value)
        .where(Decision.status == DecisionStatus.PENDING.value)
        .where(col(Decision.about).in_(about), Decision.decision_id != but)
        .with_for_update(skip_locked=True)
    )
    # An array is found once, before the rows: of a subquery the planner may think that it is found as quickly for each.
    names = any_(func.array(asked.scalar_subquery()))
    which = (col(Decision.workspace_id) == workspace_id, col(Decision.decision_id) == names)
    await close(session, DecisionStatus.CANCELED, actor, *which, **_KNOWN)


_KNOWN = {"acknowledged_at": func.mc_now()}
"""Of what whoever asked closes itself: nobody need be told."""


async def expire_overdue(session: AsyncSession, actor: Actor, limit: int) -> int:
    """Expire what is over and was not looked at by its workflow (system door), which is told like of any answer."""
    which = _due(col(Decision.expires_at) <= func.mc_now(), limit)
    return len(await close(session, DecisionStatus.EXPIRED, actor, which, resolved_by=POLICY))


async def tell_half_time(session: AsyncSession, actor: Actor, limit: int) -> int:
    """Remind, once, of what still waits when half of its time is over (system door)."""
    gone, left = func.mc_now() - col(Decision.requested_at), col(Decision.expires_at) - func.mc_now()
    which = _due(and_(gone >= left, col(Decision.half_time_told_at).is_(None)), limit)
    reminded = update(Decision).where(which).values(half_time_told_at=func.mc_now()).returning(Decision)
    decisions = list(await session.scalars(reminded))
    await tell_each(session, decisions, EventType.DECISION_HALF_TIME, actor)
    return len(decisions)


def _due(is_due: ColumnElement[bool], limit: int) -> ColumnElement[bool]:
    """Mean pending decisions whose time has come; those that somebody answers now are left."""
    chosen = (
        select(Decision.workspace_id, Decision.decision_id)
        .where(Decision.status == DecisionStatus.PENDING.value, col(Decision.expires_at).is_not(None), is_due)
        .order_by(col(Decision.expires_at))
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")  # chosen once: a subquery might be asked again for each row, and take the next ones then
    )
    those = select(chosen.c.workspace_id, chosen.c.decision_id)
    return tuple_(col(Decision.workspace_id), col(Decision.decision_id)).in_(those)


async def withdraw_of(session: AsyncSession, workspace_id: str, mission_id: str, actor: Actor) -> None:
    """Cancel the open questions of a mission that ends, and those about calls of its runs, some where they are many.

    Nobody approves the others any more: the reconciler withdraws them.
    """
    values = {"workspace_id": workspace_id, "mission_id": mission_id, "limit": CALLS_AT_ONCE}
    if found := await within(session)(_PENDING, values):
        names = col(Decision.decision_id).in_([row["decision_id"] for row in found])
        here = col(Decision.workspace_id) == workspace_id
        await close(session, DecisionStatus.CANCELED, actor, here, names, **_KNOWN)


async def asked_of_ended(session: AsyncSession, limit: int) -> list[tuple[str, str]]:
    """List open questions of missions that have ended, and about calls of their runs (system door).

    They were put while the mission was closed from outside, or were too many for whoever closed it.
    """
    return [(row["workspace_id"], row["decision_id"]) for row in await within(session)(_OF_ENDED, {"limit": limit})]


# Those that cannot be withdrawn must not stand before the others in every pass.
_OF_ENDED = """
    SELECT * FROM (
        SELECT d.workspace_id, d.decision_id FROM decision d
        JOIN mission m ON m.workspace_id = d.workspace_id AND m.mission_id = d.mission_id AND m.ended_at IS NOT NULL
        WHERE d.status = 'pending' AND starts_with(d.decision_id, d.mission_id || '.')
        UNION ALL
        SELECT d.workspace_id, d.decision_id FROM decision d
        JOIN run r ON r.workspace_id = d.workspace_id AND r.run_id = d.about
        JOIN mission m ON m.workspace_id = r.workspace_id AND m.mission_id = r.mission_id AND m.ended_at IS NOT NULL
        WHERE d.status = 'pending' AND d.kind = 'tool_action'
    ) asked ORDER BY random() LIMIT %(limit)s
"""
CALLS_AT_ONCE = 200
"""Questions about calls that the end of a mission withdraws in its own transaction."""
# What somebody answers just now is left to the answer.
_PENDING = """
    SELECT decision_id FROM decision
    WHERE workspace_id = %(workspace_id)s AND mission_id = %(mission_id)s AND status = 'pending'
    UNION ALL
    SELECT * FROM (
        SELECT d.decision_id FROM run r
        JOIN decision d ON d.workspace_id = r.workspace_id AND d.kind = 'tool_action' AND d.about = r.run_id
        WHERE r.workspace_id = %(workspace_id)s AND r.mission_id = %(mission_id)s AND r.run_id <> r.mission_id
        AND r.ended_at IS NULL AND d.status = 'pending' LIMIT %(limit)s FOR UPDATE OF d SKIP LOCKED
    ) calls
"""


async def acknowledge(session: AsyncSession, workspace_id: str, name: str) -> None:
    """Note that the workflow knows the answer, so that nobody tells it again."""
    await within(session)(_ACKNOWLEDGE, {"workspace_id": workspace_id, "decision_id": name})


_ACKNOWLEDGE = """
    UPDATE decision SET acknowledged_at = mc_now()
    WHERE workspace_id = %(workspace_id)s AND decision_id = %(decision_id)s AND status <> 'pending'
    AND acknowledged_at IS NULL
"""
