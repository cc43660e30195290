"""`mission-control principal …`: who acts in the workspace."""

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from cli.command import All, Client, Limit, Yes, client_command

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(no_args_is_help=True, help="Add, list and end humans, agents and services.")

Name = Annotated[str, typer.Argument(help="As `principal list` shows it.", show_default=False)]
COLUMNS = ("name", "kind", "role", "since", "by", "ended")


@client_command(app, "create")
def create(
    client: Client,
    name: Annotated[str, typer.Argument(help="How it is called in all that it does.", show_default=False)],
    role: Annotated[
        str | None, typer.Option(help="A human's: observer, member, operator or admin.", show_default=False)
    ] = None,
    kind: Annotated[str, typer.Option(help="human, agent or service.")] = "human",
) -> None:
    """Add a principal; `key create` gives it a key.

    \b
    Example:
      mission-control principal create olga --role operator
      mission-control principal create alertmanager --kind service
    """
    made = client.api.post("/principals", {"name": name, "kind": kind, "role": role})
    client.answer(made, lambda: described(made))


@client_command(app, "list")
def list_principals(
    client: Client,
    kind: Annotated[str | None, typer.Option(help="Only humans, agents or services.", show_default=False)] = None,
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List principals, also those that were ended."""
    rows = client.api.rows("/principals", None if everything else limit, kind=kind)
    client.answer(rows, lambda: listed(rows))


@client_command(app, "show")
def show(client: Client, name: Name) -> None:
    """Show a principal."""
    found = client.api.get(f"/principals/{quote(name, safe='')}")
    client.answer(found, lambda: described(found))


@client_command(app, "deactivate")
def deactivate(client: Client, name: Name, yes: Yes = False) -> None:
    """End a principal and all its keys now; what it did stays."""
    client.confirm(f"End {name} and all its keys now?", yes)
    ended = client.api.delete(f"/principals/{quote(name, safe='')}")
    client.answer(ended, lambda: described(ended))


def listed(rows: list[dict[str, Any]]) -> "RenderableType":
    """A table of principals."""
    from cli.text import moment, table

    return table(
        COLUMNS,
        [
            (r["name"], r["kind"], r["role"], moment(r["created_at"]), r["created_by"], moment(r["deactivated_at"]))
            for r in rows
        ],
    )


def described(principal: dict[str, Any]) -> "RenderableType":
    """A principal's facts, line by line."""
    from cli.text import facts, moment

    return facts(
        [
            ("name", principal["name"]),
            ("kind", principal["kind"]),
            ("role", principal["role"]),
            ("since", f"{moment(principal['created_at'])}, by {principal['created_by']}"),
            ("ended", moment(principal["deactivated_at"])),
        ]
    )
