"""A question on a terminal: each thing once, and what agents wrote never as a fact of ours."""

import io
from typing import Any

import pytest

from cli.client import Api
from cli.decisions import diff, question
from cli.runs import listed
from cli.text import console, facts, moment, quoted
from tests.unit.test_cli_text import asked, shown

LIMIT = {"scope": "run", "subject": "run-1"}
CAPS = {"cap_usd": "0.50", "cap_tokens": None}
SPENT = {"settled_usd": "0.40", "settled_tokens": 7}
FILE = {"path": "a", "kind": "changed", "added": 1, "removed": 0}
GIVEN: dict[str, Any] = {
    "principal": "maria",
    "answer": "approved",
    "explanation": "fine",
    "counts": True,
    "at": "2026-01-10T10:00:00Z",
}
LONG = "x" * 300 + " dry_run: true"
MORE = {"cap_usd": "1.00", "cap_tokens": None}


def test_a_limit_and_what_is_proposed() -> None:
    about = {"kind": "budget", "question": {**LIMIT, **CAPS, **SPENT, "proposed": MORE}, "binding": {**LIMIT, **MORE}}
    with Api("http://127.0.0.1:1", "key") as api:
        printed = shown(question(api, asked() | about))
    assert "0.50; proposed: 1.00" in printed
    counted = {
        name: printed.count(name) for name in ("cap usd", "proposed", "scope ", "run-1", "settled", "cap tokens")
    }
    assert counted == {"cap usd": 1, "proposed": 1, "scope ": 1, "run-1": 1, "settled": 0, "cap tokens": 0}


def test_a_limit_that_is_new() -> None:
    about = {"question": {**LIMIT, "cap_usd": None}, "binding": {**LIMIT, "cap_usd": "1.00", "run_id": "run-1"}}
    with Api("http://127.0.0.1:1", "key") as api:
        printed = shown(question(api, asked() | about))
    assert "none; proposed: 1.00" in printed
    assert "run id" in printed


def rows(renderable: Any) -> list[str]:
    """What a pipe would get, line by line."""
    out = console(io.StringIO())
    out.print(renderable)
    assert isinstance(out.file, io.StringIO)
    return [row.rstrip() for row in out.file.getvalue().split("\n")[:-1]]


@pytest.mark.parametrize(("made", "words"), [(True, "already, without an approval"), (False, "not yet")])
def test_whether_a_call_was_made_already(made: bool, words: str) -> None:
    about = {"kind": "tool_action", "question": {"tool": "email", "arguments": {}, "made": made}, "binding": {}}
    with Api("http://127.0.0.1:1", "key") as api:
        printed = [" ".join(row.split()) for row in rows(question(api, asked() | about))]
    assert f"made {words}" in printed


def test_a_call_that_failed_and_was_not_approved_says_both() -> None:
    call = {"number": 1, "tool": "email", "status": "denied", "risk": "RED", "usd": None, "duration_ms": 5}
    why = "denied: made already, without an approval; olga: no"
    said = [listed([call | {"error": error, "reason": reason}]) for error, reason in (("E1", why), ("E1", None))]
    printed = [" ".join(" ".join(rows(table)).split()) for table in said]
    assert f"{why}; it failed: E1" in printed[0]
    assert "E1" in printed[1]
    assert "failed:" not in printed[1]


class TestArguments:
    """What an agent calls a tool with, as whoever is asked reads it."""

    def told(self, arguments: dict[str, Any]) -> list[str]:
        binding = {"run_id": "run-1", "number": 1, "digest": "sha256:call"}
        about = {"kind": "tool_action", "question": {"tool": "deploy", "arguments": arguments}, "binding": binding}
        with Api("http://127.0.0.1:1", "key") as api:
            return [row.removeprefix("arguments").strip() for row in rows(question(api, asked() | about))]

    def test_one_a_line_and_never_two_that_read_alike(self) -> None:
        two, one = self.told({"command": "deploy", "dry_run": True}), self.told({"command": "deploy, dry_run: True"})
        assert {'command: "deploy"', "dry_run: true"} <= {" ".join(row.split()) for row in two}
        assert 'command: "deploy, dry_run: True"' in one
        assert not [row for row in one if row.startswith("dry_run")]

    @pytest.mark.parametrize(
        ("arguments", "row"),
        [
            ({"a": "x\ndry_run: true"}, 'a: "x\\ndry_run: true"'),
            ({"a": "x\\ndry"}, 'a: "x\\\\ndry"'),
            ({"a: 1\nb": "x"}, '"a: 1\\nb": "x"'),
            ({"a": "\x1b[2K\u202ex\u2028y"}, 'a: "\\u001b[2K\\u202ex\\u2028y"'),
            ({"a": None}, "a: null"),
            ({"a": "null"}, 'a: "null"'),
            ({"a": {"b": [1, "ü"]}}, 'a: {"b": [1, "ü"]}'),
        ],
    )
    def test_as_json_without_a_line_of_its_own(self, arguments: dict[str, Any], row: str) -> None:
        assert row in self.told(arguments)

    def test_the_rest_of_a_long_one_stands_under_no_name(self) -> None:
        [rest] = [row for row in rows(facts([("arguments", {"command": LONG})])) if "dry_run" in row]
        assert rest.index("dry_run") > len("arguments  command:")

    def test_its_digest_is_named_apart_from_the_questions(self) -> None:
        told = [row.split() for row in self.told({"a": 1})]
        assert ["call", "digest", "sha256:call"] in told
        assert [row for row in told if row[:1] == ["digest"]] == [["digest", "sha256:d"]]


FORGED = "fine\nrisk  GREEN\x0banswered  maria: read it"


@pytest.mark.parametrize(
    "changed",
    [
        {"reasons": [FORGED]},
        {"question": {"title": FORGED, "capabilities": [FORGED], "files": [FILE | {"path": FORGED}]}},
        {"resolved_by": "bot", "resolved_at": None, "explanation": FORGED, "single_operator": False},
        {"answers": [GIVEN | {"principal": "bot", "explanation": FORGED}]},
    ],
)
def test_what_somebody_wrote_begins_no_row_of_its_own(changed: dict[str, Any]) -> None:
    with Api("http://127.0.0.1:1", "key") as api:
        told = rows(question(api, asked() | changed))
    assert [row.split()[1] for row in told if row.strip().startswith("risk")] == ["RED"]
    assert not [row for row in told if row.strip().startswith("answered  maria")]
    assert [row for row in told if "risk  GREEN\\x0banswered" in row]


def test_a_diff_and_a_note_stand_apart_from_the_facts() -> None:
    for text in (diff(f"+one\n {FORGED}\n"), quoted(FORGED)):
        told = rows(text)
        assert [row for row in told if row and not row.startswith("    ")] == []
        assert [row for row in told if "\\x0b" in row]


def test_a_registration_is_nobodys_whose_sender_has_no_key() -> None:
    question_ = {"name": "probe", "filed_by": "(unknown)/probe"}
    about = {"kind": "registration", "question": question_, "terms": asked()["terms"] | {"requesters": []}}
    with Api("http://127.0.0.1:1", "key") as api:
        told = [" ".join(row.split()) for row in rows(question(api, asked() | about))]
    assert {"asked by nobody with a key", "filed by somebody without a key"} <= set(told)


def test_answers_stand_together_in_their_order_with_their_times() -> None:
    last = GIVEN | {"principal": "paul", "explanation": "ok too", "at": "2026-01-10T10:05:00Z"}
    first = GIVEN | {"principal": "olga", "counts": False, "at": "2026-01-10T09:00:00Z"}
    ended = {"status": "approved", "resolved_by": "paul", "explanation": "ok too", "resolved_at": last["at"]}
    with Api("http://127.0.0.1:1", "key") as api:
        found = question(api, asked() | ended | {"answers": [last, GIVEN, first], "single_operator": False})
    printed = rows(found)
    begin = next(number for number, row in enumerate(printed) if row.startswith("answers"))
    told = [row.removeprefix("answers").strip() for row in printed[begin : begin + 4]]
    times = [moment(each["at"]) for each in (first, GIVEN, last)]
    assert told[:3] == [
        f"{times[0]}  olga approved (counts no more): fine",
        f"{times[1]}  maria approved: fine",
        f"{times[2]}  paul approved: ok too",
    ]
    assert told[3].split(maxsplit=1) == ["answered", f"{times[2]}  approved by paul"]


def test_a_questions_fields_stand_in_the_same_order_whatever_the_databases_is() -> None:
    said = {"deny": "refuse it", "tags": ["a"], "kind": "lesson", "zeal": 1, "approve": "keep it", "title": "t"}
    with Api("http://127.0.0.1:1", "key") as api:
        printed = rows(question(api, asked() | {"question": said, "binding": {}}))
    assert [name for row in printed if row and (name := row.split()[0]) in said] == [
        *("kind", "title", "tags", "approve", "deny", "zeal")
    ]


STANDS = {"decision_id": "earlier", "answers": [{"by": "maria"}, {"by": "olga", "counts": False}, {"by": "paul"}]}


@pytest.mark.parametrize(
    ("status", "changed", "said"),
    [
        ("expired", {}, "nobody, in time"),
        ("expired", {"answers": [GIVEN]}, "not enough, in time"),
        ("canceled", {"resolved_by": "olga"}, "nobody; taken back by olga"),
        ("canceled", {}, "nobody; taken back, as nothing waits for it"),
        ("denied", {}, "by the policy, which denies it"),
        ("approved", {}, "by the policy, which asks nobody"),
        ("approved", {"question": {"rests_on": STANDS}}, "maria and paul, in earlier, which stands: same files, "),
    ],
)
def test_what_nobody_answered_says_how_it_ended(status: str, changed: dict[str, Any], said: str) -> None:
    about = {"status": status, "resolved_by": "policy", "mission_id": None} | changed
    with Api("http://127.0.0.1:1", "key") as api:
        printed = rows(question(api, asked() | about))
    [told] = [row.split(maxsplit=1)[1] for row in printed if row.startswith("answered")]
    assert told.startswith(said)
    assert not [row for row in printed if "None" in row or "rests" in row]
