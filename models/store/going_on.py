"""Runs that a limit blocked go on once it holds no more, unless another limit is closed: then that one holds them."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.budgets import LOOP
from models.domain.limits import why_held
from models.store.database import mark_events, within
from models.store.events import Actor
from models.store.ledger_statements import DAY, MONTH, NEXT_CLOSED

AT_ONCE = 500
"""Runs that go on, or questions and alerts that are taken back, in one short transaction; the others' turn comes with
the reconciler's passes, or, of a run, with its own next call."""
IS_BLOCKED = f"r.status = 'blocked' AND r.ended_at IS NULL AND r.blocked_by <> '{LOOP}'"
_SUBJECT = """CASE r.blocked_by WHEN 'run' THEN r.run_id WHEN 'ticket' THEN r.ticket_id
    WHEN 'agent_day' THEN r.agent_id ELSE '' END"""
# A young table has no statistics, and the planner would rather compare each run with all counters of the workspace.
_IS_OPEN = f"""EXISTS (SELECT FROM budget b WHERE b.workspace_id = r.workspace_id AND b.scope = r.blocked_by
    AND b.subject = {_SUBJECT} AND b.period = r.blocked_period AND NOT b.crossed OFFSET 0)"""
_IS_OVER = f"(r.blocked_period NOT IN ('', {DAY}, {MONTH}) OR {_IS_OPEN})"
_FOUND = f"SELECT r.workspace_id, r.run_id, r.mission_id, h.* FROM run r LEFT JOIN {NEXT_CLOSED} h ON true"  # noqa: S608  # constants of this module, no input

OPENED = f"""
    {_FOUND} WHERE r.workspace_id = %(workspace_id)s AND {IS_BLOCKED} AND r.blocked_by = %(scope)s
    AND {_IS_OPEN} ORDER BY r.run_id LIMIT {AT_ONCE} FOR UPDATE OF r
"""
"""Runs of a workspace that are blocked by limits of one kind which are open now: some of them, where they are many."""
# Runs of which somebody spends at this moment see to it themselves. Those that were moved to another limit while that
# one was being opened are found, too.
OVER = f"""
    {_FOUND} WHERE {IS_BLOCKED} AND {_IS_OVER} LIMIT {AT_ONCE} FOR UPDATE OF r SKIP LOCKED
"""
"""Runs of all workspaces (system door) that are blocked by a window that is over, or by a limit that is open."""
ONE = f"""
    {_FOUND} WHERE r.workspace_id = %(workspace_id)s AND r.run_id = %(run_id)s AND {IS_BLOCKED} AND {_IS_OVER}
    FOR UPDATE OF r
"""
"""A run that is so blocked, and does something before its turn comes."""
_HELD = f"""
    SELECT r.workspace_id, r.run_id, r.blocked_by AS scope, r.blocked_period AS period FROM run r
    WHERE r.workspace_id = %(workspace_id)s AND {IS_BLOCKED} AND r.blocked_by = %(scope)s
    AND r.blocked_period = %(period)s AND {_SUBJECT} = %(subject)s AND r.reason IS DISTINCT FROM %(why)s
    ORDER BY r.run_id LIMIT {AT_ONCE} FOR UPDATE OF r
"""  # noqa: S608  # as above


async def go_on(session: AsyncSession, which: str, values: Mapping[str, Any], actor: Actor) -> int:
    """Let those runs go on that nothing else holds; the others are blocked by the next of their limits, and told so.

    How many there were.
    """
    found = await within(session)(which, values)
    await _move(session, found, [why_held(run) if run["scope"] else None for run in found], actor)
    return len(found)


async def say_why(session: AsyncSession, limit: Mapping[str, Any], actor: Actor) -> None:
    """Tell runs that a limit holds, some of them where they are many, why it goes on doing so."""
    why = why_held(limit)
    found = await within(session)(_HELD, {**limit, "why": why})
    await _move(session, found, [why] * len(found), actor)


async def _move(
    session: AsyncSession, found: Sequence[Mapping[str, Any]], reasons: Sequence[str | None], actor: Actor
) -> None:
    if not found:
        return
    moved: dict[str, list[Any]] = {
        "workspace_ids": [run["workspace_id"] for run in found],
        "run_ids": [run["run_id"] for run in found],
        "scopes": [run["scope"] for run in found],
        "periods": [run["period"] for run in found],
        "reasons": list(reasons),
    }
    await within(session)(_MOVE, moved | {"actor": actor.name, "correlation_id": actor.correlation_id})
    mark_events(session)


_MOVE = """
    WITH moved AS (
        UPDATE run r SET status = CASE WHEN t.scope IS NOT NULL THEN r.status END, reason = t.reason,
        blocked_by = t.scope, blocked_period = t.period
        FROM unnest(CAST(%(workspace_ids)s AS text[]), CAST(%(run_ids)s AS text[]), CAST(%(scopes)s AS text[]),
        CAST(%(periods)s AS text[]), CAST(%(reasons)s AS text[])) AS t (workspace_id, run_id, scope, period, reason)
        WHERE r.workspace_id = t.workspace_id AND r.run_id = t.run_id RETURNING r.*
    )
    INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
    SELECT workspace_id, CASE WHEN status IS NULL THEN 'run.unblocked' ELSE 'run.blocked' END, 'run', run_id, %(actor)s,
    %(correlation_id)s, CASE WHEN status IS NULL THEN '{}' ELSE
    jsonb_build_object('reason', reason, 'by', blocked_by, 'mission_id', mission_id) END FROM moved
"""
