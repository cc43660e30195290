"""The ledger: money is reserved before the act and settled after it, within four limits (design section 9).

At every commit what is settled and reserved stays within each cap, but for rows that say that they are an `overrun`: a
call that cost more than it had reserved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.budgets import MAX_RESERVATIONS, Cap
from models.domain.errors import Conflict, MissionControlError, NotFound, Unavailable
from models.domain.limits import Hit, described, exceeded, named
from models.domain.money import written
from models.domain.prices import Charge
from models.domain.refusals import missing, mission_ended, run_blocked, run_ended
from models.store import budgets
from models.store.database import Database, Rows, Step, mark_events, within
from models.store.events import Actor
from models.store.ledger_statements import (
    FINISH,
    LOCK,
    LOCK_HELD,
    LOCK_RUN,
    RESERVE,
    RESERVED,
    SETTLED,
    TOGETHER,
    Reply,
)
from models.store.reservation_statements import HELD, LOCK_ALL, LOCK_OPEN, OVERDUE, RELEASE_ALL

LASTS = timedelta(minutes=15)
"""How long a call may take before its reservation counts as forgotten by a holder that died."""


@dataclass(frozen=True)
class Place:
    """One cost of a run. `cost_id` is its business key: whatever is done under it is done once."""

    workspace_id: str
    run_id: str
    cost_id: str

    @property
    def key(self) -> dict[str, str]:
        """As statements take it."""
        return {"workspace_id": self.workspace_id, "run_id": self.run_id, "cost_id": self.cost_id}


NOTHING: dict[str, Any] = {"model": None, "tokens_in": 0, "tokens_out": 0, "tokens": 0, "calls": 0, "usd": Decimal(0)}
NOTHING |= {"unpriced": False, "reason": None}


async def reserve(db: Database, place: Place, wanted: Charge, actor: Actor, lasts: timedelta = LASTS) -> bool:
    """Promise what a call may cost, before it is made; false when it was promised before.

    Raises:
        Conflict: `budget_exceeded` by the limit that was hit first, and the run is blocked; `budget_reserved` where
            begun calls hold what is left; `too_many_reservations`; `run_blocked`, `run_ended`.
        NotFound: `run_not_found`.
    """
    found = await _spend(db, place, _amounts(wanted, actor) | {"lasts": lasts}, actor)
    return bool(found[0]["reply"] == Reply.GRANTED)


async def reserve_within(
    session: AsyncSession, place: Place, wanted: Charge, actor: Actor
) -> MissionControlError | None:
    """Reserve for as long as it takes, in a transaction that also keeps what a refusal means; the refusal."""
    values = place.key | _amounts(wanted, actor) | {"lasts": None}
    await budgets.prepare(session, place.workspace_id, place.run_id)
    ask = within(session)
    await ask(LOCK, place.key)
    if limit := await budgets.spent_up(session, place.workspace_id, place.run_id):
        await _contain(session, place, limit, values, actor)
        return exceeded(limit)
    [found] = await ask(RESERVE, values)
    if found["reply"] == Reply.OVER:
        await _contain(session, place, found, values, actor)
    if found["goes_on"]:
        mark_events(session)
    return None if found["reply"] in (Reply.GRANTED, Reply.KNOWN) else _refusal(place, found)


async def spend(db: Database, place: Place, paid: Charge, actor: Actor) -> bool:
    """Reserve and settle a call at once, for those who tell of it when it is over; false when it was paid before.

    Raises what `reserve` does.

    It stays open for no moment, however many others are.
    """
    values = place.key | _amounts(paid, actor) | {"lasts": LASTS, "most": None, "kind": "settle", "ready": False}
    found = await _spend(db, place, values, actor, (FINISH, values))
    return await _paid(db, place, values, actor, found)  # what was reserved and released before is not reserved again


async def settle(db: Database, place: Place, paid: Charge, actor: Actor) -> bool:
    """Pay what a reserved call did cost, also where that is more; false when it was paid before.

    Raises:
        NotFound: `reservation_not_found`.
    """
    values = place.key | _amounts(paid, actor) | {"kind": "settle", "ready": False}
    _, found = await db.together(place.workspace_id, (LOCK_HELD, place.key), (FINISH, values))
    return await _paid(db, place, values, actor, found)


async def reserved(db: Database, place: Place) -> tuple[str | None, date]:
    """Tell for which model a call was reserved, if any, and on which day.

    Raises:
        NotFound: `reservation_not_found`.
    """
    rows = await db.alone(place.workspace_id, RESERVED, place.key)
    _require_reserved(rows, place)
    return rows[0]["model"], date.fromisoformat(rows[0]["day"])


async def release(db: Database, place: Place, actor: Actor) -> bool:
    """Give back what was reserved for a call that was not made; false when it was given back, or paid, before."""
    values = place.key | NOTHING | {"holder": actor.name, "kind": "release", "ready": True}
    _, found = await db.together(place.workspace_id, (LOCK_HELD, place.key), (FINISH, values))
    return _finished(found, place)


async def require_paid(db: Database, place: Place, paid: Charge | None) -> None:
    """Refuse to say of a cost that is over that it was paid with something else, or given back (None).

    Raises:
        Conflict: `cost_settled`, with what was paid.
    """
    rows = await db.alone(place.workspace_id, SETTLED, place.key)
    if rows and (paid is None or (rows[0]["usd"], rows[0]["tokens"]) != (paid.usd, paid.usage.tokens)):
        told = f"{place.cost_id!r} was settled with {written(rows[0]['usd'])} USD; an admin may correct it"
        raise Conflict("cost_settled", f"{told} (`POST /runs/{place.run_id}/adjustments`)")


async def require_held(db: Database, place: Place, wanted: Charge) -> None:
    """Refuse to say of what was reserved before that this is reserved, where it is over or was something else.

    Raises:
        Conflict: `cost_reserved`.
    """
    rows = await db.alone(place.workspace_id, HELD, place.key)
    if not rows or (rows[0]["usd"], rows[0]["tokens"]) != (wanted.usd, wanted.usage.tokens):
        told = f"{place.cost_id!r} was reserved before, for something else or a call that is over"
        raise Conflict("cost_reserved", f"{told}: send another Idempotency-Key")


async def release_all(session: AsyncSession, workspace_id: str, run_id: str, actor: Actor) -> None:
    """Give back what a run that ends still holds; nothing can be reserved beside it until the transaction ends."""
    run = {"workspace_id": workspace_id, "run_id": run_id}
    ask = within(session)
    await ask(LOCK_RUN, run)
    await ask(LOCK_OPEN, run)
    await ask(RELEASE_ALL, run | {"holder": actor.name})


async def lock_all(session: AsyncSession, run: Mapping[str, str]) -> None:
    """Take all counters that a run can have spent from: its own first, after which it spends from no other."""
    await within(session)(LOCK_RUN, run)
    await within(session)(LOCK_ALL, run)


async def overdue(session: AsyncSession, limit: int) -> list[Place]:
    """List reservations whose holder must have died (system door)."""
    return [Place(**row) for row in await within(session)(OVERDUE, {"limit": limit})]


async def _spend(db: Database, place: Place, values: dict[str, Any], actor: Actor, *then: Step) -> Rows:
    """Reserve, and do what follows where that is granted; where it is not, do in one transaction what that means.

    Gives the rows of the last statement.
    """
    steps = ((LOCK, place.key), (RESERVE, place.key | values), *then)
    _, found, *rest = await db.together(place.workspace_id, *steps)
    if found and found[0]["reply"] in (Reply.UNPREPARED, Reply.OVER):
        async with db.workspace(place.workspace_id) as session:
            _, found, *rest = await _prepare_and_spend(session, place, values, actor, steps)
    if not found:
        raise missing("run", place.run_id)
    if found[0]["goes_on"]:
        db.announce()
    if found[0]["reply"] not in (Reply.GRANTED, Reply.KNOWN):
        raise _refusal(place, found[0])
    return rest[-1] if rest else found


async def _prepare_and_spend(
    session: AsyncSession, place: Place, values: dict[str, Any], actor: Actor, steps: Sequence[Step]
) -> list[Rows]:
    """Do the steps where a counter was missing; a refusal commits what follows of it."""
    await budgets.prepare(session, place.workspace_id, place.run_id)
    rows = [await within(session)(*step) for step in steps]
    if rows[1] and rows[1][0]["reply"] == Reply.OVER:
        await _contain(session, place, rows[1][0], values, actor)
    return rows


async def _contain(
    session: AsyncSession, place: Place, limit: dict[str, Any], values: dict[str, Any], actor: Actor
) -> None:
    """Block the run that asked for more than a limit leaves, also where an earlier window blocked it."""
    wanted = Cap(values["usd"], values["tokens"])
    if await budgets.contain(session, Hit(place.run_id, limit, wanted), actor, instead=True):
        limit["denied"] = None  # somebody is asked anew


async def _paid(db: Database, place: Place, values: dict[str, Any], actor: Actor, found: Rows) -> bool:
    """Tell whether a call is paid with this; where that goes beyond a cap, pay together with what follows of it."""
    if found and found[0]["reply"] == Reply.CROSSES:
        async with db.workspace(place.workspace_id) as session:
            found = await _settle_and_contain(session, place, values, actor)
    return _finished(found, place)


async def _settle_and_contain(session: AsyncSession, place: Place, values: dict[str, Any], actor: Actor) -> Rows:
    """Pay what goes beyond caps, close each that it meets, block the run, and ask anew, in the same transaction."""
    ask = within(session)
    await ask(TOGETHER, place.key)
    await ask(LOCK_HELD, place.key)
    await _renew_ticket(session, place, actor)
    found = await ask(FINISH, values | {"ready": True})
    if found[0]["scope"] is not None and found[0]["reply"] == Reply.DONE:
        for limit in (each for each in found if each["is_met"]):
            await budgets.contain(session, Hit(place.run_id, await budgets.read(session, limit)), actor)
        await budgets.renew_questions(session, place.workspace_id, place.run_id, actor)
    return found


async def _renew_ticket(session: AsyncSession, place: Place, actor: Actor) -> None:
    """Judge a late call by the cap of its ticket, which may have been set while nothing ran on that."""
    for held in await within(session)(RESERVED, place.key):
        if held["ticket_id"]:
            await budgets.renew_ticket(session, place.workspace_id, held["ticket_id"], actor)


def _finished(found: Rows, place: Place) -> bool:
    _require_reserved(found, place)
    return bool(found[0]["reply"] == Reply.DONE)


def _require_reserved(found: Rows, place: Place) -> None:
    if not found:
        raise NotFound("reservation_not_found", f"the run reserved nothing under {place.cost_id!r}")


def _refusal(place: Place, found: Mapping[str, Any]) -> MissionControlError:
    """Say why nothing was reserved, and what would help."""
    reply = found["reply"]
    if reply == Reply.ENDED:
        return run_ended()
    if reply == Reply.MISSION_ENDED:
        return mission_ended()
    if reply == Reply.BLOCKED:
        return run_blocked(found["run_reason"], found["blocked_by"])
    if reply == Reply.UNPREPARED:
        return Unavailable("budget_unprepared", "a new window began while this was asked; try again")
    if reply == Reply.FULL:
        wait = "what is left is promised to calls that have begun: settle or release them, or ask for less"
        return Conflict("budget_reserved", f"{described(found)}; {wait}", **named(found))
    if reply == Reply.CROWDED:
        why = f"the run has {MAX_RESERVATIONS} open reservations; settle or release those whose calls are over"
        return Conflict("too_many_reservations", why)
    return exceeded(found)


def _amounts(charge: Charge, actor: Actor) -> dict[str, Any]:
    usage = charge.usage
    return {
        "model": usage.model,
        "tokens_in": usage.tokens_in,
        "tokens_out": usage.tokens_out,
        "tokens": usage.tokens,
        "calls": usage.calls,
        "usd": charge.usd,
        "unpriced": charge.unpriced,
        "most": MAX_RESERVATIONS,
        "holder": actor.name,
        "correlation_id": actor.correlation_id,
        "reason": None,
    }
