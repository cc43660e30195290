"""A Temporal server for one machine: the CLI's dev server on a file, with the settings our workflows count on."""

import json
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from temporalio.client import Client
from temporalio.service import GrpcCompression, RPCError

from models.domain.errors import Conflict
from worker.dev.ports import LOOPBACK, free_port
from worker.dev.process import Child, Server
from worker.dev.temporal_cli import TemporalCli

NAMESPACE = "default"
DYNAMIC_CONFIG = {
    # Off by default before server 1.32: lets a worker start an activity without another trip.
    "system.enableActivityEagerExecution": "true",
    # The workspace is the fairness key; without this it is ignored.
    "matching.enableFairness": "true",
    # One partition each: four only add forwarding when there is one server.
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    # Batch commands run at 50/s and one at a time by default.
    "worker.batcherRPS": "1000",
    "frontend.MaxConcurrentBatchOperationPerNamespace": "5",
}

BEGUN_AGAIN = ("MergeQueueWorkflow", "ReconcileWorkflow")
"""Workflows that hold nothing when no mission runs: the next mission, or the next worker, starts them anew."""


class DevTemporal(Server):
    """One dev server on `data_dir/temporal/temporal.db`."""

    name = "temporal"

    def __init__(
        self,
        cli: TemporalCli,
        data_dir: Path,
        port: int | None = None,
        ui_port: int | None = None,
    ) -> None:
        self.cli = cli
        self.port, self.ui_port, self._metrics_port = port or free_port(), ui_port or free_port(), free_port()
        data_dir = data_dir.absolute()  # the server works in its own folder
        self.database = data_dir / "temporal" / "temporal.db"
        self._version_file = self.database.with_name("version.json")
        self._log = data_dir / "logs" / "temporal.log"

    @property
    def address(self) -> str:
        """As `TEMPORAL_ADDRESS` takes it."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def ui_url(self) -> str:
        """The web interface."""
        return f"http://{LOOPBACK}:{self.ui_port}"

    @property
    def metrics_url(self) -> str:
        """For Prometheus."""
        return f"http://{LOOPBACK}:{self._metrics_port}/metrics"

    async def _spawn(self) -> Child:
        self.database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._settle_version()
        return await Child.spawn(
            [self.cli.path, *self._arguments()],
            log=self._log,
            death_signal=self.polite,
            env={"HOME": str(self.database.parent)},
            cwd=self.database.parent,
        )

    def _arguments(self) -> list[str]:
        arguments = ["server", "start-dev", "--ip", LOOPBACK, "--port", str(self.port), "--ui-port", str(self.ui_port)]
        arguments += ["--namespace", NAMESPACE, "--log-level", "warn", "--db-filename", str(self.database)]
        # Without these each transaction is a full fsync of a rollback journal.
        arguments += ["--sqlite-pragma", "journal_mode=wal", "--sqlite-pragma", "synchronous=normal"]
        arguments += ["--metrics-port", str(self._metrics_port)]
        for name, value in DYNAMIC_CONFIG.items():
            arguments += ["--dynamic-config-value", f"{name}={value}"]
        return arguments

    def _settle_version(self) -> None:
        """Note which server writes this database; set another version's aside if nothing runs in it, else refuse.

        The dev server does not migrate its file: another version may misread it.

        Raises:
            Conflict: another version's workflows still run in it.
        """
        written_by = self._written_by()
        if written_by not in (None, self.cli.server):
            self._require_nothing_running(written_by)
            self._set_aside(written_by)
        self._version_file.write_text(
            json.dumps({"cli": self.cli.version, "server": self.cli.server}), encoding="utf-8"
        )

    def _written_by(self) -> str | None:
        if not self.database.exists():
            return None
        if not self._version_file.exists():
            return "unknown"
        return str(json.loads(self._version_file.read_text(encoding="utf-8"))["server"])

    def _require_nothing_running(self, written_by: str) -> None:
        running = running_workflows(self.database)
        if running:
            raise Conflict(
                "temporal_version",
                f"{self.database} was written by Temporal server {written_by}, {len(running)} workflows still run "
                f"in it (first: {running[0]}), and {self.cli.path} is server {self.cli.server}. Nothing changed. Set "
                f"TEMPORAL_CLI_PATH to a CLI with server {written_by} until they have ended; then start this one.",
            )

    def _set_aside(self, written_by: str) -> None:
        aside = Path(tempfile.mkdtemp(prefix=f"server-{written_by}-", dir=self.database.parent))
        for file in self.database.parent.glob(f"{self.database.name}*"):
            file.rename(aside / file.name)

    async def _answers(self) -> bool:
        try:
            await (await connect(self.address)).service_client.check_health()
        except (RPCError, RuntimeError):
            return False
        return True


async def connect(address: str, namespace: str = NAMESPACE) -> Client:
    """A bare client for checks; RuntimeError when nobody answers."""
    return await Client.connect(address, namespace=namespace, grpc_compression=GrpcCompression.NONE)


def running_workflows(database: Path) -> list[str]:
    """Ids of what a stopped dev server has not finished and a new one could not begin again."""
    query = (
        "SELECT workflow_id FROM executions_visibility WHERE status = 1"
        " AND task_queue NOT LIKE 'temporal-sys-%' AND workflow_type_name NOT IN (?, ?) ORDER BY start_time"
    )
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return [str(row[0]) for row in connection.execute(query, BEGUN_AGAIN)]
