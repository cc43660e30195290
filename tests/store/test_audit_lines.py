"""An export whose lines were changed is found out: every position of a log of 1,000 rows."""

import copy
import json
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from models.domain.audit import FIELDS, Line, content_digest, leaf_of
from models.domain.audit_verifying import Problem, Verifier
from models.domain.checkpoints import raw_key
from tests.fixtures.audit import judged
from tests.fixtures.sealed_log import ROUNDS, ROWS, Entry, Log, log

__all__ = ["log"]


async def test_as_it_is_nothing_is_wrong(log: Log) -> None:
    verdict = judged(log.lines, log.key)
    assert (verdict.rows, verdict.size, verdict.checkpoints, verdict.problem) == (ROWS, 1_300, ROUNDS, None)


def reworded(row: Entry) -> Entry:
    return row | {"content": row["content"].replace("because", "by order")}


def rehashed(row: Entry) -> Entry:
    """Make everything that follows from a row's fields anew, as one who can write to all tables would."""
    changed = row | {"digest": content_digest(bytes.fromhex(row["salt"]), row["content"]).hex()}
    return changed | {"leaf": leaf_of(changed).hex()}


def shifted(entries: list[Entry], by: int) -> Iterator[Entry]:
    """Give later rows the places that fit again."""
    for entry in entries:
        if entry["kind"] == "row":
            yield rehashed(entry | {"index": entry["index"] + by, "seq": entry["seq"] + by})
        elif entry["kind"] == "hidden":
            yield entry | {"index": entry["index"] + (by if entry["level"] == 0 else 0)}
        else:
            yield entry


def swapped(first: Entry, second: Entry) -> tuple[Entry, Entry]:
    """Let two rows stand for each other, each in the other's place."""
    places = ("index", "seq", "leaf")
    kept = [{name: row[name] for name in places} for row in (first, second)]
    return second | kept[0], first | kept[1]


def forged(row: Entry) -> Entry:
    return rehashed(row | {"id": 10**9, "xid": str(int(row["xid"])), "actor": "mallory"})


def hidden(row: Entry) -> Entry:
    """Give a row's hash only, as of a row of another workspace."""
    return {"kind": "hidden", "level": 0, "index": row["index"], "hash": row["leaf"]}


def unsealed(row: Entry) -> Entry:
    return only("unsealed", forged(row))


def only(kind: str, row: Entry) -> Entry:
    """Make a line of another kind of a row, with the fields that it may have."""
    return {name: value for name, value in row.items() if name in FIELDS[Line(kind)]} | {"kind": kind}


Tail = list[Entry]
"""A row, and all that follows it."""
KINDS: dict[str, tuple[bool, Callable[[Tail, Entry], Tail]]] = {
    "content changed": (True, lambda tail, _: [reworded(tail[0]), *tail[1:]]),
    "content and digest changed": (True, lambda tail, _: [rehashed(reworded(tail[0])) | leaf(tail[0]), *tail[1:]]),
    "actor changed": (True, lambda tail, _: [tail[0] | {"actor": "mallory"}, *tail[1:]]),
    "time changed": (True, lambda tail, _: [tail[0] | {"at": "2020-01-01T00:00:00.000000Z"}, *tail[1:]]),
    "changed with its leaf": (False, lambda tail, _: [rehashed(reworded(tail[0])), *tail[1:]]),
    "deleted": (True, lambda tail, _: [only("missing", tail[0]), *tail[1:]]),
    "deleted with its leaf": (False, lambda tail, _: list(shifted(tail[1:], -1))),
    "swapped": (True, lambda tail, other: [swapped(tail[0], other)[0], *tail[1:]]),
    "swapped with leaves": (False, lambda tail, other: [rehashed(swapped(tail[0], other)[0]), *tail[1:]]),
    "inserted with a leaf": (False, lambda tail, _: [forged(tail[0]), *shifted(tail, 1)]),
}
"""What is done to a row, and whether its leaf survives, so that the row is named."""


def leaf(row: Entry) -> Entry:
    return {"leaf": row["leaf"]}


class TestLines:
    """The lines of an export are changed, at every row."""

    @pytest.mark.parametrize("kind", KINDS)
    async def test_it_is_found_in_every_position(self, log: Log, kind: str) -> None:
        survives, change = KINDS[kind]
        entries = [json.loads(line) for line in log.lines]
        places = [number for number, entry in enumerate(entries) if entry["kind"] == "row"]
        verifier, checkpoint = Verifier([raw_key(log.key.public_openssh)]), 0
        assert len(places) == ROWS
        for number, entry in enumerate(entries):
            if entry["kind"] == "row":
                other = entries[places[places.index(number) - 1]]
                problem = first_problem(verifier, change(entries[number : number + 25], other))
                assert problem, f"{kind} at {number}"
                if survives:
                    assert problem.row in (entry["id"], other["id"]), problem
                elif problem.between:
                    assert problem.between[0] == checkpoint, problem
                else:
                    assert problem.code == "order", problem
            elif entry["kind"] == "checkpoint":
                checkpoint = int(entry["note"].split("\n")[1])
            assert verifier.take(log.lines[number])
        assert verifier.verdict().is_good

    async def test_a_row_that_was_put_among_sealed_ones_is_named(self, log: Log) -> None:
        entries = [json.loads(line) for line in log.lines]
        for row in [entry for entry in entries if entry["kind"] == "row"][::97]:
            problem = judged([*log.lines[:-1], json.dumps(unsealed(row)), log.lines[-1]], log.key).problem
            assert problem
            assert (problem.code, problem.row) == ("row_inserted", 10**9)

    async def test_the_checkpoints_in_between_are_held_to_the_rows(self, log: Log) -> None:
        notes = [number for number, line in enumerate(log.lines) if '"checkpoint"' in line]
        for first, second in pairwise(notes):
            lines = list(log.lines)
            lines[first], lines[second] = lines[second], lines[first]
            problem = judged(lines, log.key).problem
            assert problem
            assert problem.between

    async def test_an_export_that_was_cut_off_is_no_whole_one(self, log: Log) -> None:
        for upto in range(1, len(log.lines), 50):
            problem = judged(log.lines[:upto], log.key).problem
            assert problem
            assert problem.code == "cut_off"

    @pytest.mark.parametrize(
        "line",
        [
            "",
            "{",
            "null",
            "[]",
            '{"kind": "row"}',
            '{"kind": "other"}',
            '{"kind": "log"}',
            '{"kind": "hidden"}',
            "\x00",
        ],
    )
    async def test_a_line_that_is_none_is_told(self, log: Log, line: str) -> None:
        for at in (0, 1, 7):
            problem = judged([*log.lines[:at], line, *log.lines[at:]], log.key).problem
            assert problem
            assert problem.code in ("malformed", "order")

    @pytest.mark.parametrize("value", [None, True, -1, 1.5, 10**30, "x", "\ud800", [], {}, [[[]]]], ids=str)
    async def test_no_value_of_a_field_makes_it_stumble(self, log: Log, value: object) -> None:
        for kind in ("log", "row", "hidden", "checkpoint", "count"):
            number = next(n for n, line in enumerate(log.lines) if json.loads(line)["kind"] == kind)
            entry = json.loads(log.lines[number])
            for name in entry.keys() - {"workspace_id"} if kind == "log" else entry:
                if entry[name] != value:
                    lines = [*log.lines[:number], json.dumps(entry | {name: value}), *log.lines[number + 1 :]]
                    is_good = judged(lines, log.key).is_good
                    assert not is_good or name in NOT_SIGNED, (kind, name)

    @pytest.mark.parametrize("kind", ["log", "row", "hidden", "checkpoint", "count", "end"])
    @pytest.mark.parametrize("given", ["first", "last", "unknown"])
    async def test_no_line_says_more_than_was_sealed(self, log: Log, kind: str, given: str) -> None:
        """A field more, or one twice, whichever of the two a reader then believes."""
        at = next(n for n, line in enumerate(log.lines) if json.loads(line)["kind"] == kind)
        line = log.lines[at]
        name = list(json.loads(line))[-1]
        more, where = f'"{"extra" if given == "unknown" else name}": "evil"', line.rindex("}")
        changed = f"{{{more}, {line[1:]}" if given == "first" else f"{line[:where]}, {more}{line[where:]}"
        problem = judged([*log.lines[:at], changed, *log.lines[at + 1 :]], log.key).problem
        assert problem
        assert (problem.code, f"line {at + 1}, after " in problem.message) == ("line_extended", True)
        assert ("extra" if given == "unknown" else name) in problem.message

    async def test_no_row_that_is_not_sealed_says_more_than_an_export_does(self, log: Log) -> None:
        row = next(json.loads(line) for line in log.lines if json.loads(line)["kind"] == "row")
        added = json.dumps({**row, "kind": "unsealed"})
        problem = judged([*log.lines[:-1], added, log.lines[-1]], log.key).problem
        assert problem
        assert problem.code == "line_extended"

    @pytest.mark.parametrize("spell", [lambda old: f"{old} ", lambda old: f" {old}", str.upper], ids=["b", "a", "A"])
    async def test_hex_is_spelt_in_one_way(self, log: Log, spell: Callable[[str], str]) -> None:
        for kind, name in (
            ("row", "leaf"),
            ("row", "salt"),
            ("hidden", "hash"),
            ("count", "salt"),
            ("count", "hashes"),
        ):
            entry, at = next((json.loads(line), at) for at, line in enumerate(log.lines) if f'"{kind}"' in line)
            old = entry[name]
            entry[name] = [spell(old[0]), *old[1:]] if isinstance(old, list) else spell(old)
            assert entry[name] != old
            problem = judged([*log.lines[:at], json.dumps(entry), *log.lines[at + 1 :]], log.key).problem
            assert problem, (kind, name)
            assert (problem.code, "hex digits are small" in problem.message) == ("malformed", True)

    async def test_the_rows_are_counted_once(self, log: Log) -> None:
        count = next(line for line in log.lines if '"count"' in line)
        row = next(json.loads(line) for line in log.lines if '"row"' in line)
        waiting = json.dumps(only("unsealed", row | {"xid": str(10**12), "id": 10**9}))
        assert judged([*log.lines[:-1], waiting, log.lines[-1]], log.key).is_good
        problem = judged([*log.lines[:-1], count, log.lines[-1]], log.key).problem
        assert problem
        assert (problem.code, "counted once" in problem.message) == ("malformed", True)

    async def test_each_kind_stands_behind_those_before_it(self, log: Log) -> None:
        """A row that waits, put among sealed ones, would look like one of them to who reads the file."""
        kinds = ("row", "hidden", "checkpoint", "count")
        at = {kind: next(n for n, line in enumerate(log.lines) if json.loads(line)["kind"] == kind) for kind in kinds}
        row, count = json.loads(log.lines[at["row"]]), log.lines[at["count"]]
        waiting = json.dumps(only("unsealed", row | {"xid": str(10**12), "id": 10**9}))
        early = json.dumps(only("unsealed", row | {"id": row["id"] - 1, "actor": "mallory"}))
        for place, line in [*((place, waiting) for place in at.values()), (at["row"], early)]:
            problem = judged([*log.lines[:place], line, *log.lines[place:]], log.key).problem
            assert problem
            assert (problem.code, "as in no export" in problem.message) == ("order", True), problem
        for lines in ([waiting, count], [log.lines[at["checkpoint"]]], [log.lines[at["hidden"]]]):
            problem = judged([*log.lines[:-1], *lines, log.lines[-1]], log.key).problem
            assert problem
            assert (problem.code, "as in no export" in problem.message) == ("order", True)

    @pytest.mark.parametrize("gone", [1, 3])
    async def test_rows_that_are_missing_are_not_said_to_be_the_next_one(self, log: Log, gone: int) -> None:
        """Rows, and their leaves, are taken out: the next row is as it was, and shows only where they belong."""
        places = [at for at, line in enumerate(log.lines) if '"row"' in line][500 : 501 + gone]
        lines = [line for at, line in enumerate(log.lines) if at not in places[:-1]]
        row = json.loads(log.lines[places[-1]])
        hashes = [json.dumps(hidden(json.loads(log.lines[at]))) for at in places[:-1]]
        lines[places[0] : places[0]] = hashes
        problem = judged(lines, log.key).problem
        assert problem
        missing = "number 501 is missing before it" if gone == 1 else "number 501 to number 503 are missing before it"
        assert (problem.code, problem.row, missing in problem.message) == ("order", row["id"], True), problem

    async def test_no_act_that_is_not_sealed_excuses_that_content_is_gone(self, log: Log) -> None:
        """Whoever passes the file on takes a row's content away, and writes the act that is to tell of it."""
        places = [at for at, line in enumerate(log.lines) if '"row"' in line]
        for at in places[::97]:
            row = json.loads(log.lines[at])
            gone = json.dumps(row | {"content": None, "salt": None})
            told = {"id": 10**9, "xid": str(10**12), "action": "audit.redacted", "subject_id": str(row["id"])}
            act = json.dumps(only("unsealed", rehashed(row | told)))
            lines = [*log.lines[:at], gone, *log.lines[at + 1 : -1]]
            for excuse, code in (([], "content_removed"), ([act], "redaction_unsealed")):
                problem = judged([*lines, *excuse, log.lines[-1]], log.key).problem
                assert problem
                assert (problem.code, problem.row) == (code, row["id"])

    async def test_nesting_without_end_is_no_line(self, log: Log) -> None:
        problem = judged([log.lines[0], "[" * 100_000], log.key).problem
        assert problem
        assert problem.code == "malformed"


def first_problem(verifier: Verifier, tail: Tail) -> Problem | None:
    """Let a copy of the verifier go on with other lines."""
    other = copy.deepcopy(verifier)
    for entry in tail:
        if not other.take(json.dumps(entry, ensure_ascii=False)):
            break
    return other.verdict().problem


NOT_SIGNED = ("epoch", "xid", "id")
"""What a checkpoint's line says of its last row only helps to tell rows that wait from rows that were put in."""
