"""Corrections of what was paid: by an admin, with a reason, held by no cap."""

from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.budgets import Scope
from models.domain.caps import owner_names
from models.domain.errors import Conflict
from models.domain.money import written
from models.store import budgets, ledger, recapping
from models.store.database import mark_events, within
from models.store.events import Actor
from models.store.ledger import NOTHING, Place
from models.store.ledger_statements import ADJUST, ADJUSTED, CROSSED, LOCK, PAID


async def adjust(session: AsyncSession, place: Place, usd: Decimal, reason: str, actor: Actor) -> None:
    """Correct what a run paid, by more or less; doing it again changes nothing.

    What is taken off is given back to the day that paid it, and opens limits that were spent up.

    Raises:
        Conflict: `below_zero`, for nobody is paid for running; `cost_adjusted`, by another amount.
    """
    told = {"actor": actor.name, "correlation_id": actor.correlation_id}
    await budgets.prepare(session, place.workspace_id, place.run_id)
    ask = within(session)
    await (ledger.lock_all(session, place.key) if usd < 0 else ask(LOCK, place.key))
    values = place.key | NOTHING | told | {"holder": actor.name, "usd": usd, "reason": reason}
    if not await ask(ADJUST, values):
        if known := await ask(ADJUSTED, place.key):
            return _require_same(place, known[0]["usd"], usd)
        [run] = await ask(PAID, place.key)
        paid = f"the run has paid {written(run['usd'])} USD, and on no day more than what is to be taken off"
        raise Conflict("below_zero", f"{paid}: correct it by less, or in parts")
    mark_events(session)
    if usd < 0:
        await _reopen(session, place, -usd, actor)
    await budgets.renew_questions(session, place.workspace_id, place.run_id, actor)


def _require_same(place: Place, known: Decimal, usd: Decimal) -> None:
    if known != usd:
        told = f"{place.cost_id!r} has corrected the run before, by {written(known)} USD"
        raise Conflict("cost_adjusted", f"{told}: send another Idempotency-Key")


async def _reopen(session: AsyncSession, place: Place, taken: Decimal, actor: Actor) -> None:
    """Open the limits that were spent up and have something left by a correction, and let go on what they held."""
    workspace_id = place.workspace_id
    crossed = await within(session)(CROSSED, place.key)
    caps = await budgets.limits(session, workspace_id, *owner_names(crossed)) if crossed else {}
    for scope in reversed(Scope):  # what blocks a run is the first of its limits that is closed
        counters = [counter for counter in crossed if counter["scope"] == scope]
        opened = await recapping.reopen(session, workspace_id, scope, counters, caps, taken, actor)
        await budgets.tell_open(session, workspace_id, scope, opened, actor)
