"""`mission-control mission candidate …`: the changes a mission tries."""

from typing import Annotated
from uuid import uuid4

import typer

from cli.command import Client, MissionId, client_command, option

app = typer.Typer(no_args_is_help=True, help="Add changes for a mission to try, before it is started.")


@client_command(app, "add")
def add(
    client: Client,
    mission_id: MissionId,
    patch: Annotated[str | None, option("FILE", "A unified diff's file, or - for stdin.")] = None,
    ref: Annotated[str | None, option("REF", "A ref of the repository.")] = None,
) -> None:
    """Add a change behind those that a mission has: a patch, or a ref of the repository.

    \b
    Example:
      mission-control mission candidate add mission_20250110_001 --patch fix.diff
    """
    from cli.package import read_patch
    from cli.text import line

    if (patch is None) == (ref is None):
        raise typer.BadParameter("give exactly one of --patch and --ref")
    body = {"ref": ref} if patch is None else {"diff": read_patch(patch)}
    added = client.api.post(f"/missions/{mission_id}/candidates", body, key=str(uuid4()))
    client.answer(added, f"candidate {added['number']} of {line(mission_id)}: {line(added['ref'] or added['digest'])}")
