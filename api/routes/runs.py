"""Runs: executions that cost something, what they reserve and what they pay (BUDG-10, ACTIVITY-02)."""

from datetime import date
from typing import Annotated, Any

from fastapi import Depends, Query, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth import Call
from api.blocks import ToMissions, told
from api.deps import Admin, AppSettings, Db, OnlyOnce, Pagination, Reader, Reporter, Settler, Spender
from api.missions import require_own
from api.routing import router
from api.unpriced import UnpricedModels
from api.views import page_of
from models.configuration import load_prices
from models.contracts.missions import Named
from models.domain.agents import Latitude
from models.domain.budgets import require_level
from models.domain.errors import NotPermitted
from models.domain.policy import Level
from models.domain.prices import Charge, charge
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
from models.settings import Settings
from models.store import agents, corrections, ledger, runs
from models.store.database import Database
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
        return await _view(session, call, run_id)

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
        return Success(data=await _view(session, call, run_id))


@routes.post("/runs/{run_id}/end", response_model=Success[RunView])
@routes.patch("/runs/{run_id}", response_model=Success[RunView], name="patch_run")
async def end_run(run_id: str, end: RunEnd, call: Settler, once: OnlyOnce, missions: ToMissions) -> Response:
    """End an execution. What it reserved and did not settle is given back."""

    async def finish(session: AsyncSession) -> RunView:
        await runs.require_open_to(session, call.workspace_id, run_id, call.principal.own_agent)
        await runs.end(session, call.workspace_id, run_id, end.status, end.reason, call.actor)
        return await _view(session, call, run_id)

    return told(await once.commit(finish), missions)


@routes.post("/runs/{run_id}/costs", status_code=201, response_model=Success[CostView])
async def report_cost(
    run_id: str,
    report: CostReport,
    call: Settler,
    db: Db,
    once: OnlyOnce,
    settings: AppSettings,
    missions: ToMissions,
    unpriced: UnpricedModels,
) -> Response:
    """Pay for a call that was made. Where that goes beyond a limit, nothing is paid and the run is blocked."""

    async def pay(key: str) -> CostView:
        run = await _open_run(db, call, run_id)
        priced = _price(report, run["now"].date(), settings)
        await unpriced.note(run, priced, key)
        async with missions.hear_of_refusal():
            is_news = await ledger.spend(db, Place(call.workspace_id, run_id, key), priced, call.actor)
        if not is_news:
            await ledger.require_paid(db, Place(call.workspace_id, run_id, key), priced)
        return await _cost(db, call, run_id, key, priced)

    return told(await once.command(pay), missions)


@routes.post("/runs/{run_id}/reservations", status_code=201, response_model=Success[CostView])
async def reserve_cost(
    run_id: str,
    wanted: Reservation,
    call: Spender,
    db: Db,
    once: OnlyOnce,
    settings: AppSettings,
    missions: ToMissions,
    unpriced: UnpricedModels,
) -> Response:
    """Reserve what a call may cost before it is made; settle or release it by its `cost_id`.

    Where the model has no price, the dearest stands in for it, and the policy may deny the call.
    """

    async def hold(key: str) -> CostView:
        async with db.workspace(call.workspace_id) as session:
            run = await runs.require_going_on(session, call.workspace_id, run_id, call.principal.own_agent)
        priced = _price(wanted, run["now"].date(), settings)
        await unpriced.require(run, priced)
        async with missions.hear_of_refusal():
            place = Place(call.workspace_id, run_id, key)
            is_news = await ledger.reserve(db, place, priced, call.actor, wanted.lasts)
        if not is_news:
            await ledger.require_held(db, place, priced)
        return await _cost(db, call, run_id, key, priced)

    return told(await once.command(hold), missions)


@routes.post("/runs/{run_id}/reservations/{cost_id}/settle", response_model=Success[CostView])
async def settle_cost(
    run_id: str,
    cost_id: str,
    report: Settlement,
    call: Settler,
    db: Db,
    once: OnlyOnce,
    settings: AppSettings,
    missions: ToMissions,
    unpriced: UnpricedModels,
) -> Response:
    """Pay what a reserved call did cost, also where it is more than was reserved.

    It is charged by the price of the day when it was reserved; of the model it was reserved for, where none is named.
    """

    async def pay(_: str) -> CostView:
        run = await _open_run(db, call, run_id)
        place = Place(call.workspace_id, run_id, cost_id)
        model, day = await ledger.reserved(db, place)
        named = report.model_copy(update={"model": report.model or model})
        priced = _price(named, day, settings)
        if not await ledger.settle(db, place, priced, call.actor):
            await ledger.require_paid(db, place, priced)
        await unpriced.note(run, priced, cost_id)
        return await _cost(db, call, run_id, cost_id, priced)

    return told(await once.command(pay), missions)


@routes.post("/runs/{run_id}/reservations/{cost_id}/release", response_model=Success[RunView])
async def release_cost(run_id: str, cost_id: str, call: Settler, db: Db, once: OnlyOnce) -> Response:
    """Give back what was reserved for a call that was not made."""

    async def give_back(_: str) -> RunView:
        async with db.workspace(call.workspace_id) as session:
            await runs.require_open_to(session, call.workspace_id, run_id, call.principal.own_agent)
        place = Place(call.workspace_id, run_id, cost_id)
        if not await ledger.release(db, place, call.actor):
            await ledger.require_paid(db, place, None)
        return await _find(db, call, run_id)

    return await once.command(give_back)


@routes.post("/runs/{run_id}/adjustments", status_code=201, response_model=Success[RunView])
async def adjust_cost(run_id: str, change: Adjustment, call: Admin, once: OnlyOnce, missions: ToMissions) -> Response:
    """Correct what a run paid, with a reason; the ledger keeps what it held before.

    What is taken off a limit that was spent up opens it.
    """

    async def adjust(session: AsyncSession) -> RunView:
        await runs.find(session, call.workspace_id, run_id)
        place = Place(call.workspace_id, run_id, once.key)
        await corrections.adjust(session, place, change.usd, change.reason, call.actor)
        return await _view(session, call, run_id)

    return told(await once.commit(adjust), missions)


def _own(new: RunCreate, named: str | None, call: Call) -> RunCreate:
    """Whose run it is: an agent starts its own, and no agent says itself how far it is trusted."""
    agent = call.principal.own_agent
    if agent is None:
        return new
    if named not in (None, agent) or new.level is not None:
        raise NotPermitted("own_runs_only", "an agent starts runs of its own, and does not choose its level")
    return new.model_copy(update={"agent_id": agent})


async def _view(session: AsyncSession, call: Call, run_id: str, agent: str | None = None) -> RunView:
    return RunView.model_validate(await runs.find(session, call.workspace_id, run_id, agent))


async def _find(db: Database, call: Call, run_id: str) -> RunView:
    async with db.workspace(call.workspace_id) as session:
        return await _view(session, call, run_id, call.principal.own_agent)


async def _open_run(db: Database, call: Call, run_id: str) -> dict[str, Any]:
    async with db.workspace(call.workspace_id) as session:
        return await runs.require_open_to(session, call.workspace_id, run_id, call.principal.own_agent)


def _price(report: CostReport, day: date, settings: Settings) -> Charge:
    """Price a call by the day when it was made, as the database has it."""
    return charge(load_prices(settings.config_dir), report.usage, day)


async def _cost(db: Database, call: Call, run_id: str, cost_id: str, priced: Charge) -> CostView:
    run = await _find(db, call, run_id)
    return CostView(cost_id=cost_id, usd=priced.usd, unpriced=priced.unpriced, run=run)
