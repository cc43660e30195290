"""What a hostile suite prints is shown on an operator's terminal, and steers nothing there."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.printed import readable

TITLE, CLIPBOARD, CLEAR, UP = "\x1b]0;owned\x07", "\x1b]52;c;cm0gLXJm\x1b\\", "\x1b[2J\x1b[H", "\x1b[3A"
HOSTILE = [
    TITLE,
    CLIPBOARD,
    CLEAR,
    UP,
    "\x1bP+q\x1b\\",
    "\x9b2J",
    "\x1bc",
    "\b\b",
    "\r",
    "\x1b[?1049h",
    "\u202e",
    "\x1b",
]
PLAIN = ["ok\n", "half", "\n", "\t", "{", "[31m", "é", "\x1b[31m", "\x1b[0m", "\x1b[1;38:5:9m", "\x1b[K", "\r\n"]


def shown(*pieces: str) -> str:
    return "".join(readable(pieces))


def event(action: str, **more: object) -> str:
    return json.dumps({"Time": "2026-01-10T10:00:00Z", "Action": action, "Package": "p", **more}) + "\n"


def steers(text: str) -> list[str]:
    return [c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs")]


class TestTerminal:
    def test_colours_are_left_out(self) -> None:
        assert shown("\x1b[1;31mFAILED\x1b[0m a\x1b[m\x1b[K\r\n") == "FAILED a\n"

    @pytest.mark.parametrize(
        ("printed", "said"),
        [(TITLE, "\\x1b]0;owned\\x07"), (CLEAR, "\\x1b[2J\\x1b[H"), ("50%\r60%", "50%\\x0d60%"), ("\x9b2J", "\\x9b2J")],
    )
    def test_all_else_is_spelt_out(self, printed: str, said: str) -> None:
        assert shown(printed) == said

    def test_what_is_left_out_puts_nothing_together(self) -> None:
        assert shown("\x1b\x1b[m[2J", "\x1b", "\x1b[0", "m]0;x\x07") == "\\x1b[2J\\x1b]0;x\\x07"

    @given(st.lists(st.sampled_from(HOSTILE + PLAIN), max_size=12), st.integers(1, 20))
    def test_wherever_it_is_cut(self, printed: list[str], size: int) -> None:
        text = "".join(printed)
        cut = [text[start : start + size] for start in range(0, len(text), size)]
        assert steers(shown(text)) == []
        assert shown(*cut) == shown(text)

    def test_a_beginning_is_shown_before_its_line_ends(self) -> None:
        assert next(readable(["collecting ... "])) == "collecting ... "


class TestGo:
    def test_what_events_say_was_printed(self) -> None:
        printed = [event("run", Test="T"), event("output", Output="=== RUN   T\n"), event("pass", Test="T"), "plain\n"]
        assert shown(*printed) == "=== RUN   T\nplain\n"

    def test_however_it_is_cut(self) -> None:
        text = "".join(event("output", Test=f"T{n}", Output=f"line {n} \x1b[2J\n") for n in range(3))
        assert shown(*text) == "".join(f"line {n} \\x1b[2J\n" for n in range(3))

    @pytest.mark.parametrize(
        "printed",
        [
            '{"Action":"boom","Package":"p"}\n',
            '{"Action":["run"],"Package":"p"}\n',
            '{"Action":"run"}\n',
            '{"level":"info","Output":"x"}\n',
            '{"Action":"output","Package":"p","Outp',
            '{"a":' * 30_000 + "\n",
            "{" * 200_000,
        ],
    )
    def test_what_is_no_event_is_shown_as_it_is(self, printed: str) -> None:
        assert shown(*(printed[start : start + 999] for start in range(0, len(printed), 999))) == printed

    def test_the_middle_of_a_line_is_no_event(self) -> None:
        assert shown("said: ", '{"Action":"run","Package":"p"}\n') == 'said: {"Action":"run","Package":"p"}\n'
