"""Logs are lines of JSON, and hold no secret."""

import logging
import os
import sys
from collections.abc import Callable

import pytest
import structlog
from prometheus_client import REGISTRY

from models.observability import LogLines, boot_step
from tests.fixtures.logs import Lines

KEY = "mc_" + "k" * 43
Logged = Callable[[], Lines]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"key {KEY} refused", "key *** refused"),
        ("mcs_" + "s" * 43, "***"),
        ("mcr_" + "s" * 43, "***"),
        ("postgresql+psycopg://app:hunter2@db/x failed", "postgresql+psycopg://***@db/x failed"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("send `Authorization: Bearer …` with it", "send `Authorization: Bearer …` with it"),
        ("mc_short and https://example.com/a@b stay", "mc_short and https://example.com/a@b stay"),
    ],
)
def test_secrets_are_taken_out(logged: Logged, text: str, told: str) -> None:
    lines = logged()
    structlog.get_logger().warning("said", text=text)
    assert lines()[0]["text"] == told


def test_also_from_tracebacks_and_libraries(logged: Logged) -> None:
    lines = logged()
    try:
        raise ValueError(f"no such key: {KEY}")
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("somebody.else").exception("of theirs: %s", KEY)
    ours, theirs = lines()
    assert "ValueError" in ours["exception"]
    assert "ValueError" in theirs["exception"]
    assert KEY not in str((ours, theirs))


def test_what_is_bound_is_in_each_line(logged: Logged) -> None:
    lines = logged()
    with structlog.contextvars.bound_contextvars(request_id="r", mission_id="m", workflow_id="w"):
        structlog.get_logger().info("said")
    (line,) = lines()
    assert (line["request_id"], line["mission_id"], line["workflow_id"], line["level"]) == ("r", "m", "w", "info")


def test_a_step_of_a_start_is_told_by_its_name(logged: Logged) -> None:
    lines = logged()
    with boot_step("tools"):
        pass
    with pytest.raises(OSError, match="gone"), boot_step("database"):
        raise OSError("gone\nfor good")
    told = [(line["event"], line["step"], line.get("error")) for line in lines()]
    assert told == [("boot.done", "tools", None), ("boot.failed", "database", "gone")]


def test_a_line_that_cannot_be_written_is_dropped_and_counted(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", full)
        logged()
        before = counted()
        structlog.get_logger().info("ours")
        logging.getLogger("somebody.else").warning("theirs")
        assert counted() - before == 2


def test_a_torn_line_spoils_no_other_and_the_next_says_how_many_are_missing() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with open(reading, "rb", buffering=0) as log, open(writing, "w") as out:
        lines = LogLines(out)
        while not lines.dropped:
            lines.write("x" * 5000 + "\n")  # longer than what a pipe takes whole or not at all
        lines.write("dropped, too\n")
        kept = log.read(1_000_000)
        lines.write("told\n")
        kept += log.read(1000)
    *whole, torn, told = kept.decode().splitlines()
    assert set(whole) == {"x" * 5000}
    assert 0 < len(torn) < 5000
    assert told == "told"
    assert lines.note(None, "info", {"event": "told"}) == {"event": "told", "log_lines_dropped": 2}


def test_nothing_is_said_of_missing_lines_where_none_are(logged: Logged) -> None:
    lines = logged()
    structlog.get_logger().info("said")
    assert "log_lines_dropped" not in lines()[0]


def counted() -> float:
    """How many lines the metric says are missing."""
    return REGISTRY.get_sample_value("mission_control_log_lines_dropped_total") or 0
