"""Giving out missions: agents that ask at the same time are answered by one transaction."""

from functools import partial

from api.batches import Batches
from models.store import queue
from models.store.database import Database
from models.store.queue import Claim, Package

MAX_BATCH = 16
"""Claims per transaction: one that finds nothing among very many missions takes a tenth of a second."""

Claims = Batches[Claim, Package | None]


def claims_of(db: Database) -> Claims:
    """Give out missions from this database."""
    return Batches(partial(queue.claim_all, db), MAX_BATCH)
