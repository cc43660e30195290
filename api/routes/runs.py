"""Runs: executions that cost something, what they reserve and what they pay (BUDG-10, ACTIVITY-02)."""

from typing import Annotated

from fastapi import Depends, Query, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth import Call
from api.blocks import ToMissions, told
from api.costs import ToLedger
from api.deps import Admin, Db, OnlyOnce, Pagination, Reader, Reporter, Settler, Spender
from api.missions import require_own
from api.routing import router
from api.views import page_of, run_view
from models.contracts.missions import Named
from models.domain.agents import Latitude
from models.domain.budgets import require_level
from models.domain.errors import NotPermitted
from models.domain.policy import Level
from models.schemas.envelope import Page, Success
from models.schemas.names import TicketName
from models.schemas.pagination import PageRequest
from models.schemas.runs import (
    Adjustment,
    CostReport,
    CostView,
    Reservation,
    RunCreate,
    RunEnd,
    RunState,
    RunView,
    Settlement,
)
from models.store import agents, corrections, runs
from models.store.ledger import Place

routes = router("runs")
Newest = Annotated[PageRequest, Depends(Pagination("started_at", default="-started_at"))]


@routes.post("/runs", status_code=201, response_model=Success[RunView])
async def start_run(new: RunCreate, call: Reporter, once: OnlyOnce, missions: ToMissions) -> Response:
    """Start an execution. Where a limit leaves it nothing, it is blocked from its start.

    An agent that is named must be approved and active, and is trusted no further than its own level. A ticket has the
    first `category` but `default` that is said of it; another is refused (409), and an agent gives it none (403).
    """

    async def start(session: AsyncSession) -> RunView:
        own = _own(new, await agents.name_of(session, call.workspace_id, new.agent_id), call)
        if own.mission_id is not None:
            await require_own(session, own.mission_id, call)
        if call.principal.own_agent is None and own.agent_id is not None:
            known = await agents.require_going(session, call.workspace_id, own.agent_id, Latitude.BEGIN)
            require_level(Level(known.level), own.level)
        by_agent = call.principal.own_agent is not None
        run_id = await runs.start(session, call.workspace_id, own, call.actor, by_agent=by_agent)
        return await run_view(session, call.workspace_id, run_id)

    return told(await once.commit(start), missions)


@routes.get("/runs")
async def list_runs(
    call: Reader,
    db: Db,
    page: Newest,
    status: Annotated[RunState | None, Query(description="`running` finds those that have none yet.")] = None,
    agent_id: Annotated[Named | None, Query(description="By name or id.")] = None,
    ticket_id: TicketName | None = None,
    mission_id: str | None = None,
) -> Success[Page[RunView]]:
    """List executions, the newest first."""
    filters = {"status": status, "agent_id": agent_id, "ticket_id": ticket_id, "mission_id": mission_id}
    async with db.workspace(call.workspace_id) as session:
        return page_of(RunView, await runs.list_page(session, call.workspace_id, filters, page))


@routes.get("/runs/{run_id}")
async def get_run(run_id: str, call: Reader, db: Db) -> Success[RunView]:
    """Show an execution: its start, end, duration and status, and what it took."""
    async with db.workspace(call.workspace_id) as session:
        return Success(data=await run_view(session, call.workspace_id, run_id))


@routes.post("/runs/{run_id}/end", response_model=Success[RunView])
@routes.patch("/runs/{run_id}", response_model=Success[RunView], name="patch_run")
async def end_run(run_id: str, end: RunEnd, call: Settler, once: OnlyOnce, missions: ToMissions) -> Response:
    """End an execution. What it reserved and did not settle is given back."""

    async def finish(session: AsyncSession) -> RunView:
        await runs.require_open_to(session, call.workspace_id, run_id, call.principal.own_agent)
        await runs.end(session, call.workspace_id, run_id, end.status, end.reason, call.actor)
        return await run_view(session, call.workspace_id, run_id)

    return told(await once.commit(finish), missions)


@routes.post("/runs/{run_id}/costs", status_code=201, response_model=Success[CostView])
async def report_cost(
    run_id: str, report: CostReport, call: Settler, once: OnlyOnce, missions: ToMissions, costs: ToLedger
) -> Response:
    """Pay for a call that was made. Where that goes beyond a limit, nothing is paid and the run is blocked."""
    return told(await once.command(lambda key: costs.pay(run_id, key, report)), missions)


@routes.post("/runs/{run_id}/reservations", status_code=201, response_model=Success[CostView])
async def reserve_cost(
    run_id: str, wanted: Reservation, call: Spender, once: OnlyOnce, missions: ToMissions, costs: ToLedger
) -> Response:
    """Reserve what a call may cost before it is made; settle or release it by its `cost_id`.

    Where the model has no price, the dearest stands in for it, and the policy may deny the call.
    """
    return told(await once.command(lambda key: costs.reserve(run_id, key, wanted)), missions)


@routes.post("/runs/{run_id}/reservations/{cost_id}/settle", response_model=Success[CostView])
async def settle_cost(
    run_id: str, cost_id: str, report: Settlement, call: Settler, once: OnlyOnce, missions: ToMissions, costs: ToLedger
) -> Response:
    """Pay what a reserved call did cost, also where it is more than was reserved.

    It is charged by the price of the day when it was reserved; of the model it was reserved for, where none is named.
    """
    return told(await once.command(lambda _: costs.settle(run_id, cost_id, report)), missions)


@routes.post("/runs/{run_id}/reservations/{cost_id}/release", response_model=Success[RunView])
async def release_cost(run_id: str, cost_id: str, call: Settler, once: OnlyOnce, costs: ToLedger) -> Response:
    """Give back what was reserved for a call that was not made."""
    return await once.command(lambda _: costs.release(run_id, cost_id))


@routes.post("/runs/{run_id}/adjustments", status_code=201, response_model=Success[RunView])
async def adjust_cost(run_id: str, change: Adjustment, call: Admin, once: OnlyOnce, missions: ToMissions) -> Response:
    """Correct what a run paid, with a reason; the ledger keeps what it held before.

    What is taken off a limit that was spent up opens it.
    """

    async def adjust(session: AsyncSession) -> RunView:
        await runs.find(session, call.workspace_id, run_id)
        place = Place(call.workspace_id, run_id, once.key)
        await corrections.adjust(session, place, change.usd, change.reason, call.actor)
        return await run_view(session, call.workspace_id, run_id)

    return told(await once.commit(adjust), missions)


def _own(new: RunCreate, named: str | None, call: Call) -> RunCreate:
    """Whose run it is: an agent starts its own, and no agent says itself how far it is trusted."""
    agent = call.principal.own_agent
    if agent is None:
        return new
    if named not in (None, agent) or new.level is not None:
        raise NotPermitted("own_runs_only", "an agent starts runs of its own, and does not choose its level")
    return new.model_copy(update={"agent_id": agent})
