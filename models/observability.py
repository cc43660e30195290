"""How every process logs: one JSON object per line, secrets taken out."""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from models.settings import Settings

log = structlog.get_logger()

_KEYS = re.compile(r"\bmc[rs]?_[A-Za-z0-9_-]{20,}|(?<=://)[^/@\s]+:[^/@\s]+(?=@)|(?i:(?<=bearer )[A-Za-z0-9._~+/=-]+)")
"""Our API keys, passwords in URLs, and bearer tokens, wherever in a line they stand."""


def configure_logging(settings: Settings) -> None:
    """Log as settings say; also what libraries log. Call once, first thing in an entry point."""
    shared: list[Processor] = [
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
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
    )
    handler = logging.StreamHandler(sys.stdout)
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
