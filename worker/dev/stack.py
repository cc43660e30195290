"""Everything on one machine: PostgreSQL, Temporal, the worker and the API, as children of one process."""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.service import RPCError

from models.configuration import load_catalog
from models.domain.errors import Misconfigured, Unavailable
from models.settings import Settings
from models.store.migrate import migrate
from worker.dev.files import cap_logs
from worker.dev.ports import choose_port
from worker.dev.postgres import EmbeddedPostgres
from worker.dev.process import Server
from worker.dev.programs import Api, Worker, environment
from worker.dev.state import (
    Addresses,
    ProcessRecord,
    UpState,
    leftovers,
    only_one,
    read_state,
    stop_leftovers,
    write_state,
)
from worker.dev.supervisor import Report, supervise
from worker.dev.temporal import DevTemporal
from worker.dev.temporal_cli import find_temporal_cli
from workflows.client import connect, plainly

PARTS = ("postgres", "temporal", "worker", "api")
"""In the order of starting; they are stopped in the opposite order."""
HURRIED_SECONDS = 1.0
LOG_SECONDS = 5.0


class Stack:
    """The parts named in `parts`, running inside `async with Stack(settings) as stack:`.

    One at a time on a data folder. `DATABASE_URL` and `TEMPORAL_ADDRESS` take the place of our own servers. A part that
    dies is started again, unless `supervised` is off: then only `start` does that.
    """

    def __init__(
        self, settings: Settings, *, parts: Iterable[str] = PARTS, report: Report, supervised: bool = True
    ) -> None:
        self.settings = settings
        """As given, with the addresses of what runs filled in."""
        self.stopping = False
        self._parts = frozenset(parts)
        self._report, self._supervised = report, supervised
        self._addresses = Addresses()
        self._servers: dict[str, Server] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._hurried = asyncio.Event()
        self._held = ExitStack()

    async def __aenter__(self) -> Self:
        """Start all parts; return when all of them answer.

        Raises:
            Conflict: another `up` holds the data folder, a port that was asked for is taken, or the data belongs to
                another version.
            Misconfigured: `config_dir_unusable`, no worker would start with it; `database_unreachable` or
                `temporal_unreachable`, an address in the settings does not answer.
            Unavailable: a part does not come up.
        """
        require_config(self.settings.config_dir)
        self._held.enter_context(only_one(self.settings.data_dir))
        try:
            await self._take_over()
            await _all(self._start_database(), self._start_temporal())
            await _all(self._start_worker(), self._start_api())
        except BaseException:
            await self._stop_all()
            raise
        self._tasks["logs"] = asyncio.create_task(self._tend_logs())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop_all()

    def env(self) -> dict[str, str]:
        """The environment in which a child process finds all parts."""
        return environment(self.settings)

    def pid(self, name: str) -> int | None:
        """The process id of a part that runs."""
        child = self._servers[name].child
        return child.pid if child and child.exit_code is None else None

    async def kill(self, name: str) -> None:
        """SIGKILL a part, as a crash would, and see it dead."""
        if child := self._servers[name].child:
            await child.kill()

    async def stop(self, name: str) -> None:
        """Stop a part politely; it stays stopped until `start`."""
        await self._unwatch(name)
        await self._servers[name].stop()

    async def start(self, name: str) -> None:
        """Start a part that was stopped or killed; return when it answers. One that runs is left alone."""
        await self._unwatch(name)
        if self.pid(name) is None:
            await self._servers[name].start(self._write_state)
        if self._supervised:
            watch = supervise(self._servers[name], self._write_state, self._report)
            self._tasks[name] = asyncio.create_task(watch)

    async def add_worker(self, name: str, env: Mapping[str, str]) -> None:
        """Start one more worker, a part called `name`, with some settings of its own (`MC_HOST_ID`, …)."""
        await self._add(Worker(name, self.settings, env))

    def hurry(self) -> None:
        """Give what is still stopping no more than a second."""
        self._hurried.set()

    async def _take_over(self) -> None:
        """End what a killed `up` left on this data folder: a part half known is worth less than a new one."""
        state = read_state(self.settings.data_dir)
        if state and (left := leftovers(state.children)):
            self._report(f"stopping what an earlier start left running: {', '.join(left)}")
            await asyncio.to_thread(stop_leftovers, left)
        self._write_state()

    async def _start_database(self) -> None:
        if "postgres" not in self._parts:
            return
        if self.settings.database_url is None:
            port = choose_port(self.settings, "postgres_port", self._report)
            server = EmbeddedPostgres(self.settings.data_dir, self.settings.cache_dir, port, self._report)
            await self._add(server)
            self._learn(Addresses(postgres_port=port), database_url=SecretStr(server.url))
        if url := self.settings.database_url:
            revision = await asyncio.to_thread(migrate, url.get_secret_value())
            self._report(f"the database is at revision {revision}")

    async def _start_temporal(self) -> None:
        if "temporal" not in self._parts:
            return
        if self.settings.temporal_address:
            return await self._require_temporal()
        cli = await find_temporal_cli(self.settings, self._report)
        port = choose_port(self.settings, "temporal_port", self._report)
        ui_port = choose_port(self.settings, "temporal_ui_port", self._report)
        server = DevTemporal(cli, self.settings.data_dir, port, ui_port)
        await self._add(server)
        self._report(f"Temporal's metrics are at {server.metrics_url}")
        self._learn(Addresses(temporal_address=server.address, temporal_ui_url=server.ui_url))

    async def _require_temporal(self) -> None:
        try:
            client = await connect(self.settings)
            await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
        except (RPCError, RuntimeError) as error:
            address = self.settings.temporal_address
            message = f"TEMPORAL_ADDRESS {address} does not serve ({plainly(error)}): see that it runs and is right"
            raise Misconfigured("temporal_unreachable", message) from error

    async def _start_worker(self) -> None:
        if "worker" in self._parts:
            port = choose_port(self.settings, "metrics_port", self._report)
            await self.add_worker("worker", {"MC_METRICS_PORT": str(port)})

    async def _start_api(self) -> None:
        if "api" in self._parts:
            port = choose_port(self.settings, "api_port", self._report)
            self._learn(Addresses(api_port=port, api_url=f"http://{self.settings.api_host}:{port}"))
            await self._add(Api("api", self.settings))

    def _learn(self, addresses: Addresses, **secrets: SecretStr) -> None:
        found = addresses.model_dump(exclude_none=True)
        self._addresses = self._addresses.model_copy(update=found)
        self.settings = self.settings.model_copy(update={**found, **secrets})
        self._write_state()

    async def _add(self, server: Server) -> None:
        self._servers[server.name] = server
        self._report(f"starting {server.name}")
        await self.start(server.name)
        self._report(f"{server.name} is up (process {self.pid(server.name)})")

    def _write_state(self) -> None:
        """Note every child as soon as it exists, for the next `up` in case this one is killed."""
        children = {name: s.child for name, s in self._servers.items() if s.child and s.child.exit_code is None}
        state = UpState(
            up=ProcessRecord.of_self(),
            addresses=self._addresses,
            repository_roots=self.settings.repository_roots,
            children={name: ProcessRecord.of(child) for name, child in children.items()},
        )
        write_state(self.settings.data_dir, state)

    async def _unwatch(self, name: str) -> None:
        if task := self._tasks.pop(name, None):
            task.cancel()
            await asyncio.wait({task})

    async def _tend_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_SECONDS)
            await asyncio.to_thread(cap_logs, self.settings.data_dir / "logs")

    async def _stop_all(self) -> None:
        self.stopping = True
        for name in list(self._tasks):
            await self._unwatch(name)
        for server in sorted(self._servers.values(), key=_stop_order):
            await self._stop_or_hurry(server)
        self._held.close()

    async def _stop_or_hurry(self, server: Server) -> None:
        stopping = asyncio.ensure_future(server.stop())
        hurried = asyncio.ensure_future(self._hurried.wait())
        await asyncio.wait({stopping, hurried}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        await asyncio.wait({stopping}, timeout=HURRIED_SECONDS)
        if not stopping.done() and server.child:
            await server.child.kill()
        await stopping
        self._report(f"{server.name} is stopped")


def require_config(folder: Path) -> None:
    """Refuse a configuration with which no worker starts, before anything does.

    Raises:
        Misconfigured: `config_dir_unusable`, naming the folder and what is wrong in it.
    """
    try:
        load_catalog(folder)
    except Unavailable as error:
        mend = f"mend {folder}, or point MC_CONFIG_DIR at a folder like `config` of the checkout"
        raise Misconfigured("config_dir_unusable", f"{error.message}; {mend}") from error


def _stop_order(server: Server) -> int:
    part = "worker" if isinstance(server, Worker) else server.name
    return -PARTS.index(part)


async def _all(*starting: Coroutine[Any, Any, None]) -> None:
    """Wait for all of them, also when one fails, so that nothing is still starting when we begin to stop."""
    results = await asyncio.gather(*starting, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
