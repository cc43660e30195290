"""`mission-control audit …`: the log of all acts: listed, exported, and verified without any server."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cli.command import All, Client, From, Limit, To, Yes, client_command
from cli.errors import REFUSED, Refused, told
from cli.progress import progress
from models.domain.errors import InvalidInput, Misconfigured

if TYPE_CHECKING:
    from rich.console import RenderableType

    from models.domain.audit_verifying import Verdict

Read = TypeVar("Read")
Output = Annotated[Path | None, typer.Option("--output", "-o", help="[default: standard output]", show_default=False)]
_END = b'\n{"kind": "end"}\n'
"""The last line of an export, behind another one."""
_TOLD_LINES = 10_000
"""A terminal hears of so many at once, some times a second."""
_ROW = re.compile(rb'\n\{"kind" ?: "row"')
app = typer.Typer(no_args_is_help=True, help="List, export and verify the log of all acts.")


@client_command(app, "list")
def list_audit(
    client: Client,
    limit: Limit = 50,
    everything: All = False,
    actor: Annotated[str | None, typer.Option(help="Only what this principal did.", show_default=False)] = None,
    action: Annotated[str | None, typer.Option(help="As in mission.created.", show_default=False)] = None,
    subject: Annotated[str | None, typer.Option(help="The id of what was acted upon.", show_default=False)] = None,
    since: From = None,
    until: To = None,
) -> None:
    """List acts, the newest first.

    \b
    Example:
      mission-control audit list --actor olga --from 2025-01-10
    """
    from cli.text import moment, table

    filters = {"actor": actor, "action": action, "subject": subject, "from": since, "to": until}
    rows = client.api.rows("/audit", None if everything else limit, **filters)
    columns = ("row", "when", "actor", "kind", "action", "subject", "request")
    cells = [
        (
            str(r["id"]),
            moment(r["created_at"]),
            r["actor"],
            r["actor_kind"],
            r["action"],
            f"{r['subject']['kind']} {r['subject']['id']}",
            r["correlation_id"],
        )
        for r in rows
    ]
    client.answer(rows, lambda: table(columns, cells))


@client_command(app, "redact")
def redact(
    client: Client,
    row: Annotated[int, typer.Argument(metavar="ROW", help="As `audit list` shows it.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why; it is an act of its own in the log.", show_default=False)],
    yes: Yes = False,
) -> None:
    """Remove what the log says of an act, for good, for admins: its row, its digest and all proofs stay.

    Only the log forgets it: the decision, mission or other thing that the act was about keeps its words, and so does
    the act's event until its retention ends (docs/audit.md, Redaction).

    \b
    Example:
      mission-control audit redact 4711 --reason "named a customer"
    """
    client.confirm(f"Remove what row {row} of the audit log says, for good? (What it tells of keeps its words.)", yes)
    changed = client.api.post(f"/audit/{row}/redact", {"reason": reason})
    about = f"{changed['subject']['kind']} {changed['subject']['id']}"
    told = f"row {row} says no more; proofs hold, and exports verify once this act is sealed, in a few seconds"
    client.answer(
        changed, f"{told}\n{about} and the event keep what they say: docs/audit.md, Redaction, has what to do there"
    )


@client_command(app, "keys")
def keys(client: Client, output: Output = None) -> None:
    """Print the public keys that ever signed, one a line, for `audit verify`; keep a copy of your own.

    \b
    Example:
      mission-control audit keys -o keys.pub
    """
    found = client.api.get("/status")["signing_keys"]
    if client.as_json:
        return client.answer(found, "")
    _deliver([f"{key['public_key']}\n".encode() for key in found], output)


@client_command(app, "export")
def export(
    client: Client,
    output: Output = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there.")] = False,
) -> None:
    """Export the workspace's log as JSON lines, for `audit verify`.

    A file that is there already is not replaced without --force: it may be what proves that the log was changed.

    \b
    Example:
      mission-control audit export -o export.jsonl
    """
    if output and not force and output.is_file():
        told = f"{output} is there already: give another name, or say --force to replace it"
        raise Misconfigured("file_exists", told)
    tally = _Tally()
    with client.api.stream("/audit/export") as pieces, progress(beside=output) as tell:
        _deliver(_whole(tally.counting(pieces, tell)), output)
    if output:
        typer.echo(f"{output}: {tally}", err=True)


class _Tally:
    """Counts the rows and bytes of an export as it passes."""

    rows = size = 0

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {self.size:,} bytes"

    def counting(self, pieces: Iterable[bytes], tell: Callable[[str], None]) -> Iterator[bytes]:
        """Pass the pieces on, and tell how far it is; they are cut anywhere, and so counted up to their last line."""
        rest = b"\n"
        for piece in pieces:
            lines, feed, begun = (rest + piece).rpartition(b"\n")
            self.rows, self.size, rest = self.rows + len(_ROW.findall(lines)), self.size + len(piece), feed + begun
            tell(str(self))
            yield piece


@app.command("verify")
def verify(
    export: Annotated[Path, typer.Argument(help="What `audit export` wrote.", show_default=False)],
    key: Annotated[
        list[Path],
        typer.Option(help="Public keys, in PEM or OpenSSH form; one file, or several.", show_default=False),
    ],
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint that was kept elsewhere, as by the mirror.", show_default=False)
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where rows are not sealed, or not counted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON, for scripts.")] = False,
) -> None:
    """Verify an export: contents, order, growth and signatures. Needs no server and no database.

    \b
    Example:
      mission-control audit verify export.jsonl --key keys.pub --checkpoint mirror/checkpoint

    Exit codes: 0 all is as it was sealed, 1 it is not (with the first row or range that is wrong) or nothing is there
    to verify, 2 wrong usage, as a key or checkpoint that is none. What all this proves, and what not, is in
    docs/audit.md.
    """
    with told(as_json=as_json):
        verdict = _verified(export, key, checkpoint)
        verdict.problem = verdict.problem or verdict.shortfall(strict=strict)
    if as_json:
        typer.echo(json.dumps(verdict.as_json(), indent=2))
    elif verdict.problem is None:
        from cli.text import console

        console().print(_described(verdict))
        typer.echo("the log verifies")
    else:
        from cli.text import safe

        typer.secho(safe(f"{verdict.problem.code}: {verdict.problem.message}"), fg="red", err=True)
    if not verdict.is_good:
        raise typer.Exit(REFUSED)


def _whole(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Pass an export on, and refuse one that lacks its end."""
    last = b""
    for piece in pieces:
        last = (last + piece)[-len(_END) :]
        yield piece
    if last != _END:
        why = "its last line is missing, as where the key or its owner's role ended meanwhile: export it again"
        raise Refused("cut_off", f"the export broke off: {why}")


def _deliver(pieces: Iterable[bytes], output: Path | None) -> None:
    if output is None:
        _write(pieces, sys.stdout.buffer)
    else:
        _keep(pieces, output)


def _keep(pieces: Iterable[bytes], output: Path) -> None:
    """Write a file, or into what is there and is none, as a pipe or a device."""
    try:
        if _is_replaceable(output):
            _write_whole(pieces, Path(os.path.realpath(output)))
        else:
            with output.open("wb") as opened:
                _write(pieces, opened)
    except OSError as error:
        told = f"{output} cannot be written: {error.strerror}; name another place with --output"
        raise Misconfigured("file_unwritable", told) from None


def _is_replaceable(output: Path) -> bool:
    try:
        return S_ISREG(output.stat().st_mode)
    except FileNotFoundError:
        return True


def _write_whole(pieces: Iterable[bytes], output: Path) -> None:
    """Write a file that is there whole or not at all: an export that broke off never stands there as one."""
    draft = output.with_name(f"{output.name}.part")
    try:
        with draft.open("wb") as file:
            _write(pieces, file)
        draft.replace(output)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _verified(export: Path, keys: list[Path], checkpoint: Path | None) -> "Verdict":
    from models.domain.audit_verifying import Verifier
    from models.domain.checkpoints import raw_keys

    public = [raw for file in keys for raw in _held_to(file, raw_keys)]
    verifier = Verifier(public, _held_to(checkpoint, _note) if checkpoint else None)
    try:
        with export.open(encoding="utf-8", newline="\n") as lines, progress() as tell:
            for number, line in enumerate(lines, 1):
                if not verifier.take(line):
                    break
                if number % _TOLD_LINES == 0:
                    tell(f"{number:,} lines verified")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(export) from error
    return verifier.verdict()


def _held_to(file: Path, read: Callable[[str], Read]) -> Read:
    """Read what an export is held to; a file that is nothing of the kind says nothing of the log."""
    try:
        return read(_text(file))
    except InvalidInput as error:
        raise Misconfigured(error.code, f"{file}: {error.message}") from None


def _note(text: str) -> str:
    from models.domain.checkpoints import read

    read(text)
    return text


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(file) from error


def _unreadable(file: Path) -> Exception:
    from models.domain.errors import Misconfigured

    return Misconfigured("file_unreadable", f"{file} cannot be read; give a file that `audit export` or you wrote")


def _write(pieces: Iterable[bytes], file: Any) -> None:
    for piece in pieces:
        file.write(piece)
    file.flush()


def _hidden(verdict: "Verdict") -> str | None:
    if not verdict.hidden:
        return None
    return f"{verdict.hidden} leaves of other workspaces" + ("" if verdict.counted else ", or withheld: none counted")


def _described(verdict: "Verdict") -> "RenderableType":
    from cli.text import facts

    return facts(
        [
            ("log", verdict.origin),
            ("workspace", verdict.workspace_id),
            ("rows", f"{verdict.rows} as they were sealed; the content of {verdict.redacted} was redacted"),
            ("not proved", f"{verdict.unsealed} rows that are not sealed" if verdict.unsealed else None),
            ("hidden", _hidden(verdict)),
            ("checkpoints", f"{verdict.checkpoints} signed, up to {verdict.size} rows of all workspaces"),
        ]
    )
