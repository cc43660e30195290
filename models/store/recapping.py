"""Another cap for counters that something may still be spent of; those of what is over keep the one that held then."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.budgets import Key, Owner, Scope
from models.domain.caps import ZERO, Caps, Change, Counter, meant
from models.domain.policy import Level
from models.store import going_on
from models.store.database import within
from models.store.events import Actor
from models.store.ledger_statements import DAY, MONTH

Opened = Sequence[tuple[str, str]]
"""Limits of one kind that were closed and are open now: each by its subject and its period."""

_HERE = "b.workspace_id = %(workspace_id)s AND b.scope = %(scope)s"
_RUNNING = "FROM run r WHERE r.workspace_id = %(workspace_id)s AND r.ended_at IS NULL"
_LASTS = {
    Scope.RUN: f"b.subject = ANY(ARRAY(SELECT r.run_id {_RUNNING}))",  # found once, however young the table is
    Scope.TICKET: f"(b.crossed OR b.subject IN (SELECT r.ticket_id {_RUNNING}))",
    Scope.AGENT_DAY: f"b.period >= {DAY}",
    Scope.WORKSPACE_MONTH: f"b.period >= {MONTH}",
}
"""Of which counters something may still be spent. A ticket on which nothing runs is brought to its cap as soon as it
does."""
_ONE = "b.subject = %(name)s"
_OF_AGENT, _OF_KIND = "b.agent_id = %(name)s AND {lasts}", "b.kind = %(name)s AND {lasts}"
_OWNED = {
    Owner.RUN: _ONE,
    Owner.TICKET: _ONE,
    Owner.AGENT: _OF_AGENT,
    Owner.LEVEL: _OF_KIND,
    Owner.CATEGORY: _OF_KIND,
    Owner.WORKSPACE: "{lasts}",
}


async def touched(session: AsyncSession, workspace_id: str, key: Key) -> list[dict[str, Any]]:
    """Lock the counters that a cap may be about, and read them."""
    which = _OWNED[key.owner].format(lasts=_LASTS[key.scope])
    statement = f"SELECT b.* FROM budget b WHERE {_HERE} AND {which} ORDER BY b.subject, b.period FOR NO KEY UPDATE"  # noqa: S608  # constants of this module, no input
    known = {"workspace_id": workspace_id, "scope": key.scope.value, "name": key.name}
    return await within(session)(statement, known)


async def apply(
    session: AsyncSession,
    workspace_id: str,
    scope: Scope,
    counters: Iterable[Counter],
    before: Caps,
    after: Caps,
    actor: Actor,
) -> Opened:
    """Bring counters to the caps that hold now, and let runs go on where that opens a limit; whose those are."""
    changes = [Change(each, meant(before, each), meant(after, each)) for each in counters]
    return await _recap(session, workspace_id, scope, changes, actor)


async def relevel(
    session: AsyncSession, workspace_id: str, agent: str, level: Level, caps: Caps, actor: Actor
) -> Opened:
    """Bring the day of an agent to the cap of its new level; the agent, where that opens its limit."""
    counters = await touched(session, workspace_id, Key(Scope.AGENT_DAY, Owner.AGENT, agent))
    await within(session)(_RELEVEL, {"workspace_id": workspace_id, "agent": agent, "level": level.value})
    changes = [Change(each, meant(caps, each), meant(caps, {**each, "kind": level})) for each in counters]
    return await _recap(session, workspace_id, Scope.AGENT_DAY, changes, actor)


async def renew(session: AsyncSession, workspace_id: str, key: Key, caps: Caps, actor: Actor) -> Opened:
    """Bring one counter to the cap that holds by now; whose it is, where that opens its limit."""
    found = await touched(session, workspace_id, key)
    return await apply(session, workspace_id, key.scope, found, caps, caps, actor)


async def reopen(
    session: AsyncSession,
    workspace_id: str,
    scope: Scope,
    counters: Iterable[Counter],
    caps: Caps,
    taken: Decimal,
    actor: Actor,
) -> Opened:
    """Open limits that were spent up until something was taken off, as if just raised; whose those are.

    What was closed with something left stays closed: that too little was left has not changed.
    """
    changes = [Change(each, ZERO, meant(caps, each)) for each in counters]
    opened = [each for each in changes if each.is_freed(taken)]
    return await _recap(session, workspace_id, scope, opened, actor)


async def _recap(
    session: AsyncSession, workspace_id: str, scope: Scope, changes: Sequence[Change], actor: Actor
) -> Opened:
    changed = [each for each in changes if each.is_one]
    if not changed:  # as nearly always when a run starts on a ticket
        return ()
    ask, known = within(session), {"workspace_id": workspace_id, "scope": scope.value}
    rows: dict[str, list[Any]] = {name: [] for name in ("subject", "period", "usd", "tokens", "crossed")}
    opened: list[tuple[str, str]] = []
    for each in changed:
        counter, (cap, crossed) = each.counter, each.recapped
        values = (counter["subject"], counter["period"], cap.usd, cap.tokens, crossed)
        for name, value in zip(rows, values, strict=True):
            rows[name].append(value)
        if counter["crossed"] and not crossed:
            opened.append((counter["subject"], counter["period"]))
    await ask(_RECAP, known | rows)
    if opened:
        await going_on.go_on(session, going_on.OPENED, known, actor)
    return opened


_RELEVEL = f"""
    UPDATE budget b SET kind = %(level)s WHERE b.workspace_id = %(workspace_id)s AND b.scope = 'agent_day'
    AND b.subject = %(agent)s AND {_LASTS[Scope.AGENT_DAY]}
"""  # noqa: S608  # as above
_RECAP = """
    UPDATE budget b SET cap_usd = t.usd, cap_tokens = t.tokens, crossed = t.crossed,
    denied = CASE WHEN t.crossed THEN b.denied END
    FROM unnest(CAST(%(subject)s AS text[]), CAST(%(period)s AS text[]), CAST(%(usd)s AS numeric[]),
    CAST(%(tokens)s AS bigint[]), CAST(%(crossed)s AS boolean[])) AS t (subject, period, usd, tokens, crossed)
    WHERE b.workspace_id = %(workspace_id)s AND b.scope = %(scope)s AND b.subject = t.subject AND b.period = t.period
    AND (b.cap_usd, b.cap_tokens, b.crossed) IS DISTINCT FROM (t.usd, t.tokens, t.crossed)
"""
