"""`mission-control workspace …` and `mission-control member …`: workspaces, and the humans in them."""

from typing import Annotated
from urllib.parse import quote

import typer

from cli.command import All, Client, Limit, Yes, client_command
from cli.principals import described, listed

app = typer.Typer(no_args_is_help=True, help="Make and list workspaces.")
members = typer.Typer(no_args_is_help=True, help="Say who is in the workspace, and in which role.")

Member = Annotated[str, typer.Argument(metavar="NAME", help="As `member list` shows it.", show_default=False)]
Workspace = Annotated[
    str | None, typer.Option(help="Another workspace, for platform admins. [default: the key's]", show_default=False)
]


@client_command(app, "create")
def create(
    client: Client,
    slug: Annotated[str, typer.Argument(help="Its id, for good: a-z, 0-9 and -.", show_default=False)],
    name: Annotated[str, typer.Option(help="How it is shown.", show_default=False)],
    mission: Annotated[str, typer.Option(help="What it is for.", show_default=False)] = "",
    emoji: Annotated[str, typer.Option(show_default=False)] = "",
    color: Annotated[str, typer.Option(help="As in #12ab9f.", show_default=False)] = "",
) -> None:
    """Make a workspace and become its admin. The key to it is shown once and kept nowhere.

    \b
    Example:
      mission-control workspace create search --name "Search team"
    """
    from cli.text import facts

    body = {"slug": slug, "name": name, "mission_statement": mission, "emoji": emoji, "color": color}
    made = client.api.post("/workspaces", body)
    pairs = [("workspace", made["workspace_id"]), ("name", made["name"]), ("key", made["key_id"])]
    client.answer(made, lambda: facts([*pairs, ("secret", made["secret"]), ("", "It is not shown again.")]))


@client_command(app, "list")
def list_workspaces(client: Client, limit: Limit = 50, everything: All = False) -> None:
    """List the workspaces that the key opens."""
    from cli.text import moment, table

    rows = client.api.rows("/workspaces", None if everything else limit)
    columns = ("workspace", "name", "since", "for")
    cells = [(r["workspace_id"], r["name"], moment(r["created_at"]), r["mission_statement"]) for r in rows]
    client.answer(rows, lambda: table(columns, cells))


@client_command(members, "list")
def list_members(client: Client, workspace: Workspace = None, limit: Limit = 50, everything: All = False) -> None:
    """List the humans of the workspace with their roles."""
    rows = client.api.rows(f"{_place(client, workspace)}/members", None if everything else limit)
    client.answer(rows, lambda: listed(rows))


@client_command(members, "set")
def set_member(
    client: Client,
    name: Annotated[str, typer.Argument(help="Who it is.", show_default=False)],
    role: Annotated[
        str, typer.Argument(help="observer, member, operator, admin or platform_admin.", show_default=False)
    ],
    workspace: Workspace = None,
) -> None:
    """Add a human to the workspace, or give it another role, for all keys that it has.

    \b
    Example:
      mission-control member set olga operator
    """
    member = client.api.put(f"{_place(client, workspace)}/members/{quote(name, safe='')}", {"role": role})
    client.answer(member, lambda: described(member))


@client_command(members, "remove")
def remove(client: Client, name: Member, workspace: Workspace = None, yes: Yes = False) -> None:
    """End a membership and all its keys now; the last admin stays."""
    client.confirm(f"Remove {name} and end all its keys now?", yes)
    gone = client.api.delete(f"{_place(client, workspace)}/members/{quote(name, safe='')}")
    client.answer(gone, lambda: described(gone))


def _place(client: Client, workspace: str | None) -> str:
    """The address of the workspace that is meant."""
    return f"/workspaces/{quote(workspace or client.api.get('/status')['workspace_id'], safe='')}"
