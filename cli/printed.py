"""What a command printed, made fit for a terminal: its text, without its colours, and never obeyed."""

import json
import re
from collections.abc import Iterable, Iterator

from cli.text import safe

# Colours, the end of a line that is erased behind them, and the returns before line feeds: to be left out. All else
# that could steer a terminal is spelt out by `safe`, also where leaving something out has put it together.
_LEFT_OUT = re.compile(r"\x1b\[[0-9;:]*[mK]|\r(?=\n)")
_UNFINISHED = re.compile(r"(?:\x1b(?:\[[0-9;:]{0,64})?|\r)\Z")
_LINES = re.compile(r"[^\n]*\n|[^\n]+")

_GO_ACTIONS = frozenset(
    ["start", "run", "pause", "cont", "pass", "bench", "fail", "skip", "attr", "output", "build-output", "build-fail"]
)
_MAX_EVENT = 64 * 1024


def readable(pieces: Iterable[str]) -> Iterator[str]:
    """Make a log readable as it comes, wherever it is cut; of `go test -json`, show what the events say was printed."""
    held, inside = "", False
    for piece in pieces:
        ready, held = _parted(held + piece, inside)
        yield _shown(ready, inside)
        inside = not ready.endswith("\n") if ready else inside
    yield _shown(held, inside)


def _parted(text: str, inside: bool) -> tuple[str, str]:
    """Hold back what cannot be judged yet: a line that may become an event, and a sequence that goes on."""
    before, feed, last = text.rpartition("\n")
    if last.startswith("{") and (feed or not inside) and len(last) < _MAX_EVENT:
        return before + feed, last
    unfinished = _UNFINISHED.search(text)
    cut = unfinished.start() if unfinished else len(text)
    return text[:cut], text[cut:]


def _shown(text: str, inside: bool) -> str:
    lines = _LINES.findall(text)
    told = (line if inside and number == 0 else _printed_by(line) for number, line in enumerate(lines))
    return safe(_LEFT_OUT.sub("", "".join(told)))


def _printed_by(line: str) -> str:
    """Give what an event of `go test -json` says was printed; any other line is what was printed."""
    if not line.startswith("{"):
        return line
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return line
    if str(event.get("Action")) not in _GO_ACTIONS or not ("Package" in event or "ImportPath" in event):
        return line
    return str(event.get("Output", ""))
