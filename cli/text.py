"""What the terminal shows: text from a server is shown, never obeyed."""

import json
import re
import sys
import termios
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import IO, Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

# Cc and Cf hold escapes, carriage returns and bidirectional overrides; Zl and Zp break lines; Cs cannot be written.
_UNSAFE = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_PIPE_WIDTH = 200
"""Columns where nobody's window says how wide: narrow tables would cut what a pipe's reader looks for."""

COLOURS = {
    "passed": "green",
    "approved": "green",
    "merged": "green",
    "kept": "green",
    "resolved": "green",
    "failed": "red",
    "denied": "red",
    "refused": "red",
    "terminated": "red",
    "escalated": "red",
    "rolled_back": "red",
    "running": "cyan",
    "in_progress": "cyan",
    "being tried": "cyan",
    "observing": "cyan",
    "waiting_decision": "yellow",
    "pending": "yellow",
    "proposed": "yellow",
    "expired": "yellow",
    "canceled": "yellow",
}


def safe(value: object) -> str:
    """Text in which every character that could steer a terminal is spelt out; line feeds and tabs stay."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _UNSAFE else _spelt(c) for c in str(value))


def line(value: object) -> str:
    """The same on one line: what is quoted inside a line of ours cannot begin a line of its own."""
    return safe(value).replace("\n", "\\n").replace("\t", " ") if value is not None else ""


def _spelt(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def console(file: IO[str] | None = None, *, stderr: bool = False) -> Console:
    """A console that takes text as it is: no markup, no emoji codes, no guesses about highlighting."""
    made = Console(file=file, stderr=stderr, markup=False, emoji=False, highlight=False)
    if not made.is_terminal:
        made.width = _PIPE_WIDTH
    return made


def word(value: object) -> Text:
    """A state's word in its colour."""
    return Text(line(value), style=COLOURS.get(str(value), ""))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A plain table; cells are text of a server or ready `Text`."""
    headed = [Column(name, overflow="fold") for name in columns]
    made = Table(*headed, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(line(cell)) for cell in row))
    return made


def facts(pairs: Iterable[tuple[str, object]]) -> Table:
    """Names and values, one pair a line; pairs without a value are left out. A list's items have a line each.

    No value begins a line of its own, so that what somebody wrote never reads as a fact.
    """
    made = Table.grid(padding=(0, 2))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, "", [], {}, ()):
            made.add_row(name, _fact(value))
    return made


def plainly(value: object) -> str:
    """Text as it is, anything else as JSON; on one line."""
    return line(value) if isinstance(value, str) else _as_json(value)


def quoted(text: str | Text) -> Padding:
    """Text of several lines, set in on the left: no line of it, nor the rest of a long one, reads as a fact of ours."""
    return Padding(text if isinstance(text, Text) else Text(safe(text)), (0, 0, 0, 4), expand=False)


def _fact(value: object) -> RenderableType:
    if isinstance(value, Text):
        return value
    if isinstance(value, dict):
        return _parts(value)
    return Text("\n".join(map(plainly, value)) if isinstance(value, list | tuple) else plainly(value))


def _parts(value: dict[str, object]) -> Table:
    """An object's keys and values as JSON, one pair a line, each in a column of its own however long the others are."""
    made = Table.grid(padding=(0, 1))
    for _ in ("key", "value"):
        made.add_column(overflow="fold")
    for key, item in value.items():
        made.add_row(Text(f"{key if _PLAIN_KEY.fullmatch(key) else _as_json(key)}:"), Text(_as_json(item)))
    return made


def _as_json(value: object) -> str:
    return line(json.dumps(value, ensure_ascii=False))


def forget_typed() -> None:
    """Drop what was typed before a question was shown: it cannot be its answer."""
    if sys.stdin.isatty():
        termios.tcflush(sys.stdin, termios.TCIFLUSH)


def duration(seconds: float) -> str:
    """A time span as people say it: `0.4 s`, `2 min 05 s`, `1 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def moment(value: str | None) -> str:
    """A server's timestamp in local time."""
    return f"{datetime.fromisoformat(value).astimezone():%Y-%m-%d %H:%M:%S}" if value else ""


def span(record: dict[str, Any]) -> str:
    """How long a stage's record took, or nothing while it has no end."""
    begun, ended = record.get("started_at"), record.get("ended_at")
    if not begun or not ended:
        return ""
    return duration((datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds())
