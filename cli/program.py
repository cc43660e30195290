"""What holds for every command line: its words are text, and an answer that cannot be written is missed aloud."""

import io
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from cli.errors import Refused, told
from models.domain.errors import Misconfigured
from models.domain.wording import plain


class Program(TyperGroup):
    """The program with all its commands."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        """Run a command line; one that is no text begins nothing, and no answer is lost without a word."""
        words = sys.argv[1:] if args is None else list(args)
        try:
            with told(as_json="--json" in words):
                _require_text(words)
                _watch_output()
                return super().main(words, *more, **extra)
        except typer.Exit as end:
            sys.exit(end.exit_code)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named; what is wrong with its words is said without the names of Python's types."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = plain(error.message)
            raise


def _require_text(words: Sequence[str]) -> None:
    """Refuse words that no request can hold, by their place alone: one may be a key."""
    for number, word in enumerate(words, 1):
        if any("\ud800" <= character <= "\udfff" for character in word):
            raise Misconfigured("wrong_word", f"word {number} of the command is no UTF-8 text: give it as such")


def _watch_output() -> None:
    out = sys.stdout
    if out is None:
        raise Refused("output_failed", "standard output is closed: let it go somewhere, if only to /dev/null")
    if sys.stdout is sys.__stdout__:
        raw = _Output(out.fileno(), "wb", closefd=False)
        buffer = io.BufferedWriter(raw)
        # A terminal may lack characters that a name has: it shows their numbers.
        sys.stdout = io.TextIOWrapper(buffer, out.encoding, "backslashreplace", line_buffering=bool(out.line_buffering))


class _Output(io.FileIO):
    """Standard output, whose failure is told from that of any other file, and once."""

    _failed = False

    def write(self, data: Any, /) -> int:
        if self._failed:
            return len(data)
        try:
            return super().write(data)
        except BrokenPipeError:
            raise  # whoever reads has read enough, and is told nothing
        except OSError as error:
            self._failed = True
            why = f"standard output cannot be written: {error.strerror}"
            raise Refused("output_failed", f"{why}; what was asked for may be done") from None
