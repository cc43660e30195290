"""Text of a server on a terminal: shown, never obeyed."""

import io
import os
import sys
from typing import Any

import pytest
from rich.console import Console

from cli.agents import described
from cli.client import Api
from cli.decisions import question
from cli.text import console, duration, facts, forget_typed, line, safe, table
from cli.watch import StageLines, candidate_table, ending, stage_table


def shown(renderable: Any) -> str:
    """What a colour terminal would get."""
    out = Console(file=io.StringIO(), force_terminal=True, width=200, markup=False, emoji=False, highlight=False)
    out.print(renderable)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def stage(**changed: object) -> dict[str, Any]:
    """A stage's record as the API shows it."""
    return {
        "stage": "run_tests",
        "number": "4",
        "round": 0,
        "candidate": 0,
        "status": "passed",
        "reason": "",
        "attempt": 1,
        "started_at": "2026-01-10T10:00:00Z",
        "ended_at": "2026-01-10T10:00:01.5Z",
    } | changed


@pytest.mark.parametrize(
    ("hostile", "spelt"),
    [
        ("\x1b[2J\x1b[31mred", "\\x1b[2J\\x1b[31mred"),
        ("a\rb", "a\\x0db"),
        ("a\x07", "a\\x07"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2028", "\\u2028"),
        ("\x9b31m", "\\x9b31m"),
        ("\U000e0041", "\\U000e0041"),
        ("[bold red]x[/] :bomb:", "[bold red]x[/] :bomb:"),
        ("ünïcode 漢字", "ünïcode 漢字"),
    ],
)
def test_control_characters_are_spelt_out(hostile: str, spelt: str) -> None:
    assert safe(hostile) == spelt


def test_a_quoted_line_cannot_begin_a_line_of_its_own() -> None:
    assert line("one\n 9  merge  passed") == "one\\n 9  merge  passed"
    assert safe("one\ntwo") == "one\ntwo"


HOSTILE = "\x1b]0;owned\x07[red]passed[/red]\x1b[2K"


def test_nothing_we_render_passes_an_escape_of_the_server_on() -> None:
    mission = {"mission_id": HOSTILE, "outcome": "failed", "reason": HOSTILE}
    renderables = [
        table(("a",), [(HOSTILE,)]),
        facts([("a", HOSTILE)]),
        stage_table([stage(reason=HOSTILE, stage=HOSTILE, number=HOSTILE, status=HOSTILE)]),
        ending(mission),
    ]
    for renderable in renderables:
        text = shown(renderable)
        assert "\x1b]" not in text
        assert "\x1b[2K" not in text
        assert "\x07" not in text
        assert "[red]passed[/red]" in text


class TestStageLines:
    """What `mission watch` prints, without a terminal."""

    def test_tells_stage_verdict_time_and_reason(self) -> None:
        out = console(io.StringIO())
        StageLines(out).stage_ended(stage(status="failed", reason="1 of 2 must-pass tests fails"))
        assert out.file.getvalue().split() == [  # type: ignore[attr-defined]  # it is the StringIO above
            *("4", "run_tests", "failed", "1.5", "s"),
            *("1", "of", "2", "must-pass", "tests", "fails"),
        ]

    def test_says_where_the_next_candidate_and_the_next_round_begin(self) -> None:
        out = console(io.StringIO())
        lines = StageLines(out)
        for place in ({}, {"candidate": 1}, {"candidate": 1, "round": 1}):
            lines.stage_ended(stage(**place))
        printed = out.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO above
        assert printed.count("candidate 1") == 1
        assert printed.count("the target branch moved") == 1

    @pytest.mark.parametrize(
        ("action", "result", "told"),
        [
            ("pause", "stops_command: lunch: one hour", "paused by olga (lunch: one hour)"),
            ("pause", "holds_before_next_stage", "paused by olga"),
            ("resume", "", "resumed by olga"),
            ("cancel", "fix: by hand", "canceled by olga (fix: by hand)"),
            ("note", "two\nlines", "noted by olga (two\\nlines)"),
        ],
    )
    def test_tells_who_said_what_and_why(self, action: str, result: str, told: str) -> None:
        out = console(io.StringIO())
        StageLines(out).steered({"actor": "olga", "action": action, "result": result})
        assert out.file.getvalue().strip() == told  # type: ignore[attr-defined]  # it is the StringIO above

    def test_tells_of_a_block_once(self) -> None:
        out = console(io.StringIO())
        lines = StageLines(out)
        for blocked in (None, "the cap", "the cap", None):
            lines.now({"outcome": None, "blocked": blocked}, None)
        assert out.file.getvalue().split("\n") == ["    blocked: the cap", "    no longer blocked", ""]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (59.99, "60.0 s"), (125, "2 min 05 s"), (4_200, "1 h 10 min")],
)
def test_durations_read_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_what_was_typed_before_a_question_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard, terminal = os.openpty()
    with open(terminal) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        os.write(keyboard, b"y\n")
        forget_typed()
        os.write(keyboard, b"n\n")
        assert stdin.readline() == "n\n"
    os.close(keyboard)


def test_a_question_gives_its_reasons_once() -> None:
    with Api("http://127.0.0.1:1", "key") as api:
        printed = shown(question(api, asked()))
    assert printed.count("the branch is protected") == 1
    assert "2 different people of role operator or higher" in printed


def test_a_question_says_what_it_binds_has_cost_and_comes_to() -> None:
    with Api("http://127.0.0.1:1", "key") as api:
        printed = shown(question(api, asked()))
        timed = shown(question(api, asked() | {"expires_at": "2026-01-02T03:04:05Z"}))
    said = ("sha256:d", "cost so far", "1.25 USD, 7 tokens", "never")
    assert [words for words in said if words not in printed] == []
    assert ", and is denied then" in timed


def test_a_silent_agent_is_shown_as_such() -> None:
    names = ("registration", "status", "level", "endpoint", "requested_by", "decided_at", "decided_by")
    agent: dict[str, Any] = dict.fromkeys((*names, "run_cap_usd", "daily_cap_usd", "agent_id", "name"), "x")
    agent |= {"capabilities": [], "tools": [], "decided_at": None, "created_at": "2026-01-02T03:04:05Z"}
    agent |= {"last_heartbeat_at": "2026-01-02T03:04:05Z"}
    assert "(stale)" in shown(described(agent | {"silence": "stale"}))
    assert "(none)" not in shown(described(agent | {"silence": "none"}))


def asked() -> dict[str, Any]:
    """A question as the API shows it."""
    names = ("mission_id", "resolved_by", "explanation", "expires_at")
    binding = {"patch_id": "p", "reasons": ["the branch is protected"]}
    return dict.fromkeys(names) | {
        "decision_id": "d",
        "status": "pending",
        "risk": "RED",
        "reasons": ["the branch is protected"],
        "question": {},
        "binding": binding,
        "answers": [],
        "terms": {"role": "operator", "people": 2, "agents": [], "requesters": ["olga", "worker"]},
        "digest": "sha256:d",
        "cost_so_far": {"usd": "1.25", "tokens": 7},
        "when_expired": "denied",
    }


def candidate(number: int, outcome: str | None = None) -> dict[str, Any]:
    """A candidate as the API shows it."""
    return {"number": number, "outcome": outcome, "author": "olga", "ref": "fix", "digest": None, "reason": None}


def test_candidates_are_told_as_their_stages_go() -> None:
    def told(*stages: dict[str, Any]) -> list[str]:
        found = shown(candidate_table([candidate(0), candidate(1)], list(stages))).splitlines()[1:]
        return [next(word for word in ("not tried", "being tried", "failed", "passed") if word in row) for row in found]

    first = [stage(stage="branch_and_patch", number="3"), stage(status="running", ended_at=None)]
    assert told() == ["not tried", "not tried"]
    assert told(stage(stage="fetch_context", number="1")) == ["not tried", "not tried"]
    assert told(*first) == ["being tried", "not tried"]
    assert told(stage(status="failed"), stage(candidate=1, status="running")) == ["failed", "being tried"]
    assert told(stage(), stage(stage="publish_diagnostics")) == ["passed", "not tried"]
    assert told(stage(), stage(stage="publish_diagnostics"), stage(round=1)) == ["being tried", "not tried"]


def test_why_a_candidate_failed_is_told_before_the_missions_end() -> None:
    row = shown(candidate_table([candidate(0)], [stage(status="failed", reason="2 failed")])).splitlines()[1]
    assert "run_tests: 2 failed" in row


def test_what_the_mission_kept_goes_before_its_stages() -> None:
    assert "passed" in shown(candidate_table([candidate(0, "passed")], [stage(status="failed")])).splitlines()[1]
