"""Tool calls of runs: judged before they are made, asked about where the policy says so, and told of when over."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.alerts import AlertKind
from models.domain.budgets import MAX_SAME_RETRIES, SAME_ERROR_CHARS, is_loop
from models.domain.decisions import Terms
from models.domain.errors import Conflict, NotFound
from models.domain.events import EventType, Subject
from models.domain.money import written
from models.domain.names import POLICY
from models.domain.policy import Act, Context, Outcome, Policy, Verdict, Who
from models.domain.principals import Principal
from models.domain.refusals import mission_ended
from models.domain.states import DecisionKind, DecisionStatus
from models.domain.tool_calls import (
    EXPIRES_IN,
    MADE,
    MAX_ASKED,
    CallStatus,
    Said,
    digest,
    is_listed,
    secrets_among,
    standing,
    where,
)
from models.schemas.pagination import PageRequest
from models.schemas.tool_calls import ToolCallCreate, ToolCallEnd
from models.store import agents, alerts, budgets, events, lists, pagination, questions, runs
from models.store.alerts import NewAlert
from models.store.database import within
from models.store.events import Actor
from models.store.pagination import Rows
from models.store.policies import InForce, PolicyBook
from models.store.questions import Question
from models.tables.budgets import Run, ToolCall
from models.tables.missions import Decision, Mission

UNLISTED = "the tool is not on the list of those that the agent may call; an admin may add it"
_OTHER_LAW = "the policy judges it otherwise than when it was approved: ask for it anew"


@dataclass(frozen=True)
class Asking:
    """Who wants to call tools, in which request, and where they act unless something else is known."""

    caller: Principal
    actor: Actor
    env: str


async def log(
    session: AsyncSession, book: PolicyBook, asking: Asking, run_id: str, call: ToolCallCreate
) -> dict[str, Any]:
    """Judge a call of a run that goes on, and keep it with what was said of it, whatever that is.

    One that was made is kept of a blocked run, too. The fourth retry with the same error blocks the run (LOOP-04).

    Raises:
        NotFound: `cost_not_found`.
        Conflict: `run_ended`, `run_blocked`, `mission_ended`, `too_many_asked`.
    """
    if call.usd is not None:  # before the run is locked: whoever sets a cap locks them the other way round
        await budgets.prepare(session, asking.caller.workspace_id, run_id)
    run = await runs.lock_open(session, asking.caller.workspace_id, run_id, asking.actor, also_blocked=call.was_made)
    number = await _next_number(session, run, call.cost_id)
    doer = await agents.doer(session, asking.caller, run.agent_id)
    if is_listed(call.tool, doer.tools):
        mission = await session.get(Mission, (run.workspace_id, run.mission_id)) if run.mission_id else None
        if mission and mission.ended_at is not None and not call.was_made:
            raise mission_ended()
        left = await budgets.left(session, run.workspace_id, run_id) if call.usd is not None else None
        row = await _judge(session, book, _Wanted(call, run, number, doer.who, mission, asking, left))
    else:
        row = {"refused": UNLISTED}
    row |= {"digest": digest(call.tool, call.arguments), "at": func.mc_now()}
    row |= {"ended_at": func.mc_now() if call.was_made else None}
    row |= call.model_dump(include={"tool", "error", "duration_ms", "cost_id"})
    await session.execute(insert(ToolCall).values(**_key(run, number), **row))
    return await _told(session, run, number, asking.actor)


async def end(
    session: AsyncSession, workspace_id: str, run_id: str, number: int, told: ToolCallEnd, actor: Actor
) -> dict[str, Any]:
    """Note, once, how a call went that might be made, also where its mission has ended since.

    Raises:
        NotFound: `tool_call_not_found`, `cost_not_found`.
        Conflict: `run_ended`, or `tool_call_pending`, `tool_call_denied`, `tool_call_ended`.
    """
    run = await runs.lock_open(session, workspace_id, run_id, actor, also_blocked=True)
    call = await _read(session, workspace_id, run_id, number)
    if _standing(call | {"over": None, "held": None})[0] is not CallStatus.ALLOWED:  # it may have been made before
        raise _not_to_be_ended(_shown(call))
    if not await within(session)(_END, _key(run, number) | told.model_dump()):
        raise _no_cost(run, told.cost_id)
    return await _told(session, run, number, actor)


_HAS_COST = """(CAST(%(cost_id)s AS text) IS NULL OR EXISTS (
        SELECT FROM ledger l WHERE l.workspace_id = %(workspace_id)s AND l.run_id = %(run_id)s
        AND l.cost_id = %(cost_id)s AND l.kind IN ('reserve', 'settle')))"""
"""Whether a call names no cost, or one that its run has, or has reserved for."""
_END = f"""
    UPDATE tool_call SET error = %(error)s, duration_ms = %(duration_ms)s, cost_id = COALESCE(%(cost_id)s, cost_id),
    ended_at = mc_now() WHERE workspace_id = %(workspace_id)s AND run_id = %(run_id)s AND number = %(number)s
    AND {_HAS_COST} RETURNING number
"""  # noqa: S608  # a constant of this module, no input


async def find(session: AsyncSession, book: PolicyBook, workspace_id: str, run_id: str, number: int) -> dict[str, Any]:
    """Read a call as it stands now: with the verdict, the answer where somebody was asked, and its cost."""
    call = await _read(session, workspace_id, run_id, number)
    return _shown(call | {"barred": await _barred(session, book, call)})


async def _read(session: AsyncSession, workspace_id: str, run_id: str, number: int) -> dict[str, Any]:
    """Read a call with all that its standing depends on."""
    values = {"workspace_id": workspace_id, "run_id": run_id, "numbers": [number]}
    if not (found := await within(session)(_FIND, values)):
        raise NotFound("tool_call_not_found", f"the run has no tool call {number}")
    return dict(found[0])


async def list_page(
    session: AsyncSession, book: PolicyBook, workspace_id: str, run_id: str, page: PageRequest
) -> Rows[dict[str, Any]]:
    """Read one page of a run's calls, each as it stands now."""
    found = await lists.fetch(session, ToolCall, workspace_id, {"run_id": run_id}, (col(ToolCall.number),), page)
    numbers = [call.number for call in found.rows]
    values = {"workspace_id": workspace_id, "run_id": run_id, "numbers": numbers}
    read = {row["number"]: row for row in await within(session)(_FIND, values)}
    calls = [{**read[number], "barred": await _barred(session, book, read[number])} for number in numbers]
    return pagination.Rows([_shown(call) for call in calls], found.next_cursor)


async def _barred(session: AsyncSession, book: PolicyBook, call: Mapping[str, Any]) -> str | None:
    """Say why a call that was approved, and not told of yet, may not be made any more."""
    if call["answer"] != DecisionStatus.APPROVED or call["ended_at"] is not None:
        return None
    if call["tools"] is not None and not is_listed(call["tool"], call["tools"]):
        return UNLISTED
    if not (call["is_older"] or call["other_level"]):
        return None
    key = (call["workspace_id"], call["verdict_id"], DecisionKind.TOOL_ACTION)
    return _OTHER_LAW if await book.differs(session, *key, level=call["other_level"]) else None


# An answer that did not come in time is none, also where nobody has looked yet; so is one about what is over.
_FIND = """
    SELECT c.*, v.risk, v.outcome, v.reasons, d.resolved_by, d.explanation, l.usd, a.tools,
    v.policy_version <> p.version AS is_older,
    CASE WHEN a.level <> v.input -> 'principal' ->> 'level' THEN a.level END AS other_level,
    CASE WHEN d.status = 'pending' AND d.expires_at <= mc_now() THEN 'expired' ELSE d.status END AS answer,
    CASE WHEN r.ended_at IS NOT NULL THEN 'run' WHEN m.ended_at IS NOT NULL THEN 'mission' END AS over,
    CASE WHEN r.status = 'blocked' THEN concat('its run is blocked: ', r.reason)
    WHEN a.status IN ('paused', 'quarantined', 'stopped') THEN concat('its agent is ', a.status) END AS held
    FROM tool_call c
    JOIN run r ON r.workspace_id = c.workspace_id AND r.run_id = c.run_id
    LEFT JOIN mission m ON m.workspace_id = r.workspace_id AND m.mission_id = r.mission_id
    LEFT JOIN agent a ON a.workspace_id = r.workspace_id AND a.name = r.agent_id AND a.registration <> 'rejected'
    LEFT JOIN verdict v ON v.workspace_id = c.workspace_id AND v.verdict_id = c.verdict_id
    LEFT JOIN policy_active p ON p.workspace_id = c.workspace_id
    LEFT JOIN decision d ON d.workspace_id = c.workspace_id AND d.decision_id = c.decision_id
    LEFT JOIN ledger l ON l.workspace_id = c.workspace_id AND l.run_id = c.run_id AND l.cost_id = c.cost_id
    AND l.kind = 'settle'
    WHERE c.workspace_id = %(workspace_id)s AND c.run_id = %(run_id)s AND c.number = ANY(%(numbers)s)
"""


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    status, reason = _standing(row)
    return {**row, "status": status, "reason": reason, "reasons": tuple(row["reasons"] or ())}


def _standing(row: Mapping[str, Any]) -> tuple[CallStatus, str | None]:
    said = Said(
        refused=row["refused"],
        outcome=row["outcome"] and Outcome(row["outcome"]),
        reasons=tuple(row["reasons"] or ()),
        answer=row["answer"] and DecisionStatus(row["answer"]),
        words=f"{row['resolved_by']}: {row['explanation']}",
    )
    given = {name: row.get(name) for name in ("error", "over", "barred", "held")}
    return standing(said, ended=row["ended_at"] is not None, **given)


@dataclass(frozen=True)
class _Wanted:
    """A call that is to be judged, and all that is known of it."""

    call: ToolCallCreate
    run: Run
    number: int
    who: Who
    mission: Mission | None
    asking: Asking
    left: Decimal | None

    @property
    def env(self) -> str:
        """What it reaches: production where any of the three says so, else what its mission is about."""
        home = self.asking.env
        return where(where(self.call.env, self.mission.env), home) if self.mission else where(self.call.env, home)

    @property
    def is_over(self) -> bool:
        """Whether its mission has ended, so that nobody is asked any more."""
        return self.mission is not None and self.mission.ended_at is not None

    def act(self, policy: Policy) -> Act:
        """Say what a policy judges; of the arguments only the words that it says are secrets."""
        context = Context(
            env=self.env,
            protected=self.mission.protected if self.mission else False,
            paths=secrets_among(self.call.arguments, policy.secrets),
            usd=self.call.usd,
            usd_left=self.left,
            facts={"run_id": self.run.run_id},
        )
        return Act(action=self.call.tool, principal=self.who, context=context)

    @property
    def question(self) -> dict[str, Any]:
        """Say what whoever is asked is shown."""
        shown = {"tool": self.call.tool, "arguments": self.call.arguments, "env": self.env, "made": self.call.was_made}
        return shown | {
            "usd": None if self.call.usd is None else written(self.call.usd),
            "mission_id": self.run.mission_id,
        }

    @property
    def acted(self) -> tuple[str, str]:
        """Name those who ask for it: who reports the call, and who started its run."""
        return (self.asking.actor.name, self.run.created_by)


async def _judge(session: AsyncSession, book: PolicyBook, wanted: _Wanted) -> dict[str, Any]:
    """Let the policy in force judge a call, and ask where it says so; the ids of both."""
    run, name = wanted.run, f"{wanted.run.run_id}.{wanted.number}"
    verdict, law = await book.judge(session, run.workspace_id, wanted.act, name, run.mission_id)
    if not verdict.asks or wanted.is_over:
        return {"verdict_id": name}
    decision = await _ask(session, wanted, verdict, law)
    return {"verdict_id": name, "decision_id": decision.decision_id}


async def _ask(session: AsyncSession, wanted: _Wanted, verdict: Verdict, law: InForce) -> Decision:
    """Put the question whether a call may be made. The policy puts it, in the name of whoever wants to call."""
    run, agent = wanted.run, wanted.run.agent_id or ""
    await _require_room(session, run)
    spent = await runs.find(session, run.workspace_id, run.run_id)
    resolvers = law.policy.resolvers(DecisionKind.TOOL_ACTION)
    asked = Question(
        run.workspace_id,
        f"{run.run_id}.{DecisionKind.TOOL_ACTION}.{wanted.number}",
        DecisionKind.TOOL_ACTION,
        verdict.risk,
        [MADE, *verdict.reasons] if wanted.call.was_made else verdict.reasons,
        shown=wanted.question | {"settled_usd": written(spent["usd"]), "settled_tokens": int(spent["tokens"])},
        binding={**_place(run, wanted.number), "digest": digest(wanted.call.tool, wanted.call.arguments)},
        requested_by=agent or wanted.acted[0],
        terms=Terms.of(verdict.ask, resolvers, verdict.risk, wanted.acted, (agent,)),
        expires_in=EXPIRES_IN,
    )
    return await questions.put(session, asked, Actor(POLICY, wanted.asking.actor.correlation_id))


async def _require_room(session: AsyncSession, run: Run) -> None:
    """Ask no more than people can answer; nobody else asks for the run, which is locked."""
    waiting = select(func.count()).where(
        Decision.workspace_id == run.workspace_id,
        Decision.status == DecisionStatus.PENDING.value,
        Decision.kind == DecisionKind.TOOL_ACTION.value,
        col(Decision.about) == run.run_id,
    )
    if (await session.scalars(waiting)).one() >= MAX_ASKED:
        told = f"{MAX_ASKED} calls of the run wait for an answer already; ask again once some have one"
        raise Conflict("too_many_asked", told)


async def _told(session: AsyncSession, run: Run, number: int, actor: Actor) -> dict[str, Any]:
    """Tell of a call as it stands now, and block a run that makes the same failing call over and over.

    People are told, once for a run until they resolve it, of one that was made though it was not allowed.
    """
    call = _shown(await _read(session, run.workspace_id, run.run_id, number))
    data = {name: call[name] for name in ("number", "tool", "digest", "risk", "reason", "decision_id", "duration_ms")}
    data |= {"agent_id": run.agent_id, "mission_id": run.mission_id, "error": (call["error"] or "")[:SAME_ERROR_CHARS]}
    about = Subject(kind="run", id=run.run_id)
    data["made"] = call["ended_at"] is not None
    await events.append(session, run.workspace_id, EventType(f"tool_call.{call['status']}"), about, actor, data)
    if data["made"] and call["status"] in (CallStatus.PENDING, CallStatus.DENIED):
        who = f"{run.agent_id or run.created_by} made call {call['number']}, {call['tool']}, without an approval"
        await alerts.sound(session, run.workspace_id, actor, NewAlert(AlertKind.UNAPPROVED_CALL, about, who, data))
    if call["error"] and run.status is None and is_loop(await _errors(session, run, call["tool"])):
        await runs.block_loop(session, run, call["tool"], actor)
    return call


async def _errors(session: AsyncSession, run: Run, tool: str) -> list[str | None]:
    """Read how a tool's latest calls went, the newest first, in whatever case it was named; only those made count."""
    statement = (
        select(ToolCall.error)
        .where(ToolCall.workspace_id == run.workspace_id, ToolCall.run_id == run.run_id)
        .where(func.lower(ToolCall.tool) == func.lower(tool))
        .where(col(ToolCall.ended_at).is_not(None))
        .order_by(col(ToolCall.number).desc())
        .limit(MAX_SAME_RETRIES + 2)
    )
    return list(await session.scalars(statement))


async def _next_number(session: AsyncSession, run: Run, cost_id: str | None) -> int:
    """Give the number of the next call of a run, which is locked, if that has the cost that the call names."""
    values = {"workspace_id": run.workspace_id, "run_id": run.run_id, "cost_id": cost_id}
    [row] = await within(session)(_NEXT, values)
    if not row["has_cost"]:
        raise _no_cost(run, cost_id)
    return int(row["number"])


_NEXT = f"""
    SELECT COALESCE(max(number), 0) + 1 AS number, {_HAS_COST} AS has_cost
    FROM tool_call WHERE workspace_id = %(workspace_id)s AND run_id = %(run_id)s
"""  # noqa: S608  # as above


def _no_cost(run: Run, cost_id: str | None) -> NotFound:
    told = f"the run has no cost {cost_id!r}: report it first (`POST /runs/{run.run_id}/costs`), or name none"
    return NotFound("cost_not_found", told)


def _not_to_be_ended(call: Mapping[str, Any]) -> Conflict:
    """Say why nothing can be told of a call."""
    if call["ended_at"] is not None:
        return Conflict("tool_call_ended", "how it went was told already, and stays so; `GET` the call to see it")
    if call["status"] == CallStatus.PENDING:
        return Conflict("tool_call_pending", "somebody must approve it first", decision_id=call["decision_id"])
    return Conflict("tool_call_denied", f"it may not be made; {call['reason']}")


def _place(run: Run, number: int) -> dict[str, Any]:
    return {"run_id": run.run_id, "number": number}


def _key(run: Run, number: int) -> dict[str, Any]:
    return {"workspace_id": run.workspace_id, **_place(run, number)}
