"""Records the histories of new scenarios: `python -m tests.replay.record`.

It lives through every scenario of `scenarios.py` that has no file yet, on servers of its own, and writes down what
today's workflows ask for along it. Histories that are there stay as they are: a red replay means that missions which
run now would break with today's code. Guard the change with `workflow.patched`; do not record the history again.
"""

import asyncio
import json
import re
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from temporalio.client import WorkflowHistory

from models.settings import Settings
from models.store.migrate import migrate
from tests.fixtures.servers import PostgresServer
from tests.fixtures.workers import World, forgetful_world, make_world
from tests.replay.replaying import FINGERPRINTS, FOLDER, fingerprint, names
from tests.replay.scenarios import SCENARIOS, Scenario
from worker.dev.postgres import EmbeddedPostgres
from worker.dev.temporal import DevTemporal
from worker.dev.temporal_cli import find_temporal_cli

log = structlog.get_logger()

PROCESS = re.compile(rf"\d+@{re.escape(socket.gethostname())}")
"""How Temporal's SDK calls a process: by its number and its machine, neither of which is anybody's business."""


async def record() -> None:
    """Record what is missing, then the fingerprints of all that is there."""
    missing = [scenario for name, scenario in SCENARIOS.items() if name not in names()]
    if missing:
        with tempfile.TemporaryDirectory(prefix="mission-control-record-") as folder:
            Path(folder).chmod(0o711)
            await _record(missing, Path(folder))
    FINGERPRINTS.write_text(json.dumps({name: await fingerprint(name) for name in names()}, indent=1) + "\n")


async def _record(scenarios: list[Scenario], folder: Path) -> None:
    async with _servers(folder) as (url, address):
        for scenario in scenarios:
            async with _world(scenario, url, address, folder / "key") as world:
                handle = await scenario.live(world)
                _keep(scenario.name, await handle.fetch_history())
            log.info("recorded", scenario=scenario.name)


@asynccontextmanager
async def _servers(folder: Path) -> AsyncIterator[tuple[str, str]]:
    postgres = EmbeddedPostgres(folder, Settings().cache_dir)
    temporal = DevTemporal(await find_temporal_cli(Settings(), log.info), folder)
    async with postgres, temporal:
        url = PostgresServer(postgres.url).create_database()
        await asyncio.to_thread(migrate, url)
        yield url, temporal.address


@asynccontextmanager
async def _world(scenario: Scenario, url: str, address: str, key: Path) -> AsyncIterator[World]:
    async with forgetful_world(url, key) if scenario.forgetful else make_world(url, address, key) as world:
        yield world


def _keep(name: str, history: WorkflowHistory) -> None:
    """Write a history with one event a line, and without what tells of the machine it was recorded on."""
    lines = ",\n".join(json.dumps(_anonymous(event)) for event in json.loads(history.to_json())["events"])
    path = FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PROCESS.sub("worker", f'{{"events": [\n{lines}\n]}}\n'))


def _anonymous(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _anonymous(inner) for key, inner in value.items() if key != "stackTrace"}
    return [_anonymous(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    asyncio.run(record())
