"""What the calls of a run cost: priced by the list of their day, allowed by the policy, paid once from the ledger."""

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any

from fastapi import Depends, Request

from api.auth import Call
from api.blocks import Blocks, ToMissions
from api.services import Services, services
from api.unpriced import Unpriced, UnpricedModels
from api.views import run_view
from models.configuration import load_prices
from models.domain.prices import Charge, charge
from models.schemas.runs import CostReport, CostView, Reservation, RunView, Settlement
from models.store import ledger, runs
from models.store.ledger import Place


@dataclass(frozen=True)
class Costs:
    """The ledger, as far as the caller may write it: of their workspace, an agent of its own runs.

    Each cost is written once under its id; who says it again must say the same.
    """

    services: Services
    call: Call
    missions: Blocks
    unpriced: Unpriced

    async def pay(self, run_id: str, cost_id: str, report: CostReport) -> CostView:
        """Pay for a call that was made."""
        run, place = await self._open_run(run_id), self._place(run_id, cost_id)
        priced = self._price(report, run["now"].date())
        await self.unpriced.note(run, priced, cost_id)
        async with self.missions.hear_of_refusal():
            is_news = await ledger.spend(self.services.db, place, priced, self.call.actor)
        if not is_news:
            await ledger.require_paid(self.services.db, place, priced)
        return await self._view(place, priced)

    async def reserve(self, run_id: str, cost_id: str, wanted: Reservation) -> CostView:
        """Promise what a call may cost, before it is made."""
        async with self.services.db.workspace(self.call.workspace_id) as session:
            run = await runs.require_going_on(session, self.call.workspace_id, run_id, self.call.principal.own_agent)
        priced, place = self._price(wanted, run["now"].date()), self._place(run_id, cost_id)
        await self.unpriced.require(run, priced)
        async with self.missions.hear_of_refusal():
            is_news = await ledger.reserve(self.services.db, place, priced, self.call.actor, wanted.lasts)
        if not is_news:
            await ledger.require_held(self.services.db, place, priced)
        return await self._view(place, priced)

    async def settle(self, run_id: str, cost_id: str, report: Settlement) -> CostView:
        """Pay what a reserved call did cost, by the model and on the day for which it was reserved."""
        run, place = await self._open_run(run_id), self._place(run_id, cost_id)
        model, day = await ledger.reserved(self.services.db, place)
        priced = self._price(report.model_copy(update={"model": report.model or model}), day)
        if not await ledger.settle(self.services.db, place, priced, self.call.actor):
            await ledger.require_paid(self.services.db, place, priced)
        await self.unpriced.note(run, priced, cost_id)
        return await self._view(place, priced)

    async def release(self, run_id: str, cost_id: str) -> RunView:
        """Give back what was reserved for a call that was not made."""
        await self._open_run(run_id)
        place = self._place(run_id, cost_id)
        if not await ledger.release(self.services.db, place, self.call.actor):
            await ledger.require_paid(self.services.db, place, None)
        return await self._run(run_id)

    def _place(self, run_id: str, cost_id: str) -> Place:
        return Place(self.call.workspace_id, run_id, cost_id)

    def _price(self, report: CostReport, day: date) -> Charge:
        """Price a call by the day when it was made, as the database has it."""
        return charge(load_prices(self.services.settings.config_dir), report.usage, day)

    async def _open_run(self, run_id: str) -> dict[str, Any]:
        async with self.services.db.workspace(self.call.workspace_id) as session:
            return await runs.require_open_to(session, self.call.workspace_id, run_id, self.call.principal.own_agent)

    async def _run(self, run_id: str) -> RunView:
        async with self.services.db.workspace(self.call.workspace_id) as session:
            return await run_view(session, self.call.workspace_id, run_id, self.call.principal.own_agent)

    async def _view(self, place: Place, priced: Charge) -> CostView:
        run = await self._run(place.run_id)
        return CostView(cost_id=place.cost_id, usd=priced.usd, unpriced=priced.unpriced, run=run)


async def _costs(request: Request, missions: ToMissions, unpriced: UnpricedModels) -> Costs:
    return Costs(services(request), request.state.call, missions, unpriced)


ToLedger = Annotated[Costs, Depends(_costs)]
"""For what calls cost."""
