"""`mission-control demo`: the whole product in a folder of its own, and one of the scenes played in it."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from anyio.from_thread import BlockingPortal, start_blocking_portal
from rich.console import Console
from rich.text import Text

from cli.demo import governance, mission
from cli.demo.scene import House, Wishes
from cli.text import console, duration, line
from models.domain.errors import Misconfigured, MissionControlError
from models.settings import Settings
from worker.dev.stack import Stack

SCENES = {"mission": mission.play, "governance": governance.play}


def run_demo(settings: Settings, data_dir: Path | None, scene: str, wishes: Wishes) -> int:
    """Show it all; the exit code tells how the scene ended.

    Raises:
        MissionControlError: something is missing; the message says what.
    """
    began = time.monotonic()
    out = console()
    folder = (data_dir or settings.data_dir / "demo").absolute()
    stack = Stack(apart(settings, folder), report=lambda text: out.print(Text(f"· {line(text)}", style="dim")))
    for polite in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(polite, signal.default_int_handler)
    # The servers live in a thread with an event loop; this one may wait for the keyboard.
    with _outdated(folder), start_blocking_portal() as portal, portal.wrap_async_context_manager(stack):
        # Only now: whoever holds the data folder may still work on the repository of an earlier demo.
        code = SCENES[scene](_house(portal, stack, out, wishes))
        out.print(Text(f"\n{duration(time.monotonic() - began)} from the command to here", style="dim"))
        if not wishes.leave:
            _stay_up(out, folder)
    return code


@contextmanager
def _outdated(folder: Path) -> Iterator[None]:
    """Tell of a folder that another version's demo left: nothing in it is worth what a real database's rescue takes."""
    try:
        yield
    except MissionControlError as error:
        # Told by the start itself, or in the last words of a part that ended over it.
        if not any(code in f"{error.code}: {error.message}" for code in ("schema_differs", "schema_unknown")):
            raise
        raise Misconfigured(
            "demo_outdated",
            f"the demo's folder {folder} was made by another version: delete it, for it holds nothing but demos, or "
            'name another one: `mission-control demo --data-dir FOLDER`, `make demo ARGS="--data-dir FOLDER"`',
        ) from error


def _stay_up(out: Console, folder: Path) -> None:
    out.print(Text(f"everything stays up until Ctrl-C; look around with: export MC_DATA_DIR={folder}"))
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


def apart(settings: Settings, folder: Path) -> Settings:
    """Settings that share nothing with another installation on this machine but the cache."""
    ports = dict.fromkeys(("api_port", "postgres_port", "temporal_port", "temporal_ui_port", "metrics_port"), 0)
    own = {"data_dir": folder, "repository_roots": (folder / "repositories",), "log_level": "warning"}
    servers = dict.fromkeys(("database_url", "database_app_url", "database_system_url", "temporal_address"))
    keys = dict.fromkeys(("api_key", "api_key_file", "signing_key_file"))
    return settings.model_copy(update=ports | own | servers | keys)


def _house(portal: BlockingPortal, stack: Stack, out: Console, wishes: Wishes) -> House:
    def kill() -> None:
        out.print(
            Text(f"\nSIGKILL to the worker, process {stack.pid('worker')}, in the middle of its tests", style="red")
        )
        portal.call(stack.kill, "worker")

    return House(stack.settings, out, wishes, kill)
