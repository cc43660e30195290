"""A process to be killed: it reserves and settles without end."""

import asyncio
import sys
from itertools import count

from models.domain.prices import Charge, Usage
from models.settings import Settings
from models.store import ledger
from models.store.database import Database
from models.store.events import Actor
from models.store.ledger import Place
from tests.fixtures.budgets import usd

BOT = Actor("bot", "request-1")


async def spend(db: Database, workspace: str, run_id: str, name: str) -> None:
    """Reserve a cent and settle half of it, or twice as much, again and again."""
    for number in count():
        place = Place(workspace, run_id, f"{name}-{number}")
        await ledger.reserve(db, place, usd("0.01", 3), BOT)
        paid: Charge = usd("0.02" if number % 3 else "0.005", 5)
        await ledger.settle(db, place, Charge(Usage(tokens_in=5), paid.usd), BOT)


async def main(url: str, workspace: str, name: str, *run_ids: str) -> None:
    """Do so for several runs at once."""
    db = Database.from_settings(Settings(DATABASE_URL=url))
    await asyncio.gather(*(spend(db, workspace, run_id, name) for run_id in run_ids))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
