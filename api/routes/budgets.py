"""Limits, what they hold, and what was paid (BUDG-07, BUDG-09, WORKSPACE-03)."""

from dataclasses import replace
from datetime import date
from typing import Annotated

from fastapi import Depends, Query, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.blocks import ToMissions, told
from api.deps import Admin, Db, OnlyOnce, Pagination, Reader
from api.routing import router
from api.views import page_of
from models.contracts.missions import Named
from models.domain.agents import require_not_rejected
from models.domain.budgets import Key, Owner, Scope
from models.domain.errors import NotFound
from models.domain.refusals import require_order
from models.schemas.budgets import Costs, CostSum, CounterView, GroupBy, LimitChange, LimitSet, LimitView, Sum
from models.schemas.envelope import Page, Success
from models.schemas.names import TicketName
from models.schemas.pagination import MAX_OFFSET, PageRequest
from models.store import agents, budgets, caps, costs

routes = router("budgets")
InOrder = Annotated[PageRequest, Depends(Pagination("scope", default="scope"))]
MAX_GROUPS = 1000


@routes.get("/budgets")
async def list_budgets(call: Reader, db: Db, page: InOrder) -> Success[Page[LimitView]]:
    """List the caps that hold: what admins set, and the defaults."""
    async with db.workspace(call.workspace_id) as session:
        return page_of(LimitView, await budgets.views_page(session, call.workspace_id, page))


@routes.put("/budgets", response_model=Success[LimitView])
async def set_budget(new: LimitSet, call: Admin, once: OnlyOnce, missions: ToMissions) -> Response:
    """Set a cap. A higher one lets blocked runs go on at once; a lower one takes back nothing that was promised."""

    async def set_limit(session: AsyncSession) -> LimitView:
        key = await _key(session, call.workspace_id, new.key)
        await budgets.set_limit(session, call.workspace_id, key, new.cap, call.actor)
        return await budgets.view(session, call.workspace_id, key)

    return told(await once.commit(set_limit), missions)


@routes.patch("/budgets", response_model=Success[LimitView])
async def change_budget(change: LimitChange, call: Admin, once: OnlyOnce, missions: ToMissions) -> Response:
    """Change the dollars of a cap, its tokens, or both; what is left out stays, whoever set it meanwhile."""

    async def change_limit(session: AsyncSession) -> LimitView:
        key = await _key(session, call.workspace_id, change.key)
        await caps.change_limit(session, call.workspace_id, key, change.change, call.actor)
        return await budgets.view(session, call.workspace_id, key)

    return told(await once.commit(change_limit), missions)


async def _key(session: AsyncSession, workspace_id: str, key: Key) -> Key:
    """Find an agent by name or id: nobody else's cap would ever hold."""
    if key.owner is not Owner.AGENT:
        return key
    agent = await agents.require(session, workspace_id, key.name, for_update=True)
    require_not_rejected(agent.name, agent.registration)
    return replace(key, name=agent.name)


@routes.get("/budgets/spending")
async def list_spending(
    call: Reader,
    db: Db,
    page: InOrder,
    scope: Scope | None = None,
    subject: Annotated[Named | None, Query(description="An agent's by name or id.")] = None,
    period: str | None = None,
    crossed: bool | None = None,
) -> Success[Page[CounterView]]:
    """List what runs, tickets, agents' days and the workspace's months have spent and promised, of what they may."""
    filters = {"scope": scope, "subject": subject, "period": period, "crossed": crossed}
    async with db.workspace(call.workspace_id) as session:
        return page_of(CounterView, await budgets.list_page(session, call.workspace_id, filters, page))


@routes.get("/costs")
async def sum_costs(
    call: Reader,
    db: Db,
    group_by: GroupBy = GroupBy.DAY,
    workspace_id: str | None = None,
    agent_id: Annotated[Named | None, Query(description="By name or id.")] = None,
    ticket_id: TicketName | None = None,
    run_id: str | None = None,
    mission_id: str | None = None,
    model: str | None = None,
    since: Annotated[date | None, Query(description="A UTC day, inclusive.")] = None,
    until: Annotated[date | None, Query(description="A UTC day, exclusive.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_GROUPS)] = MAX_GROUPS,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
) -> Success[Costs]:
    """Sum up what was paid; every grouping comes to the same total."""
    if workspace_id not in (None, call.workspace_id):
        told = f"costs are of the workspace of the key, or of the header `X-Workspace`: not of {workspace_id!r}"
        raise NotFound("workspace_not_found", told)
    require_order(since, until)
    filters = {
        "agent_id": agent_id,
        "ticket_id": ticket_id,
        "run_id": run_id,
        "mission_id": mission_id,
        "model": model,
        "since": since.isoformat() if since else None,
        "until": until.isoformat() if until else None,
    }
    async with db.workspace(call.workspace_id) as session:
        rows, total = await costs.sums(session, call.workspace_id, group_by, filters, limit, offset)
    items = [CostSum(**row) for row in rows]
    return Success(data=Costs(group_by=group_by, items=items, total=Sum(**total), groups=total["groups"]))
