"""`mission-control`: starts the product's parts, and is a client of its HTTP API."""

from typing import Annotated

import typer

from cli import (
    activity,
    agents,
    alerts,
    audit,
    budgets,
    decisions,
    keys,
    memory,
    missions,
    policy,
    principals,
    repositories,
    runs,
    servers,
    workspaces,
)
from cli.program import Program
from models.leaving import leave_after

app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Mission Control: durable missions that patch, test, scan, merge, watch and roll back.",
    epilog="Begin with `mission-control demo`, or `mission-control up` and then `mission-control repository add`.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("mission-control"))
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Commands that have commands below them, as `mission`, and `cost` talk to the HTTP API; the others work here."""


servers.add_to(app)
app.add_typer(missions.app, name="mission")
app.add_typer(decisions.app, name="decision")
app.add_typer(repositories.app, name="repository")
app.add_typer(policy.app, name="policy")
app.add_typer(memory.app, name="memory")
app.add_typer(keys.app, name="key")
app.add_typer(principals.app, name="principal")
app.add_typer(workspaces.members, name="member")
app.add_typer(workspaces.app, name="workspace")
app.add_typer(agents.app, name="agent")
app.add_typer(alerts.app, name="alert")
app.add_typer(audit.app, name="audit")
app.add_typer(activity.app, name="activity")
app.add_typer(runs.app, name="run")
app.add_typer(budgets.app, name="budget")
budgets.add_cost_to(app)


def run() -> None:
    """Run a command line: what the program's script does."""
    leave_after(app)
