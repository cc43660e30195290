"""The answer to a question of any kind, given once, and what it does: both in one transaction."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from sqlalchemy import ColumnElement, and_, false, func, or_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.errors import Conflict, MissionControlError, NotPermitted
from models.domain.events import EventType
from models.domain.principals import Kind, Principal, Role
from models.domain.refusals import missing
from models.domain.states import DecisionKind, DecisionStatus
from models.store import agents, api_keys, budgets, decisions, keys, memory, questions, registrations
from models.store.events import Actor
from models.tables.budgets import Run
from models.tables.missions import Decision, Mission
from models.tables.policies import DecisionAnswer
from models.tables.workspaces import PrincipalRow

DEEDS: Mapping[str, Callable[[AsyncSession, Decision, Actor], Awaitable[None]]] = {
    budgets.KIND: budgets.conclude,
    memory.KIND: memory.conclude,
    registrations.KIND: registrations.conclude,
}
"""What an answer does, by the kind of its question. Whoever asks one of another kind waits for its answer and acts."""


async def give(
    session: AsyncSession,
    by: Principal,
    decision_id: str,
    answer: DecisionStatus,
    explanation: str,
    correlation_id: str = "",
) -> Decision:
    """Answer a pending decision, and do what its answer says; of two people at once one is first.

    Where several must approve, it stays pending until the last of them has; one who denies is enough, also one who
    approved before. Whoever was removed or lowered since then has approved in vain, unless they were put back: then any
    of them says so once more.

    Raises:
        NotFound: no such decision.
        Conflict: `already_resolved` by whom, `already_approved` by the caller, `decision_expired` by the database's
            clock, or `decision_canceled`; or what it was to do cannot be done.
        NotPermitted: `own_decision`, nobody answers what they asked themselves; `not_permitted`, it takes others;
            `out_of_scope`, a narrowed key lets in no agent, whose keys are not.
    """
    actor = Actor(by.known_as, correlation_id)
    decision = await _resolve(session, by, decision_id, answer, explanation, actor)
    deed = DEEDS.get(decision.kind)
    if deed and decision.status != DecisionStatus.PENDING:
        await deed(session, decision, actor)
    return decision


async def _resolve(
    session: AsyncSession, by: Principal, decision_id: str, answer: DecisionStatus, explanation: str, actor: Actor
) -> Decision:
    lets_in = registrations.is_about(decision_id)
    if lets_in:
        await api_keys.take_turn(session, by.workspace_id)
    decision = await _lock(session, by.workspace_id, decision_id)
    if lets_in and answer is DecisionStatus.APPROVED:
        by.require_scopes_over(())
    terms = await budgets.terms_of_answer(session, decision)
    by = await _hold(session, decision, by)
    if by.kind is Kind.AGENT and terms.asking & await agents.kin(session, by.workspace_id, [by.known_as]):
        terms = terms.asked_by((), [by.known_as])
    given = await decisions.answers(session, decision) if terms.people > 1 else []
    standing = {each.principal for each in given if each.counts}
    again = by.known_as in standing and len(standing) >= terms.people and answer is DecisionStatus.APPROVED
    before = {each.principal for each in given} if answer is DecisionStatus.APPROVED and not again else ()
    own = by.name in terms.asking
    besides = terms.besides(by)
    others = not own or await keys.other_resolvers(session, by.workspace_id, terms.role, besides, wide=lets_in)
    if refusal := terms.refusal(by, before, others=others):
        raise refusal
    if not again:
        await _keep_answer(session, decision, by, answer, explanation)
    approvals = len(standing | {by.known_as})
    if answer is DecisionStatus.APPROVED and approvals < terms.people:
        data = {"approvals": approvals, "of": terms.people, "explanation": explanation}
        await questions.tell(session, decision, EventType.DECISION_APPROVAL_GIVEN, actor, data)
        return decision
    said = {"explanation": explanation, "single_operator": own}
    [closed] = await questions.close(session, answer, actor, questions.named(by.workspace_id, decision_id), **said)
    return closed


async def _hold(session: AsyncSession, decision: Decision, by: Principal) -> Principal:
    """Let nobody who has answered, or answers now, be removed or lowered until it is done; who answers, as they are.

    Raises:
        NotPermitted: `not_permitted`, they were removed since they asked, or their key was ended.
    """
    given = select(DecisionAnswer.principal).where(
        DecisionAnswer.workspace_id == decision.workspace_id, DecisionAnswer.decision_id == decision.decision_id
    )
    name = col(PrincipalRow.name)
    several = select(PrincipalRow).where(
        PrincipalRow.workspace_id == decision.workspace_id, or_(name == by.known_as, name.in_(given))
    )
    held = await session.scalars(several.order_by(name).with_for_update(read=True))
    own = next((row for row in held if row.name == by.known_as), None)  # none of a visitor
    if own is not None and own.deactivated_at is not None:
        raise NotPermitted("not_permitted", f"{own.name!r} was deactivated, and answers nothing")
    if await keys.has_ended(session, by):
        raise NotPermitted("not_permitted", f"the key that {by.name!r} asked with was ended, and answers nothing")
    return by if own is None or by.role is None else replace(by, role=Role(own.role))


async def _lock(session: AsyncSession, workspace_id: str, decision_id: str) -> Decision:
    """Take a pending decision, so that nobody else answers, expires or withdraws it meanwhile."""
    is_over = func.coalesce(col(Decision.expires_at) <= func.mc_now(), false())
    statement = select(Decision, is_over, _is_gone()).where(
        Decision.workspace_id == workspace_id, Decision.decision_id == decision_id
    )
    found = (await session.execute(statement.with_for_update())).one_or_none()
    if found is None:
        raise missing("decision", decision_id)
    decision: Decision = found[0]
    if decision.status != DecisionStatus.PENDING.value or found[1]:
        raise await _refusal(session, decision)
    if found[2]:  # whoever ends a run or a mission leaves to the reconciler what somebody answers just then
        raise _taken_back()
    return decision


def _is_gone() -> ColumnElement[bool]:
    """Whether a decision is about a tool call of a run, or of a mission, that has ended."""
    ended = or_(col(Run.ended_at).is_not(None), col(Mission.ended_at).is_not(None))
    mission = and_(col(Mission.workspace_id) == Run.workspace_id, col(Mission.mission_id) == Run.mission_id)
    called = and_(col(Run.workspace_id) == Decision.workspace_id, col(Run.run_id) == Decision.about, ended)
    runs = select(Run.run_id).outerjoin(Mission, mission).where(called).correlate(Decision)
    return and_(col(Decision.kind) == DecisionKind.TOOL_ACTION.value, runs.exists())


async def _keep_answer(
    session: AsyncSession, decision: Decision, by: Principal, answer: DecisionStatus, explanation: str
) -> None:
    row = {"workspace_id": decision.workspace_id, "decision_id": decision.decision_id, "principal": by.known_as}
    # Transactions may begin in another order than they take the decision in.
    at = func.mc_now() + (func.clock_timestamp() - func.now())
    await session.execute(insert(DecisionAnswer).values(**row, answer=answer.value, explanation=explanation, at=at))


async def _refusal(session: AsyncSession, decision: Decision) -> MissionControlError:
    """Say why there is nothing to answer."""
    status = DecisionStatus(decision.status)
    if status in (DecisionStatus.APPROVED, DecisionStatus.DENIED):
        return Conflict(
            "already_resolved",
            f"{await _answered_by(session, decision)} answered first: {status.value}; "
            "`GET /decisions?status=pending` lists the others",
            resolved_by=decision.resolved_by,
            resolved_at=decision.resolved_at and decision.resolved_at.isoformat(),
            status=status.value,
        )
    if status is DecisionStatus.CANCELED:
        return _taken_back()
    return Conflict("decision_expired", f"its time is over; {_asked_again(decision)}")


def _taken_back() -> Conflict:
    return Conflict("decision_canceled", "what it was about is gone; there is nothing left to decide")


async def _answered_by(session: AsyncSession, decision: Decision) -> str:
    """Name all whose answers decided, the first first; the policy's, and one that rests on earlier ones, has none."""
    counted = [each for each in await decisions.answers(session, decision) if each.counts]
    names = [each.principal for each in counted if each.answer == decision.status]
    return " and ".join(names or [decision.resolved_by or ""])


def _asked_again(decision: Decision) -> str:
    """Say how the question comes again, which is another way for each kind."""
    if decision.mission_id:
        return "retry the mission to be asked again"
    if decision.kind == DecisionKind.TOOL_ACTION:
        return "the agent asks again when it wants to call the tool once more"
    if memory.is_about(decision):
        return "who proposed the note asks again by writing it once more"
    return "whoever asked has to ask again"
