"""One part of a cap, changed alone: what is not said stays as it holds now."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.agents import Registration, require_not_ended
from models.domain.budgets import Cap, Category, Key, Owner, Scope, cap_of
from models.domain.policy import Level
from models.store import budgets, recapping
from models.store.database import within
from models.store.events import Actor
from models.store.ledger_statements import ALONE
from models.tables.agents import AgentRow
from models.tables.budgets import Budget, Run


async def change_limit(
    session: AsyncSession, workspace_id: str, key: Key, change: Mapping[str, Any], actor: Actor
) -> None:
    """Change one part of a cap, its `usd` or its `tokens`.

    Who has no cap of their own yet keeps the other part of the one that holds for them, as that of their level.
    """
    await within(session)(ALONE, {"workspace_id": workspace_id})
    owners = await _owners(session, workspace_id, key)
    caps = await budgets.limits(session, workspace_id, *owners.values())
    known, own = cap_of(caps, key.scope, owners), caps.get(key, Cap())
    left = own.usd_of_level and "usd" not in change
    await budgets.set_limit(session, workspace_id, key, replace(known, **change, usd_of_level=left), actor)


async def change_agent(
    session: AsyncSession, agent: AgentRow, level: Level | None, own: Mapping[Scope, Decimal | None], actor: Actor
) -> None:
    """Give an agent's day and runs the caps of a new level, and those dollars of its own that are said, None for none.

    All their counters are taken before any run goes on: whoever ends a run takes them first, too.

    Raises:
        Conflict: `agent_not_approved`, it was rejected or deactivated.
    """
    require_not_ended(agent.name, agent.registration)
    await within(session)(ALONE, {"workspace_id": agent.workspace_id})
    taken = own.keys() | ({Scope.AGENT_DAY} if level else set())
    for scope in Scope:
        if scope in taken:
            await recapping.touched(session, agent.workspace_id, Key(scope, Owner.AGENT, agent.name))
    if level:
        await budgets.follow_level(session, agent, level, actor)
    for scope, usd in own.items():
        key = Key(scope, Owner.AGENT, agent.name)
        if usd is not None:
            await change_limit(session, agent.workspace_id, key, {"usd": usd}, actor)
        else:
            await budgets.set_limit(session, agent.workspace_id, key, await _without(session, agent, key), actor)


async def take_back(session: AsyncSession, agent: AgentRow, actor: Actor) -> None:
    """Take back the caps of its own of an agent that is not let in: somebody else may have its name next."""
    await within(session)(ALONE, {"workspace_id": agent.workspace_id})
    known = await budgets.limits(session, agent.workspace_id, agent.name)
    for scope in Scope:
        if (key := Key(scope, Owner.AGENT, agent.name)) in known:
            await budgets.set_limit(session, agent.workspace_id, key, None, actor)


async def _without(session: AsyncSession, agent: AgentRow, key: Key) -> Cap | None:
    """Give an agent's cap without dollars of its own: its tokens beside any level's dollars, or None without tokens."""
    known = await budgets.limits(session, agent.workspace_id, agent.name)
    of_level = known.get(Key(key.scope, Owner.LEVEL, agent.level), Cap())
    own = known.get(key, of_level)
    return None if own.tokens == of_level.tokens else replace(own, usd=of_level.usd, usd_of_level=True)


async def _owners(session: AsyncSession, workspace_id: str, key: Key) -> dict[Owner, str | None]:
    """Name whose caps hold where this one is not set, beside its own."""
    own: dict[Owner, str | None] = {key.owner: key.name}
    if key.owner is Owner.RUN and (run := await session.get(Run, (workspace_id, key.name))):
        return own | {Owner.AGENT: run.agent_id, Owner.LEVEL: run.level}
    if key.owner is Owner.AGENT:
        known = (AgentRow.workspace_id == workspace_id, AgentRow.name == key.name)
        going = select(AgentRow.level).where(*known, col(AgentRow.registration) != Registration.REJECTED.value)
        return own | {Owner.LEVEL: (await session.scalars(going)).first() or Level.INTERN}
    if key.owner is Owner.TICKET:
        of_it = (Budget.workspace_id == workspace_id, Budget.scope == Scope.TICKET.value, Budget.subject == key.name)
        return own | {
            Owner.CATEGORY: (await session.scalars(select(Budget.kind).where(*of_it))).first() or Category.DEFAULT
        }
    return own
