"""The commands that start something on this machine, or look at it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.command import Yes
from cli.errors import told
from cli.settings import load

if TYPE_CHECKING:
    from models.settings import Settings

Scene = Literal["mission", "governance"]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    for command in (up, demo, doctor, api, worker, migrate):
        app.command()(command)


def up() -> None:
    """Run everything on this machine until Ctrl-C: PostgreSQL, Temporal, the worker, the API.

    A part that dies is started again. DATABASE_URL and TEMPORAL_ADDRESS take the place of our own servers.

    \b
    Example:
      MC_REPOSITORY_ROOTS=$HOME/src mission-control up
    """
    import asyncio

    from worker.dev.up import up as run_up

    with told():
        asyncio.run(run_up(load(), _say))


def demo(
    yes: Yes = False,
    kill_worker: Annotated[bool, typer.Option("--kill-worker", help="SIGKILL the worker in mid-run.")] = False,
    leave: Annotated[bool, typer.Option("--exit", help="Stop all at the end, instead of staying up.")] = False,
    scene: Annotated[Scene, typer.Option(help="What to show.")] = "mission",
    data_dir: Annotated[Path | None, typer.Option(help="[default: `demo` in MC_DATA_DIR]", show_default=False)] = None,
) -> None:
    """Start the whole product beside whatever runs, and show a scene. What it asks is asked here; --yes agrees.

    `mission` takes one mission, which mends a bug in a small repository made for it, through its eleven stages.
    `governance` holds a merge into production for two people, stops a run at its cap, and finds a row of the audit log
    that was changed by hand.

    \b
    Examples:
      mission-control demo --yes --kill-worker --exit
      mission-control demo --scene governance
    """
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask for approvals in: give them now", param_hint="--yes")
    typer.secho("Mission Control: starting PostgreSQL, Temporal, a worker and the API", bold=True)
    from cli.demo.run import run_demo
    from cli.demo.scene import Wishes

    with told():
        raise typer.Exit(run_demo(load(), data_dir, scene, Wishes(yes, kill_worker, leave)))


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON, for scripts.")] = False) -> None:
    """Check every part and say how to mend what is wrong; exit code 1 if anything is."""
    import asyncio
    import json
    from dataclasses import asdict

    from cli.text import console, table, word
    from worker.dev.doctor import check

    with told(as_json=as_json):
        checks = asyncio.run(check(load()))
    if as_json:
        typer.echo(json.dumps([asdict(found) for found in checks], indent=2))
    else:
        rows = [(c.name, word("passed" if c.ok else "failed"), c.detail, c.mend) for c in checks]
        console().print(table(("part", "state", "found", "how to mend it"), rows))
    raise typer.Exit(0 if all(found.ok for found in checks) else 1)


def api() -> None:
    """Run the API alone, on MC_API_HOST and MC_API_PORT; it needs DATABASE_URL and TEMPORAL_ADDRESS."""
    from api.__main__ import main

    with told():
        main(_with_database(load()))


def worker() -> None:
    """Run one worker; it needs DATABASE_URL and TEMPORAL_ADDRESS."""
    from worker.__main__ import main

    with told():
        main(_with_database(load()))


def migrate(
    revision: Annotated[str, typer.Argument(help="`head`, or `base` to remove every table.")] = "head",
    yes: Yes = False,
) -> None:
    """Bring the database at DATABASE_URL to the schema of this version. `up` does it by itself.

    \b
    Example:
      DATABASE_URL=postgresql://owner@db/mission_control mission-control migrate
    """
    from models.domain.errors import Misconfigured
    from models.store.migrate import migrate as run_migrations

    settings = load()
    with told():
        if settings.database_url is None:
            raise Misconfigured("no_database", "DATABASE_URL is not set: say which database to migrate")
        if revision == "base" and not yes:
            typer.confirm("This removes every table with its data. Go on?", abort=True, err=True)
        typer.echo(run_migrations(settings.database_url.get_secret_value(), revision))


def _with_database(settings: "Settings") -> "Settings":
    """Begin only where the database answers: later its absence is waited out, now it is a mistake to be told."""
    from models.store.migrate import reach

    for url in set(settings.database_doors()):
        reach(url).close()
    return settings


def _say(message: str) -> None:
    typer.secho(message, err=True)
