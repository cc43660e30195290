"""`mission-control demo`: the whole product in a folder of its own, and one mission from bug to merged commit."""

import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

from anyio.from_thread import BlockingPortal, start_blocking_portal
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.client import Api, connect
from cli.demo.proof import prove
from cli.demo.scene import Wishes, play
from cli.demo.world import git, make_repository
from cli.text import console, duration, facts, line
from cli.watch import OUTCOME_CODES, Json, ending
from models.settings import Settings
from worker.dev.stack import Stack

WORKSPACE = "default"


def run_demo(settings: Settings, data_dir: Path | None, wishes: Wishes) -> int:
    """Show it all; the exit code tells the mission's outcome.

    Raises:
        MissionControlError: something is missing; the message says what.
    """
    began = time.monotonic()
    out = console()
    folder = (data_dir or settings.data_dir / "demo").absolute()
    stack = Stack(_apart(settings, folder), report=lambda text: out.print(Text(f"· {line(text)}", style="dim")))
    for polite in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(polite, signal.default_int_handler)
    # The servers live in a thread with an event loop; this one may wait for the keyboard.
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(stack):
        mission = _show(portal, stack, out, wishes)
        out.print(Text(f"\n{duration(time.monotonic() - began)} from the command to here", style="dim"))
        if not wishes.leave:
            _stay_up(out, folder)
    return OUTCOME_CODES[mission["outcome"]]


def _stay_up(out: Console, folder: Path) -> None:
    out.print(Text(f"everything stays up until Ctrl-C; look around with: export MC_DATA_DIR={folder}"))
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


def _apart(settings: Settings, folder: Path) -> Settings:
    """Settings that share nothing with another installation on this machine but the cache."""
    ports = dict.fromkeys(("api_port", "postgres_port", "temporal_port", "temporal_ui_port", "metrics_port"), 0)
    own = {"data_dir": folder, "repository_roots": (folder / "repositories",), "log_level": "warning"}
    servers = dict.fromkeys(("database_url", "database_app_url", "database_system_url", "temporal_address"))
    keys = dict.fromkeys(("api_key", "api_key_file", "signing_key_file"))
    return settings.model_copy(update=ports | own | servers | keys)


def _show(portal: BlockingPortal, stack: Stack, out: Console, wishes: Wishes) -> Json:
    def kill() -> None:
        out.print(
            Text(f"\nSIGKILL to the worker, process {stack.pid('worker')}, in the middle of its tests", style="red")
        )
        portal.call(stack.kill, "worker")

    # Only now: whoever holds the data folder may still work on the repository of an earlier demo.
    place = make_repository(stack.settings.data_dir / "repositories")
    out.print(Text(f"\nthe repository {place}, at {git(place, 'log', '-1', '--format=%h %s')}"))
    with connect(stack.settings, None, None) as api:
        mission = play(api, out, str(place), wishes, kill)
        out.print(ending(mission))
        if mission["outcome"] == "merged":
            out.print(_proof(api, stack.settings, place, mission["mission_id"]))
        links = [("Temporal", mission["links"]["temporal"]), ("API", f"{stack.settings.api_url}/api-docs")]
        out.print(facts(links))
    return mission


def _proof(api: Api, settings: Settings, place: Path, mission_id: str) -> Table:
    signers = settings.signing_key.with_name(settings.signing_key.name + ".allowed_signers")
    proof = prove(api, place, signers, WORKSPACE, mission_id)
    return facts(
        [
            ("merge", proof.commit),
            ("git verify-commit", proof.signature),
            ("stage records", f"{proof.records} have their digest and the service's signature"),
            ("stored evidence", f"{proof.stored} have their digest: logs, test reports, samples, diagnostics"),
        ]
    )
