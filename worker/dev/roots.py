"""Tells which registered repositories the settings do not let missions use."""

import asyncio

from models.repositories import outside_roots
from models.settings import Settings
from models.store import repositories
from models.store.database import Database

MEND = "add a folder above each to it, for the API and the workers, and start them again; missions there fail till then"
_NAMED = 5


async def outside(settings: Settings) -> str:
    """Name the local repositories of all workspaces that lie outside the allowed roots; empty if none does."""
    async with Database.briefly(settings) as database, database.system() as session:
        urls = await repositories.urls(session)
    found = await asyncio.to_thread(outside_roots, urls, settings.repository_roots)
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more
