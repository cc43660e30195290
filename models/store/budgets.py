"""Limits and the counters that hold them: set by admins, met by runs, contained when they are crossed (BUDG-04)."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import Text, any_, delete, exists, func, literal, or_
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.alerts import AlertKind
from models.domain.budgets import DEFAULTS, Cap, Key, Owner, Scope, cap_of, not_below, proposed, reaches
from models.domain.caps import meant, owner_names, promised
from models.domain.decisions import Terms
from models.domain.events import EventType, Subject
from models.domain.limits import Hit, as_told, denial, from_told, limit_id, reason
from models.domain.names import POLICY
from models.domain.policy import Level, Resolvers, Risk, parse_policy
from models.domain.principals import Role
from models.domain.refusals import missing, run_ended
from models.domain.states import DecisionKind, DecisionStatus
from models.schemas.budgets import LimitView
from models.schemas.pagination import PageRequest
from models.store import agents, alerts, events, going_on, governance, lists, pagination, policies, recapping
from models.store.alerts import NewAlert
from models.store.database import mark_events, within
from models.store.events import Actor
from models.store.going_on import AT_ONCE
from models.store.ledger_statements import (
    ALONE,
    ASKED_OF_ENDED,
    ASKED_OF_OPEN,
    CONTAIN,
    DENY,
    LEFT,
    PASSED,
    SPENT_UP,
    THE_COUNTER,
    THE_RUN,
    THOSE_HELD,
    TOGETHER,
    WANTED,
)
from models.store.pagination import Rows
from models.store.questions import Question
from models.store.recapping import Opened
from models.tables.agents import AgentRow
from models.tables.budgets import Budget, BudgetLimit, Run
from models.tables.missions import Decision, Mission

KIND = DecisionKind.BUDGET
"""Of the decision that asks for a higher cap."""
_SHARED = (Owner.LEVEL.value, Owner.CATEGORY.value, Owner.WORKSPACE.value)
"""Owners of caps that are not one run's, ticket's or agent's; there are few."""


async def limits(session: AsyncSession, workspace_id: str, *names: str | None) -> dict[Key, Cap]:
    """Read the caps that hold for the runs, tickets and agents of these names: what admins set, over the defaults."""
    own = literal(sorted({name for name in names if name}), ARRAY(Text))
    owned = or_(col(BudgetLimit.owner).in_(_SHARED), col(BudgetLimit.name) == any_(own))
    rows = await session.scalars(select(BudgetLimit).where(BudgetLimit.workspace_id == workspace_id, owned))
    return {**DEFAULTS, **{_key(row): _cap(row) for row in rows}}


async def views(session: AsyncSession, workspace_id: str) -> list[LimitView]:
    """List all caps that hold, but for those of runs that have ended."""
    of_ended = exists().where(
        col(BudgetLimit.owner) == Owner.RUN.value,  # few have one, and only these runs are looked at
        col(Run.workspace_id) == col(BudgetLimit.workspace_id),
        col(Run.run_id) == col(BudgetLimit.name),
        col(Run.ended_at).is_not(None),
    )
    rows = await session.scalars(select(BudgetLimit).where(BudgetLimit.workspace_id == workspace_id, ~of_ended))
    known = {_key(row): row for row in rows}
    caps = {**DEFAULTS, **{key: _cap(row) for key, row in known.items()}}
    levels = await agents.levels(session, workspace_id, [key.name for key, cap in caps.items() if cap.usd_of_level])
    held = {key: cap_of(caps, key.scope, {Owner.LEVEL: levels.get(key.name), key.owner: key.name}) for key in caps}
    return [_view(key, cap, known.get(key)) for key, cap in held.items()]


async def views_page(session: AsyncSession, workspace_id: str, page: PageRequest) -> Rows[LimitView]:
    """Read one page of the caps that hold, in the order of the limits."""
    order = list(Scope)
    known = await views(session, workspace_id)
    return pagination.cut(known, lambda view: (order.index(view.scope), view.owner, view.name), page)


async def view(session: AsyncSession, workspace_id: str, key: Key) -> LimitView:
    """Show the cap of one key: what an admin set, or the default."""
    row = await session.get(BudgetLimit, (workspace_id, key.scope.value, key.owner.value, key.name))
    cap = _cap(row) if row else DEFAULTS.get(key, Cap())
    return _view(key, cap, row)


def _view(key: Key, cap: Cap, row: BudgetLimit | None) -> LimitView:
    return LimitView(
        scope=key.scope,
        owner=key.owner,
        name=key.name,
        cap_usd=cap.usd,
        cap_tokens=cap.tokens,
        set_by=row.set_by if row else None,
        set_at=row.set_at if row else None,
    )


async def list_page(
    session: AsyncSession, workspace_id: str, filters: Mapping[str, object], page: PageRequest
) -> Rows[Budget]:
    """Read one page of counters: what each limit has left. An agent's may be asked for by its id, too."""
    filters = {**filters, "subject": await agents.name_of(session, workspace_id, filters.get("subject"))}
    keys = (col(Budget.scope), col(Budget.subject), col(Budget.period))
    return await lists.fetch(session, Budget, workspace_id, filters, keys, page)


async def set_limit(session: AsyncSession, workspace_id: str, key: Key, cap: Cap | None, actor: Actor) -> None:
    """Give a limit a cap, or None: the one that it has where nobody sets any.

    A higher one lets go on what a lower one blocked; a lower one takes back no promise.

    Raises:
        NotFound, Conflict: `run_not_found`, `run_ended`, for the cap of a run.
    """
    await within(session)(ALONE, {"workspace_id": workspace_id})
    if key.owner is Owner.RUN:
        await _require_run(session, workspace_id, key.name)
    counters = await recapping.touched(session, workspace_id, key)
    names = {key.name} | owner_names(counters)  # each keeps a nearer cap of its own
    known = await limits(session, workspace_id, *names)
    await _keep_limit(session, workspace_id, key, cap, actor)
    after = await limits(session, workspace_id, *names)
    shown = {"before": as_told(known.get(key, Cap())), "after": as_told(after.get(key, Cap()))}
    data = {"owner": key.owner.value, "name": key.name, "is_default": cap is None, **shown}
    about = Subject(kind="budget", id=key.scope.value)
    await events.append(session, workspace_id, EventType.BUDGET_CHANGED, about, actor, data)
    opened = await recapping.apply(session, workspace_id, key.scope, counters, known, after, actor)
    await tell_open(session, workspace_id, key.scope, opened, actor)


async def _require_run(session: AsyncSession, workspace_id: str, run_id: str) -> None:
    """Check that there is a run that goes on, or a mission that will have one of its id."""
    key = (workspace_id, run_id)
    for found in (await session.get(Run, key), await session.get(Mission, key)):
        if found is not None:
            if found.ended_at is None:
                return
            raise run_ended()
    raise missing("run", run_id)


async def follow_level(session: AsyncSession, agent: AgentRow, level: Level, actor: Actor) -> None:
    """Give the day of an agent that changes its level the cap of that one (BUDG-01); its runs keep theirs."""
    await within(session)(ALONE, {"workspace_id": agent.workspace_id})
    caps = await limits(session, agent.workspace_id, agent.name)
    opened = await recapping.relevel(session, agent.workspace_id, agent.name, level, caps, actor)
    await tell_open(session, agent.workspace_id, Scope.AGENT_DAY, opened, actor)


async def renew_ticket(session: AsyncSession, workspace_id: str, ticket_id: str, actor: Actor) -> None:
    """Bring the counter of a ticket, on which something starts now, to the cap that was set while nothing ran on it."""
    caps = await limits(session, workspace_id, ticket_id)
    opened = await recapping.renew(session, workspace_id, Key(Scope.TICKET, Owner.TICKET, ticket_id), caps, actor)
    await tell_open(session, workspace_id, Scope.TICKET, opened, actor)


async def close_run(session: AsyncSession, workspace_id: str, run_id: str, actor: Actor) -> None:
    """Take back what was asked and told about the limit of a run that has ended."""
    await tell_open(session, workspace_id, Scope.RUN, [(run_id, "")], actor)


async def asked_of_ended(session: AsyncSession, limit: int) -> list[tuple[str, str]]:
    """List runs that have ended, and of which something is still asked or told (system door)."""
    return [(row["workspace_id"], row["run_id"]) for row in await within(session)(ASKED_OF_ENDED, {"limit": limit})]


async def asked_of_open(session: AsyncSession, limit: int) -> list[tuple[str, str, str]]:
    """List limits that are open by now, and of which something is still asked or told (system door)."""
    rows = await within(session)(ASKED_OF_OPEN, {"limit": limit})
    return [(row["workspace_id"], row["scope"], row["subject"]) for row in rows]


async def close_open(session: AsyncSession, workspace_id: str, scope: str, subject: str, actor: Actor) -> None:
    """Take back what is asked and told about a run's or ticket's limit, unless it is closed again by now."""
    counter = await read(session, {"workspace_id": workspace_id, "scope": scope, "subject": subject, "period": ""})
    if not counter["crossed"]:
        await tell_open(session, workspace_id, Scope(scope), [(subject, "")], actor)
    else:  # it was opened, and closed again: only the newest question is about that
        name = limit_id(workspace_id, scope, subject)
        await governance.withdraw_about(session, workspace_id, KIND, [name], actor, but=counter["question"])


async def tell_open(session: AsyncSession, workspace_id: str, scope: Scope, opened: Opened, actor: Actor) -> None:
    """Take back what was asked and told about limits that hold nothing any more; of many, the reconciler does."""
    if some := opened[:AT_ONCE]:
        named = [limit_id(workspace_id, scope, subject) for subject, _ in some]
        await governance.withdraw_about(session, workspace_id, KIND, named, actor)
        periods = [period for _, period in some]
        await alerts.resolve_all(session, workspace_id, AlertKind.COST_SPIKE, named, actor, periods)


async def _keep_limit(session: AsyncSession, workspace_id: str, key: Key, cap: Cap | None, actor: Actor) -> None:
    row = {"workspace_id": workspace_id, "scope": key.scope.value, "owner": key.owner.value, "name": key.name}
    if cap is None:
        await session.execute(delete(BudgetLimit).where(*lists.conditions(BudgetLimit, workspace_id, row)))
        return
    values = {"cap_usd": cap.usd, "cap_tokens": cap.tokens, "usd_of_level": cap.usd_of_level, "set_by": actor.name}
    statement = insert(BudgetLimit).values(**row, **values)
    changed = {**values, "set_at": func.mc_now()}
    await session.execute(statement.on_conflict_do_update(index_elements=list(row), set_=changed))


async def prepare(session: AsyncSession, workspace_id: str, run_id: str) -> None:
    """Make the counters that a run needs now, each with the cap that holds for it."""
    await within(session)(TOGETHER, {"workspace_id": workspace_id})
    wanted = await within(session)(WANTED, {"workspace_id": workspace_id, "run_id": run_id})
    caps = await limits(session, workspace_id, *owner_names(wanted))
    rows = [_counter(workspace_id, row, caps) for row in wanted]
    if rows:
        await session.execute(insert(Budget).values(rows).on_conflict_do_nothing())


async def spent_up(session: AsyncSession, workspace_id: str, run_id: str) -> dict[str, Any] | None:
    """Find a limit that leaves a run nothing at all (BUDG-09)."""
    found = await within(session)(SPENT_UP, {"workspace_id": workspace_id, "run_id": run_id})
    return found[0] if found else None


async def left(session: AsyncSession, workspace_id: str, run_id: str) -> Decimal | None:
    """Tell what a run, whose counters are there, may still promise; None where it has no limit."""
    [found] = await within(session)(LEFT, {"workspace_id": workspace_id, "run_id": run_id})
    usd: Decimal | None = found["usd"]
    return usd


async def contain(session: AsyncSession, hit: Hit, actor: Actor, *, instead: bool = False) -> bool:
    """Block a run that met a limit; who crosses it first closes it for all, and asks or tells (V-29).

    `instead`: of what blocked the run in a window that is over. Whether it was crossed now.
    """
    is_news = await _contain(session, hit, actor, instead=instead)
    if is_news:
        spike = NewAlert(AlertKind.COST_SPIKE, hit.about, reason(hit.counter), hit.told)
        await alerts.sound(session, hit.workspace_id, actor, spike)
    return is_news


async def _contain(
    session: AsyncSession, hit: Hit, actor: Actor, *, instead: bool = False, again: bool = False
) -> bool:
    """Close a limit that a run met, block the run and put the question; whether the limit was open until now.

    `instead`: of what blocked the run in a window that is over. `again`: the limit is closed, only its question is new.
    """
    question = await _question(session, hit, actor)
    values = question.values(actor) | hit.values | {"instead": instead, "again": again}
    closed = await within(session)(CONTAIN, values)
    mark_events(session)
    if closed and hit.counter["denied"]:  # somebody is asked anew: what was denied before holds no run any more
        await going_on.say_why(session, {**hit.counter, "denied": None}, actor)
    return bool(closed)


async def _question(session: AsyncSession, hit: Hit, actor: Actor) -> Question:
    """Make the question whether a limit is to be raised; it is put where one is asked about this limit."""
    return Question(
        hit.workspace_id,
        "",  # `CONTAIN` names it, by how often the limit was crossed
        KIND,
        Risk.YELLOW,
        [reason(hit.counter)],
        shown=hit.told | {"proposed": hit.proposed},
        binding={"scope": hit.counter["scope"], "subject": hit.counter["subject"], **hit.proposed},
        requested_by=actor.name,
        terms=await _terms(session, hit, actor) if hit.is_asked else Terms(),
    )


async def _ask_again(session: AsyncSession, hit: Hit, asked_by: str, actor: Actor) -> None:
    """Put a new question about a limit that stays closed, in the name of who asked first."""
    await _contain(session, hit, Actor(asked_by, actor.correlation_id), again=True)


async def read(session: AsyncSession, counter: Mapping[str, Any]) -> dict[str, Any]:
    """Read a counter, named by a row of it, as it is now; nobody changes it until the transaction ends."""
    names = ("workspace_id", "scope", "subject", "period")
    [found] = await within(session)(THE_COUNTER, {name: counter[name] for name in names})
    return found


async def renew_questions(session: AsyncSession, workspace_id: str, run_id: str, actor: Actor) -> None:
    """Ask again where what begun calls of a run did cost has reached the cap that a pending question proposes.

    A question that is being answered now is left to its answer, which looks for itself.
    """
    for passed in await within(session)(PASSED, {"workspace_id": workspace_id, "run_id": run_id}):
        policy = Actor(POLICY, actor.correlation_id)
        await governance.withdraw(session, workspace_id, passed["decision_id"], policy)
        await _ask_again(session, Hit(passed["run_id"], passed), passed["requested_by"], actor)


async def conclude(session: AsyncSession, decision: Decision, actor: Actor) -> None:
    """Raise the cap that an approved decision is about, to what it bound; a denied one leaves its runs blocked.

    Where more was spent meanwhile than was approved, no cap is set that nobody saw: the question is put again, as it is
    where the limit stays closed. One that is open by now, or asked about anew, or of a run that has ended, is left as
    it is.
    """
    workspace_id, asked = decision.workspace_id, decision.question | {"workspace_id": decision.workspace_id}
    if decision.status != DecisionStatus.APPROVED.value:
        said = denial(actor.name, decision.explanation or "no reason was given")
        if closed := await within(session)(DENY, asked | {"denied": said, "decision_id": decision.decision_id}):
            await going_on.say_why(session, closed[0], actor)
        return
    scope = Scope(asked["scope"])
    await within(session)(ALONE, {"workspace_id": workspace_id})
    counter = await read(session, asked)
    is_over = scope is Scope.RUN and (await _run(session, workspace_id, asked["run_id"]))["ended_at"] is not None
    if is_over or not counter["crossed"] or counter["question"] != decision.decision_id:
        return
    more = proposed(from_told(asked), from_told(decision.binding))
    if not reaches(promised(counter), more):
        caps = await limits(session, workspace_id, *owner_names([counter]))
        cap = not_below(meant(caps, counter), more)
        await set_limit(session, workspace_id, Key(scope, Owner(scope.value), asked["subject"]), cap, actor)
        counter = await read(session, asked)
    if counter["crossed"]:
        await _ask_again(session, Hit(asked["run_id"], counter), decision.requested_by, actor)


async def _terms(session: AsyncSession, hit: Hit, actor: Actor) -> Terms:
    """Say who may raise a cap: whom the policy in force names, and an admin where none is yet; never who runs."""
    law = await policies.active(session, hit.workspace_id)
    resolvers = Resolvers(role=Role.ADMIN)
    if law:
        resolvers = (await asyncio.to_thread(parse_policy, law.source)).resolvers(KIND)
    held = await _held(session, hit.workspace_id, {"": hit.told | {"since": None}})
    return Terms.of(None, resolvers, Risk.YELLOW, {actor.name, *held[""].acted}, held[""].named)


async def terms(session: AsyncSession, workspace_id: str, found: Sequence[Decision]) -> dict[str, Terms]:
    """Read what answers to questions take; one that waits is asked by all whose runs its limit held since, too."""
    known = {one.decision_id: Terms.model_validate(one.terms) for one in found}
    pending = (one for one in found if one.kind == KIND and one.status == DecisionStatus.PENDING)
    if asked := {one.decision_id: one.question | {"since": one.requested_at} for one in pending}:
        held = await _held(session, workspace_id, asked)
        known |= {name: known[name].asked_by(of.acted, of.named) for name, of in held.items()}
    return known


async def terms_of_answer(session: AsyncSession, decision: Decision) -> Terms:
    """Read what an answer takes that is being given; nobody meets a limit beside it until the transaction ends."""
    if decision.kind == KIND:
        await within(session)(ALONE, {"workspace_id": decision.workspace_id})
    return (await terms(session, decision.workspace_id, [decision]))[decision.decision_id]


@dataclass(frozen=True)
class _Held:
    """Who started what a limit holds, and for whom they said that it runs."""

    acted: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)


async def _held(session: AsyncSession, workspace_id: str, asked: Mapping[str, Mapping[str, Any]]) -> dict[str, _Held]:
    """Name whose runs are held by limits that are so asked about: of what scope, by which run, and since when."""
    places = {f"{name}s": [each[name] for each in asked.values()] for name in ("scope", "run_id", "since")}
    held = {name: _Held() for name in asked}
    for run in await within(session)(THOSE_HELD, {"workspace_id": workspace_id, "names": list(asked), **places}):
        held[run["name"]].acted.add(run["created_by"] or "")
        held[run["name"]].named.add(run["agent_id"] or "")
    return held


async def _run(session: AsyncSession, workspace_id: str, run_id: str) -> dict[str, Any]:
    """Read a run as it is now."""
    [found] = await within(session)(THE_RUN, {"workspace_id": workspace_id, "run_id": run_id})
    return found


def _counter(workspace_id: str, wanted: Mapping[str, Any], caps: Mapping[Key, Cap]) -> dict[str, Any]:
    cap = meant(caps, wanted)
    return {"workspace_id": workspace_id, **wanted, "cap_usd": cap.usd, "cap_tokens": cap.tokens}


def _cap(row: BudgetLimit) -> Cap:
    return Cap(row.cap_usd, row.cap_tokens, row.usd_of_level)


def _key(row: BudgetLimit) -> Key:
    return Key(Scope(row.scope), Owner(row.owner), row.name)
