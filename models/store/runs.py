"""Runs: executions with a start, an end and what they took."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import null
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from models.domain.agents import Latitude
from models.domain.alerts import AlertKind
from models.domain.budgets import (
    LOOP,
    MAX_OPEN_RUNS,
    MAX_SAME_RETRIES,
    Category,
    RunStatus,
    category_differs,
    category_of,
)
from models.domain.errors import Conflict, NotFound
from models.domain.events import EventType, Subject
from models.domain.limits import Hit
from models.domain.names import POLICY
from models.domain.policy import Level
from models.domain.refusals import missing, mission_ended, run_blocked, run_ended
from models.domain.states import DecisionKind
from models.domain.system_acts import require_may_set
from models.schemas.pagination import PageRequest
from models.schemas.runs import RunCreate, RunState
from models.store import agents, alerts, budgets, events, going_on, governance, ledger, lists, pagination
from models.store.alerts import NewAlert
from models.store.database import within
from models.store.events import Actor
from models.store.ledger_statements import LOCK
from models.store.pagination import Rows
from models.tables.agents import AgentRow
from models.tables.budgets import Run
from models.tables.missions import Mission

GRACE, LAST_WORDS = timedelta(minutes=15), timedelta(minutes=2)
"""After the end of its mission a run may yet pay for what it had reserved; one that holds nothing may tell how it went,
and what it has paid already, counted from the last that it paid or gave back."""


async def start(
    session: AsyncSession, workspace_id: str, new: RunCreate, actor: Actor, *, by_agent: bool = False
) -> str:
    """Start an execution; one that a limit leaves nothing is blocked at once (BUDG-09). Its id.

    Raises:
        Conflict: `too_many_runs`, `mission_ended`, `category_differs`.
        NotFound: `mission_not_found`.
        NotPermitted: `own_runs_only`, an agent gives a ticket its category.
    """
    if new.mission_id:
        await _require_mission(session, workspace_id, new.mission_id)
    run_id = f"run_{uuid4().hex}"
    agent = await _agent(session, workspace_id, new.agent_id)
    level = new.level or (agent.level if agent else Level.INTERN if new.agent_id else None)
    known = await _category(session, workspace_id, new.ticket_id) if new.ticket_id else None
    category = category_of(new.category, known, may_say=not by_agent) or (Category.DEFAULT if new.ticket_id else None)
    own = {"workspace_id": workspace_id, "run_id": run_id, "level": level, "category": category}
    named = new.model_dump(mode="json", include={"agent_id", "ticket_id", "mission_id"})
    named["agent_id"] = agent.name if agent else new.agent_id
    await _require_room(session, workspace_id, named["agent_id"] or actor.name)
    await session.execute(insert(Run).values(**own, **named, created_by=actor.name))
    said = named | ({"category": new.category} if new.ticket_id and new.category else {})
    await _tell(session, workspace_id, run_id, EventType.RUN_STARTED, actor, said)
    await budgets.prepare(session, workspace_id, run_id)
    await within(session)(LOCK, _key(workspace_id, run_id))
    if new.ticket_id:
        await _agree(session, workspace_id, run_id, new)
        await budgets.renew_ticket(session, workspace_id, new.ticket_id, actor)
    if limit := await budgets.spent_up(session, workspace_id, run_id):
        await budgets.contain(session, Hit(run_id, limit), actor)
    return run_id


async def _category(session: AsyncSession, workspace_id: str, ticket_id: str) -> Category | None:
    """Read a ticket's category, which its counter has."""
    found = await within(session)(_CATEGORY, {"workspace_id": workspace_id, "ticket_id": ticket_id})
    return Category(found[0]["kind"]) if found else None


_CATEGORY = """
    SELECT kind FROM budget
    WHERE workspace_id = %(workspace_id)s AND scope = 'ticket' AND subject = %(ticket_id)s AND period = ''
"""


async def _agree(session: AsyncSession, workspace_id: str, run_id: str, new: RunCreate) -> None:
    """Give a ticket without a category the run's, and the run that of its ticket: another may have come first.

    One whose limit was met keeps its cap, which is an admin's to raise.
    """
    values = {**_key(workspace_id, run_id), "ticket_id": new.ticket_id, "category": new.category}
    if new.category:
        await within(session)(_SAY, values)
    found = await within(session)(_AGREE, values)
    if found and new.category:
        raise category_differs(Category(found[0]["category"]))


_SAY = """
    WITH said AS (
        UPDATE budget SET kind = %(category)s WHERE workspace_id = %(workspace_id)s AND scope = 'ticket'
        AND subject = %(ticket_id)s AND period = '' AND kind = 'default' AND kind <> %(category)s
        AND NOT crossed AND crossings = 0 RETURNING 1
    )
    UPDATE run SET category = %(category)s WHERE workspace_id = %(workspace_id)s AND ticket_id = %(ticket_id)s
    AND category = 'default' AND EXISTS (SELECT FROM said)
"""
_AGREE = f"""
    UPDATE run SET category = c.kind FROM ({_CATEGORY}) c
    WHERE workspace_id = %(workspace_id)s AND run_id = %(run_id)s AND category <> c.kind RETURNING category
"""  # noqa: S608  # a constant of this module, no input


async def _require_room(session: AsyncSession, workspace_id: str, whose: str) -> None:
    """Bound what is open: another cap is met by all runs that go on, at once."""
    [found] = await within(session)(_OPEN, {"workspace_id": workspace_id, "whose": whose, "most": MAX_OPEN_RUNS})
    if found["number"] >= MAX_OPEN_RUNS:
        ends = "end those that are over (`POST /runs/{run_id}/end`; `GET /runs` lists them)"
        raise Conflict("too_many_runs", f"{whose!r} has {MAX_OPEN_RUNS} open runs; {ends}")


_OPEN = """
    SELECT count(*) AS number FROM (
        SELECT FROM run WHERE workspace_id = %(workspace_id)s
        AND (agent_id = %(whose)s OR (agent_id IS NULL AND created_by = %(whose)s))
        AND ended_at IS NULL AND mission_id IS DISTINCT FROM run_id LIMIT %(most)s
    ) r
"""


async def _require_mission(session: AsyncSession, workspace_id: str, mission_id: str) -> None:
    mission = await session.get(Mission, (workspace_id, mission_id))
    if mission is None:
        raise missing("mission", mission_id)
    if mission.ended_at is not None:
        raise mission_ended()


async def _agent(session: AsyncSession, workspace_id: str, agent: str | None) -> AgentRow | None:
    """Find who runs, by name or id; a run may also be of one that never registered."""
    if agent is None:
        return None
    with suppress(NotFound):
        return await agents.require(session, workspace_id, agent)
    return None


async def end(
    session: AsyncSession, workspace_id: str, run_id: str, status: RunStatus, reason: str | None, actor: Actor
) -> None:
    """End an execution once, and give back what it holds.

    Raises:
        Conflict: `run_ended`; `run_blocked`, what a limit or a loop holds did not end well.
    """
    require_may_set(actor.name, status)
    await ledger.release_all(session, workspace_id, run_id, actor)
    values = {**_key(workspace_id, run_id), "status": status.value, "reason": reason}
    ended = await within(session)(_END, values)
    if not ended and await going_on.go_on(session, going_on.ONE, values, actor):
        ended = await within(session)(_END, values)
    if not ended:
        known = await find(session, workspace_id, run_id)
        raise run_blocked(known["reason"], known["blocked_by"]) if known["ended_at"] is None else run_ended()
    data = {"status": status.value, "reason": reason, "agent_id": ended[0]["agent_id"]}
    await _tell(session, workspace_id, run_id, EventType.RUN_ENDED, actor, data)
    await alerts.resolve_all(session, workspace_id, AlertKind.LOOP, [run_id], actor)
    await close(session, workspace_id, run_id, Actor(POLICY, actor.correlation_id))


async def close(session: AsyncSession, workspace_id: str, run_id: str, actor: Actor) -> None:
    """Take back what is asked about a run that has ended; what is being answered now is left to the reconciler."""
    await governance.withdraw_about(session, workspace_id, DecisionKind.TOOL_ACTION, [run_id], actor)
    await budgets.close_run(session, workspace_id, run_id, actor)


_END = """
    UPDATE run SET status = %(status)s, reason = COALESCE(%(reason)s, reason), ended_at = mc_now()
    WHERE workspace_id = %(workspace_id)s AND run_id = %(run_id)s AND ended_at IS NULL
    AND NOT (status IS NOT DISTINCT FROM 'blocked' AND %(status)s = 'success') RETURNING agent_id
"""


async def orphans(session: AsyncSession, limit: int) -> list[tuple[str, str, str]]:
    """List runs that nobody will end (system door), each with why: of agents that have ended, or of missions."""
    rows = await within(session)(_ORPHANS, {"limit": limit, "grace": GRACE, "words": LAST_WORDS})
    return [(row["workspace_id"], row["run_id"], row["why"]) for row in rows]


# A mission's own run is ended with it. Those that cannot be ended must not stand before the others in every pass.
_ORPHANS = """
    SELECT r.workspace_id, r.run_id,
    CASE WHEN a.name IS NULL THEN 'its mission has ended' ELSE 'its agent was deactivated' END AS why
    FROM run r
    LEFT JOIN agent a ON a.workspace_id = r.workspace_id AND a.name = r.agent_id AND a.registration = 'deactivated'
    LEFT JOIN mission m ON m.workspace_id = r.workspace_id AND m.mission_id = r.mission_id
    AND m.mission_id <> r.run_id AND m.ended_at IS NOT NULL
    LEFT JOIN budget b ON b.workspace_id = r.workspace_id AND b.scope = 'run' AND b.subject = r.run_id AND b.period = ''
    WHERE r.ended_at IS NULL AND (a.name IS NOT NULL OR CASE WHEN COALESCE(b.reservations, 0) > 0
    THEN m.ended_at < mc_now() - CAST(%(grace)s AS interval)
    ELSE m.ended_at IS NOT NULL AND GREATEST(m.ended_at, b.finished_at) < mc_now() - CAST(%(words)s AS interval) END)
    ORDER BY random() LIMIT %(limit)s
"""


async def find(session: AsyncSession, workspace_id: str, run_id: str, agent: str | None = None) -> dict[str, Any]:
    """Read an execution with its resources, as of now; only `agent`'s own, where one is given."""
    found = await within(session)(_FIND, _key(workspace_id, run_id))
    if not found or (agent is not None and found[0]["agent_id"] != agent):
        raise missing("run", run_id)
    return found[0]


async def require_open_to(session: AsyncSession, workspace_id: str, run_id: str, agent: str | None) -> dict[str, Any]:
    """Read an execution that its caller may write to; raises `Conflict` (`run_of_mission`) for a mission's own."""
    run = await find(session, workspace_id, run_id, agent)
    if run["run_id"] == run["mission_id"]:
        hint = "start a run with its `mission_id` for what you spend on it"
        raise Conflict("run_of_mission", f"this run is the mission's own, which writes it itself; {hint}")
    return run


async def require_going_on(session: AsyncSession, workspace_id: str, run_id: str, agent: str | None) -> dict[str, Any]:
    """Read an execution that its caller may go on with: with an agent's, others only as far as the agent itself might.

    Raises `Conflict` (`run_of_mission`) for a mission's own.
    """
    run = await require_open_to(session, workspace_id, run_id, agent)
    if agent is None and run["agent_id"] is not None:
        await agents.require_going(session, workspace_id, run["agent_id"], Latitude.FINISH)
    return run


_FIND = """
    SELECT r.*, COALESCE(b.settled_tokens, 0) AS tokens, COALESCE(b.calls, 0) AS calls,
    COALESCE(b.settled_usd, 0) AS usd, COALESCE(b.reserved_usd, 0) AS reserved_usd, b.cap_usd, b.cap_tokens,
    mc_now() AS now
    FROM run r LEFT JOIN budget b
    ON b.workspace_id = r.workspace_id AND b.scope = 'run' AND b.subject = r.run_id AND b.period = ''
    WHERE r.workspace_id = %(workspace_id)s AND r.run_id = ANY(%(run_ids)s)
"""


async def list_page(
    session: AsyncSession, workspace_id: str, filters: Mapping[str, object], page: PageRequest
) -> Rows[dict[str, Any]]:
    """Read one page of executions with their resources."""
    filters = {**filters, "agent_id": await agents.name_of(session, workspace_id, filters.get("agent_id"))}
    if filters.get("status") == RunState.RUNNING:
        filters["status"] = null()
    keys = (col(Run.started_at), col(Run.run_id))
    found = await lists.fetch(session, Run, workspace_id, filters, keys, page)
    ids = [run.run_id for run in found.rows]
    rows = {row["run_id"]: row for row in await within(session)(_FIND, {"workspace_id": workspace_id, "run_ids": ids})}
    return pagination.Rows([rows[run_id] for run_id in ids], found.next_cursor)


async def block_loop(session: AsyncSession, run: Run, tool: str, actor: Actor) -> None:
    """Stop a run that goes on making the same failing call."""
    said = f"{tool} was tried again more than {MAX_SAME_RETRIES} times with the same error"
    values = {"workspace_id": run.workspace_id, "run_id": run.run_id, "reason": said, "by": LOOP}
    await within(session)(_BLOCK, values)
    data = {"reason": said, "by": LOOP, "mission_id": run.mission_id, "agent_id": run.agent_id}
    await _tell(session, run.workspace_id, run.run_id, EventType.RUN_BLOCKED, actor, data)
    about = Subject(kind="run", id=run.run_id)
    loop = NewAlert(AlertKind.LOOP, about, said, {"tool": tool, **data})
    await alerts.sound(session, run.workspace_id, actor, loop)


_BLOCK = """
    UPDATE run SET status = 'blocked', reason = %(reason)s, blocked_by = %(by)s
    WHERE workspace_id = %(workspace_id)s AND run_id = %(run_id)s
"""


async def lock_open(
    session: AsyncSession, workspace_id: str, run_id: str, actor: Actor, *, also_blocked: bool = False
) -> Run:
    """Take a run that goes on, or may by now, so that nothing else happens to it until the transaction ends.

    Raises:
        NotFound: `run_not_found`.
        Conflict: `run_ended`, `run_blocked`.
    """
    run = await session.get(Run, (workspace_id, run_id), with_for_update=True, populate_existing=True)
    if run is None:
        raise missing("run", run_id)
    if run.ended_at is not None:
        raise run_ended()
    if run.status is not None and await going_on.go_on(session, going_on.ONE, _key(workspace_id, run_id), actor):
        await session.refresh(run)
    if run.status is not None and not also_blocked:
        raise run_blocked(run.reason, run.blocked_by)
    return run


def _key(workspace_id: str, run_id: str) -> dict[str, Any]:
    """Name a run, alone and as the only one of a list."""
    return {"workspace_id": workspace_id, "run_id": run_id, "run_ids": [run_id]}


async def _tell(
    session: AsyncSession, workspace_id: str, run_id: str, kind: EventType, actor: Actor, data: dict[str, Any]
) -> None:
    await events.append(session, workspace_id, kind, Subject(kind="run", id=run_id), actor, data)
