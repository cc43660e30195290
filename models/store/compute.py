"""What hosts work on a mission: reserved before the mission begins, and settled when it ends, as a run of its own.

The mission's id is its run's, too. Beginning and ending are a statement each, beside those that move the mission.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.budgets import COMPUTE_SECONDS, RunStatus
from models.domain.errors import Conflict, MissionControlError
from models.domain.prices import Charge, Usage
from models.store import ledger
from models.store.compute_statements import COMPUTING, MADE, PAY, RESERVE
from models.store.database import Step, within
from models.store.events import Actor
from models.store.ledger import Place
from models.store.ledger_statements import TOGETHER

COST_ID = MODEL = "compute"


class ComputeReserved(MissionControlError):
    """Begun calls hold what the mission needs: it begins once they have cost less, so another try can help."""

    status = 409
    retryable = True


def steps(begun: Mapping[str, Any], usd_per_second: Decimal | None) -> tuple[Step, Step]:
    """Reserve a started mission's compute where nothing stands in the way; the last row says whether that was so."""
    values = {**begun, "usd": _most(usd_per_second)}
    return (TOGETHER, values), (RESERVE, values)


async def reserve(
    session: AsyncSession, workspace_id: str, mission_id: str, usd_per_second: Decimal | None, actor: Actor
) -> MissionControlError | None:
    """Reserve it where something may stand in the way, and do what that means: the refusal, to raise after the commit.

    A limit that was crossed blocks the mission's run, and so the mission.
    """
    place = Place(workspace_id, mission_id, COST_ID)
    charge = Charge(Usage(model=MODEL, calls=0), _most(usd_per_second), unpriced=usd_per_second is None)
    await within(session)(MADE, {"workspace_id": workspace_id, "mission_id": mission_id})
    refusal = await ledger.reserve_within(session, place, charge, actor)
    if isinstance(refusal, Conflict) and refusal.code == "budget_reserved":
        return ComputeReserved(refusal.code, refusal.message, **refusal.details)
    return refusal and Conflict("mission_blocked", refusal.message, **refusal.details)


async def pay(
    session: AsyncSession, workspace_id: str, mission_id: str, status: RunStatus, usd_per_second: Decimal | None
) -> None:
    """End the run of a mission that ends, and settle what its hosts worked; doing it again changes nothing.

    What is beyond its reservation is an overrun. It is charged to the month of the reservation.
    """
    values: dict[str, Any] = {"workspace_id": workspace_id, "mission_id": mission_id, "status": status.value}
    await within(session)(PAY, values | {"stages": COMPUTING, "usd_per_second": usd_per_second})


def _most(usd_per_second: Decimal | None) -> Decimal:
    return COMPUTE_SECONDS * (usd_per_second or Decimal(0))
