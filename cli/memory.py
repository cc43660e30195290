"""`mission-control memory …`: what the workspace remembers."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from cli.command import All, Client, Limit, Yes, client_command

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(no_args_is_help=True, help="Read, write and withdraw the notes that a workspace remembers.")

MemoryId = Annotated[str, typer.Argument(metavar="NOTE", help="As `memory list` shows it.", show_default=False)]
Kind = Annotated[str | None, typer.Option(help="code_fragment or playbook_note.", show_default=False)]


@client_command(app, "list")
def list_notes(
    client: Client,
    words: Annotated[list[str] | None, typer.Argument(help="Each is in the note.", show_default=False)] = None,
    kind: Kind = None,
    tag: Annotated[str | None, typer.Option(help="With this tag.", show_default=False)] = None,
    mission: Annotated[str | None, typer.Option(help="Of this mission only.", show_default=False)] = None,
    state: Annotated[str, typer.Option(help="kept, proposed, refused or withdrawn.")] = "kept",
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List notes, the newest first; without options, those that count.

    \b
    Example:
      mission-control memory list rounding tax --kind playbook_note
    """
    from cli.text import moment, table, word

    filters = {"kind": kind, "tag": tag, "mission_id": mission, "state": state, "text": " ".join(words or []) or None}
    rows = client.api.rows("/memory", None if everything else limit, **filters)
    columns = ("note", "kind", "state", "title", "tags", "mission", "by", "written")
    cells = [
        (
            r["memory_id"],
            r["kind"],
            word(r["state"]),
            r["title"],
            ", ".join(r["tags"]),
            r["mission_id"],
            r["written_by"],
            moment(r["created_at"]),
        )
        for r in rows
    ]
    client.answer(rows, lambda: table(columns, cells))


@client_command(app, "show")
def show(client: Client, memory_id: MemoryId) -> None:
    """Show a note."""
    found = client.api.get(_place(memory_id))
    client.answer(found, lambda: described(found))


@client_command(app, "add")
def add(
    client: Client,
    title: Annotated[str, typer.Argument(help="What it is about.", show_default=False)],
    file: Annotated[Path, typer.Option(help="Its text; - for standard input.", allow_dash=True, show_default=False)],
    kind: Annotated[str, typer.Option(help="code_fragment or playbook_note.")] = "playbook_note",
    tag: Annotated[list[str] | None, typer.Option(help="May be repeated.", show_default=False)] = None,
    mission: Annotated[str | None, typer.Option(help="The mission that taught it.", show_default=False)] = None,
) -> None:
    """Write a note.

    \b
    Example:
      mission-control memory add "Tax is rounded half up" --file note.md --tag tax
    """
    note = {"kind": kind, "title": title, "body": _text(file), "tags": tag or [], "mission_id": mission}
    written = client.api.post("/memory", note)
    client.answer(written, lambda: described(written))


@client_command(app, "withdraw")
def withdraw(client: Client, memory_id: MemoryId, yes: Yes = False) -> None:
    """Let a note count no more; it stays in the records."""
    client.confirm(f"Withdraw {memory_id}?", yes)
    withdrawn = client.api.delete(_place(memory_id))
    client.answer(withdrawn, lambda: described(withdrawn))


def described(note: dict[str, Any]) -> "RenderableType":
    """A note's facts, line by line, and its text below."""
    from rich.console import Group
    from rich.text import Text

    from cli.text import facts, moment, quoted, word

    head = facts(
        [
            ("note", note["memory_id"]),
            ("title", note["title"]),
            ("kind", note["kind"]),
            ("state", word(note["state"])),
            ("decision", note["decision_id"]),
            ("tags", ", ".join(note["tags"])),
            ("mission", note["mission_id"]),
            ("written", f"{moment(note['created_at'])}, by {note['written_by']}"),
            ("changed", note["changed_at"] and f"{moment(note['changed_at'])}, by {note['changed_by']}"),
        ]
    )
    return Group(head, Text(), quoted(note["body"]))


def _place(memory_id: str) -> str:
    return f"/memory/{quote(memory_id, safe='')}"


def _text(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read as text: {error}", param_hint="--file") from None
