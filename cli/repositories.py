"""`mission-control repository …`: the git repositories that missions may change."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.command import All, Client, Limit, client_command, in_path

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(no_args_is_help=True, help="Register the git repositories that missions may change.")

Command = Annotated[
    str | None,
    typer.Option(metavar="COMMAND", show_default=False, help="Instead of the one in .mission-control.yaml."),
]


@client_command(app, "add")
def add(
    client: Client,
    location: Annotated[str, typer.Argument(help="A local path, or an https or ssh URL.", show_default=False)],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call it. [default: the URL's last part]")
    ] = None,
    branch: Annotated[str, typer.Option(help="The branch that missions merge into.")] = "main",
    protected: Annotated[bool, typer.Option("--protected", help="A human approves every merge.")] = False,
    env: Annotated[
        str | None,
        typer.Option(help="`prod` asks two people before every merge. [default: the server's MC_ENV]"),
    ] = None,
    setup: Command = None,
    test: Command = None,
    stress: Command = None,
    probe: Command = None,
    junit: Annotated[str | None, typer.Option(metavar="PATH", help="Where `test` writes JUnit XML.")] = None,
) -> None:
    """Register a repository.

    \b
    Example:
      mission-control repository add ~/src/invoices --protected --test "python -m pytest"
    """
    commands = {"setup": setup, "test": test, "stress": stress, "probe": probe, "junit": junit}
    body = {
        "url": _local_path(location),
        "name": name,
        "target_branch": branch,
        "protected": protected,
        "env": env,
        "commands": {key: value for key, value in commands.items() if value is not None},
    }
    repository = client.api.post("/repositories", body)
    client.answer(repository, lambda: described(repository))


@client_command(app, "list")
def list_repositories(client: Client, limit: Limit = 50, everything: All = False) -> None:
    """List the registered repositories."""
    from cli.text import table

    rows = client.api.rows("/repositories", None if everything else limit)
    columns = ("repository", "name", "branch", "protected", "env", "url")
    cells = [
        (r["repository_id"], r["name"], r["target_branch"], "yes" if r["protected"] else "no", r["env"], r["url"])
        for r in rows
    ]
    client.answer(rows, lambda: table(columns, cells))


@client_command(app, "show")
def show(
    client: Client,
    repository: Annotated[str, in_path("REPOSITORY", "As `repository list` shows it.")],
) -> None:
    """Show a repository and the commands that are registered for it."""
    found = client.api.get(f"/repositories/{repository}")
    client.answer(found, lambda: described(found))


def _local_path(location: str) -> str:
    """Make what names a folder here absolute; leave URLs as they are."""
    folder = Path(location).expanduser()
    return str(folder.absolute()) if folder.exists() else location


def described(repository: dict[str, Any]) -> "RenderableType":
    """A repository's facts, line by line."""
    from cli.text import facts, moment

    return facts(
        [
            ("repository", repository["repository_id"]),
            ("name", repository["name"]),
            ("url", repository["url"]),
            ("branch", repository["target_branch"]),
            ("protected", "yes" if repository["protected"] else "no"),
            ("env", repository["env"]),
            *repository["commands"].items(),
            ("registered", f"{moment(repository['created_at'])} by {repository['created_by']}"),
        ]
    )
