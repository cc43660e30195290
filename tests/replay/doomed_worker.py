"""A worker process to be killed: it does everything but run tests, which never end with it."""

import asyncio
import sys
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path

from activities.recording import StageRecorder
from activities.workbench.signing import ServiceKey
from models.domain.stages import StageName
from models.settings import Settings
from models.store.database import Database
from tests.fixtures.instant_ports import Script, Scripts
from tests.fixtures.workers import Crew
from workflows.client import connect


async def work(url: str, address: str, key: str, prefix: str) -> None:
    """Work until killed."""
    settings = Settings(DATABASE_URL=url, TEMPORAL_ADDRESS=address)
    recorder = StageRecorder(Database.from_settings(settings), ServiceKey.load_or_create(Path(key)))
    scripts: Scripts = defaultdict(lambda: Script(blocks={StageName.RUN_TESTS: asyncio.Event()}))
    async with AsyncExitStack() as stack:
        crew = Crew(settings, await connect(settings), recorder, scripts, stack, prefix)
        await crew.everyone("one")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
