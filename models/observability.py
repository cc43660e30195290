"""How every process logs: one JSON object per line, secrets taken out."""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import structlog
from prometheus_client import Counter
from structlog.typing import EventDict, Processor

from models.settings import Settings

log = structlog.get_logger()

_KEYS = re.compile(r"\bmc[rs]?_[A-Za-z0-9_-]{20,}|(?<=://)[^/@\s]+:[^/@\s]+(?=@)|(?i:(?<=bearer )[A-Za-z0-9._~+/=-]+)")
"""Our API keys, passwords in URLs, and bearer tokens, wherever in a line they stand."""

DROPPED = Counter("mission_control_log_lines_dropped", "Log lines that could not be written.")


class LogLines:
    """Where log lines go. One that cannot be written is dropped and counted: a log never breaks what it tells of."""

    def __init__(self, out: TextIO) -> None:
        # Past the buffer: it would keep what failed, and fail with it again at every line and at the process's end.
        self._out = getattr(out.buffer, "raw", out.buffer)
        self._begin = b""
        self.dropped = 0

    def write(self, text: str) -> None:
        """Write whole lines, or drop them; what comes after a torn one begins on a line of its own."""
        left = self._begin + text.encode("utf-8", "backslashreplace")
        try:
            while left:
                left = left[self._write(left) :]
                self._begin = b"\n" if left else b""
        except (OSError, ValueError):  # the second is what a closed file says
            self.dropped += 1
            DROPPED.inc()

    def flush(self) -> None:
        """Nothing waits."""

    def note(self, _logger: Any, _method: str, line: EventDict) -> EventDict:
        """Say in a line how many of this process are missing."""
        if self.dropped:
            line["log_lines_dropped"] = self.dropped
        return line

    def _write(self, content: bytes) -> int:
        written: int | None = self._out.write(content)
        if written is None:
            raise BlockingIOError("the reader of the log takes no more")
        return written


def configure_logging(settings: Settings) -> None:
    """Log as settings say; also what libraries log. Call once, first thing in an entry point."""
    lines = LogLines(sys.stdout)
    shared: list[Processor] = [
        lines.note,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer() if settings.log_format == "json" else structlog.dev.ConsoleRenderer()
    )
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(lines),  # type: ignore[arg-type]  # of a text stream it uses these two
    )
    handler = logging.StreamHandler(lines)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)


@contextmanager
def boot_step(step: str) -> Iterator[None]:
    """Log a step of a start by its name: that it is done, or that the start ends here."""
    try:
        yield
    except Exception as error:
        log.error("boot.failed", step=step, error=str(error).partition("\n")[0])
        raise
    log.info("boot.done", step=step)


def redact(_logger: Any, _method: str, line: EventDict) -> EventDict:
    """Take secrets out of whatever text a line holds."""
    return {name: without_secrets(value) if isinstance(value, str) else value for name, value in line.items()}


def without_secrets(text: str) -> str:
    """Take secrets out of a text that others will read."""
    return _KEYS.sub("***", text)
