"""Verifying an export of the audit log, line by line, in memory that does not grow with it, by public keys alone."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from models.domain.audit import FIELDS, PART_OF, SALT_BYTES, Line, content_digest, leaf_of, place_of, raw
from models.domain.audit_counts import Counts, counts_of, proves_count
from models.domain.checkpoints import Checkpoint, verify
from models.domain.errors import InvalidInput
from models.domain.events import EventType
from models.domain.merkle import Frontier

Entry = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """The first thing that is wrong: with a row, where its leaf survives, else between two checkpoints."""

    code: str
    message: str
    row: int | None = None
    """The id of the row, where it is known: of `order`, the one that stands where another belongs."""
    between: tuple[int, int] | None = None
    """The sizes of the checkpoints, where no row can be named."""


_NONSENSE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What a line raises that no export has."""
_HIGHEST = 63
_AGAIN = "export again; if that says so, too, the log itself was changed (docs/audit.md)"


def _wrong(error: Exception) -> str:
    """Say what is wrong with such a line, to who knows nothing of our Python."""
    match error:
        case json.JSONDecodeError() | RecursionError():
            return "it is no JSON"
        case KeyError():
            return f"it has no {error}"
        case ValueError():
            return str(error)
    return "its values are none of such a line"


class _Found(Exception):
    def __init__(self, code: str, message: str, **where: Any) -> None:
        super().__init__(message)
        self.problem = Problem(code, message, **where)


class _Extended(Exception):
    """A line holds more than was sealed."""


def _once(pairs: list[tuple[str, Any]]) -> Entry:
    """Take no field twice: of two values a reader may believe the one that was not checked."""
    entry = dict(pairs)
    if len(entry) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Extended(f"gives {max(names, key=names.count)[:_SHOWN]!r} twice")
    return entry


def _require_known(kind: Line, entry: Entry) -> None:
    if more := entry.keys() - FIELDS[kind]:
        raise _Extended(f"has a field {min(more)[:_SHOWN]!r}, as no {kind} line has")


_SHOWN = 60
_LINES = json.JSONDecoder(object_pairs_hook=_once)


@dataclass
class Verdict:
    """What an export was found to be."""

    origin: str = ""
    workspace_id: str = ""
    rows: int = 0
    redacted: int = 0
    unsealed: int = 0
    checkpoints: int = 0
    size: int = 0
    """How many leaves the last checkpoint covers, those of other workspaces among them."""
    counted: bool = False
    """Whether the last checkpoint says how many rows the workspace has, and all of them are here."""
    problem: Problem | None = None

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem is None

    @property
    def hidden(self) -> int:
        """How many leaves are given by their hashes only: of other workspaces, or, where none `counted`, withheld."""
        return max(0, self.size - self.rows)

    def shortfall(self, *, strict: bool) -> Problem | None:
        """Say why an export without a fault still proves too little; `strict` wants its rows sealed and counted."""
        if not self.rows:
            return Problem("nothing_to_verify", "the export has no sealed row of the workspace: it proves nothing")
        if strict and self.unsealed:
            return Problem("unsealed", f"{self.unsealed} rows are not sealed, and nothing proves them: export again")
        if strict and not self.counted:
            message = "the last checkpoint is from before rows were counted: rows may be withheld; export again"
            return Problem("not_counted", message)
        return None

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {"good": self.is_good, "hidden": self.hidden, **asdict(self)}


@dataclass
class Verifier:
    """Reads an export; `take` each line until it says no, then ask for the `verdict`.

    `kept` is a checkpoint that was kept elsewhere: the log must have passed through it.
    """

    public_keys: Sequence[bytes]
    kept: str | None = None
    _verdict: Verdict = field(default_factory=Verdict)
    _tree: Frontier = field(default_factory=Frontier)
    _last: Entry | None = None
    _place: tuple[int, int, int] = (0, 0, 0)
    _sealed_place: tuple[int, int, int] = (0, 0, 0)
    _leaves: int = 0
    _taken: int = 0
    _kept: Checkpoint | None = None
    _counts: Counts | None = None
    """What the last checkpoint says of all workspaces."""
    _is_counted: bool = False
    _ended: bool = False
    _emptied: set[int] = field(default_factory=set)
    """Rows without content of whose redaction no sealed act has told yet."""
    _excuses: set[int] = field(default_factory=set)
    """Rows of whose redaction an act tells that is not sealed: nothing proves it."""

    def __post_init__(self) -> None:
        """Read the checkpoint that was kept, which must be signed as well; raises `InvalidInput`."""
        self._kept = verify(self.kept, self.public_keys) if self.kept else None

    def take(self, line: str) -> bool:
        """Look at the next line; false once something is wrong. Blank ones behind the last are none."""
        self._taken += 1
        if self._ended and not line.strip():
            return self._verdict.is_good
        try:
            entry = _LINES.decode(line)
            self._step(Line(entry["kind"]), entry)
        except _Found as found:
            self._verdict.problem = found.problem
        except InvalidInput as error:
            self._verdict.problem = Problem(error.code, error.message, between=self._between())
        except _Extended as extended:
            told = f"line {self._taken}, after {self._verdict.rows} rows, {extended}: nothing proves what was added"
            self._verdict.problem = Problem("line_extended", told)
        except _NONSENSE as error:
            why = f"none of an export ({_wrong(error)})" if line.strip() else "empty"
            hint = ": give a file that `audit export` wrote" if self._taken == 1 else ""
            told = f"line {self._taken}, after {self._verdict.rows} rows, is {why}{hint}"
            self._verdict.problem = Problem("malformed", told)
        return self._verdict.is_good

    def verdict(self) -> Verdict:
        """Tell what was found in all lines."""
        if self._verdict.is_good:
            try:
                self._finish()
            except _Found as found:
                self._verdict.problem = found.problem
        return self._verdict

    def _step(self, kind: Line, entry: Entry) -> None:
        if self._ended or (kind is Line.LOG) is not (self._last is None):
            raise ValueError(f"no {kind} line may stand here")
        _require_known(kind, entry)
        self._follows(kind)
        _STEPS[kind](self, entry)
        self._last = entry

    def _follows(self, kind: Line) -> None:
        """Hold a line to its part of the file: what is not sealed stands behind all that is, and not among it."""
        last = Line(self._last["kind"]) if self._last else Line.LOG
        if PART_OF[kind] < PART_OF[last]:
            told = f"line {self._taken}, a {kind} line, stands behind one of kind {last}, as in no export; {_AGAIN}"
            raise _Found("order", told, between=self._between())

    def _begin(self, entry: Entry) -> None:
        self._verdict.origin, self._verdict.workspace_id = str(entry["origin"]), str(entry["workspace_id"])
        self._leaves = int(entry["leaves"])
        if self._kept and self._kept.origin != self._verdict.origin:
            raise _Found("other_log", f"the kept checkpoint is of the log {self._kept.origin}, not of this one")

    def _row(self, row: Entry) -> None:
        self._stands_at(row)
        place, row_id = place_of(row), int(row["id"])
        if row["action"] == EventType.AUDIT_REDACTED:
            self._emptied.discard(int(row["subject_id"]))
        self._holds_content(row)
        leaf = raw(row["leaf"])
        if leaf_of(row) != leaf:
            raise _Found("row_changed", f"row {row_id} is not what was sealed", row=row_id)
        if row["workspace_id"] != self._verdict.workspace_id:
            raise _Found("foreign_row", f"row {row_id} is of another workspace", row=row_id)
        if place <= self._place:
            raise _Found("order", f"row {row_id} stands after a later one", row=row_id)
        self._place = place
        self._tree.add(leaf)
        self._verdict.rows += 1

    def _stands_at(self, row: Entry) -> None:
        """Hold a leaf to its index in the tree and to its number in the workspace."""
        self._is_next("leaf", row["index"], self._tree.size, row)
        self._is_next("number", row["seq"], self._verdict.rows + 1, row)

    def _is_next(self, what: str, found: int, expected: int, row: Entry) -> None:
        """Say what is missing before a row, or too much; to this row itself nothing need have been done."""
        if found == expected:
            return
        wrong = f"what stands before it was put in, or stands there twice; {_AGAIN}"
        if found > expected:
            gone = f"{what} {expected} is" if found == expected + 1 else f"{what} {expected} to {what} {found - 1} are"
            wrong = f"{gone} missing before it; {_AGAIN}"
        told = f"row {row['id']}, sealed as {what} {found}, stands where {what} {expected} belongs: {wrong}"
        raise _Found("order", told, row=row["id"])

    def _holds_content(self, row: Entry) -> None:
        if row["content"] is None and row["salt"] is None:
            self._verdict.redacted += 1
            self._emptied.add(int(row["id"]))
            return
        whole = row["content"] is not None and row["salt"] is not None
        salt = raw(row["salt"]) if whole else b""
        if len(salt) != SALT_BYTES or content_digest(salt, row["content"]).hex() != row["digest"]:
            raise _Found("content_changed", f"the content of row {row['id']} is not what was sealed", row=row["id"])

    def _missing(self, leaf: Entry) -> None:
        raise _Found("row_deleted", f"row {leaf['id']} was sealed and is gone", row=leaf["id"])

    def _hidden(self, part: Entry) -> None:
        if not 0 <= part["level"] <= _HIGHEST:
            raise ValueError("no tree is so high")
        if part["index"] << part["level"] != self._tree.size:
            raise _Found("order", "hidden leaves stand where others belong", between=self._between())
        self._tree.add(raw(part["hash"]), part["level"])

    def _checkpoint(self, entry: Entry) -> None:
        found = verify(entry["note"], self.public_keys)
        between = (self._verdict.size, found.size)
        if found.origin != self._verdict.origin:
            raise _Found("other_log", f"a checkpoint is of the log {found.origin}", between=between)
        if found.size != self._tree.size or found.size <= self._verdict.size:
            message = (
                f"a checkpoint signs {found.size} leaves, and {self._tree.size} stand before it: after the checkpoint"
                f" of {between[0]}, lines are missing, moved or added; {_AGAIN}"
            )
            raise _Found("leaves_changed", message, between=between)
        if found.root != self._tree.root:
            message = f"leaves between the checkpoints of {between[0]} and {between[1]} are not what was sealed"
            raise _Found("leaves_changed", f"{message}; {_AGAIN}", between=between)
        self._agrees_with_kept(found)
        self._sealed_place = place_of(entry)
        if self._sealed_place < self._place:
            raise _Found("order", f"the checkpoint of {found.size} ends before its last row", between=between)
        self._verdict.checkpoints += 1
        self._verdict.size = found.size
        self._verdict.counted, self._counts = False, counts_of(found)

    def _agrees_with_kept(self, found: Checkpoint) -> None:
        """Hold the log to the checkpoint that was kept elsewhere, when it has grown to its size or past it."""
        if self._kept and self._verdict.size < self._kept.size <= found.size and self._kept != found:
            message = f"the log did not pass through the kept checkpoint of {self._kept.size}: it was written anew"
            raise _Found("kept_checkpoint", message, between=(self._verdict.size, found.size))

    def _count(self, entry: Entry) -> None:
        """Hold the rows to the number that was signed; in a log from before there were counts, none was."""
        if self._is_counted:
            raise ValueError("the rows are counted once")
        self._is_counted = True
        counted, found = int(entry["rows"]), self._verdict.rows
        if self._counts is None:
            return
        if not proves_count(self._counts, self._verdict.workspace_id, entry):
            raise _Found("count_changed", f"the last checkpoint does not say that the workspace has {counted} rows")
        if counted != found:
            raise _Found("rows_withheld", f"the workspace has {counted} sealed rows, and {found} are here")
        self._verdict.counted = True

    def _unsealed(self, row: Entry) -> None:
        if place_of(row) <= self._sealed_place:
            raise _Found("row_inserted", f"row {row['id']} stands among sealed rows and has no leaf", row=row["id"])
        self._holds_content(row)
        if row["action"] == EventType.AUDIT_REDACTED:
            self._excuses.add(int(row["subject_id"]))
        self._verdict.unsealed += 1

    def _end(self, _: Entry) -> None:
        self._ended = True

    def _finish(self) -> None:
        if not self._ended:
            raise _Found("cut_off", f"the export ends after {self._verdict.rows} rows without its last line")
        if self._leaves != self._verdict.size or self._tree.size != self._verdict.size:
            message = f"the log has {self._leaves} leaves, and the last checkpoint covers {self._verdict.size}"
            raise _Found("leaves_changed", f"{message}; {_AGAIN}", between=(self._verdict.size, self._leaves))
        if self._counts is not None and self._verdict.rows and not self._verdict.counted:
            raise _Found(
                "count_missing", f"of the workspace are {self._verdict.rows} rows here; what was signed is not"
            )
        self._is_told_of()
        if self._kept and self._kept.size > self._verdict.size:
            message = f"the log ends at {self._verdict.size}, before the kept checkpoint of {self._kept.size}"
            raise _Found("kept_checkpoint", message, between=(self._verdict.size, self._kept.size))

    def _is_told_of(self) -> None:
        """Hold each redaction to the act that tells of it, which must be sealed: anybody can write one that is not."""
        if untold := self._emptied - self._excuses:
            row = min(untold)
            raise _Found("content_removed", f"the content of row {row} is gone, and no act tells of it", row=row)
        if self._emptied:
            row = min(self._emptied)
            message = (
                f"the content of row {row} is gone, and the act that tells of it is not sealed, so that nothing proves"
                " it: export again once the worker has sealed it, as it does in a few seconds; if that says so, too,"
                " the export or the log was changed"
            )
            raise _Found("redaction_unsealed", message, row=row)

    def _between(self) -> tuple[int, int]:
        return self._verdict.size, self._tree.size


_STEPS: dict[Line, Callable[[Verifier, Entry], None]] = {
    Line.LOG: Verifier._begin,
    Line.ROW: Verifier._row,
    Line.MISSING: Verifier._missing,
    Line.HIDDEN: Verifier._hidden,
    Line.CHECKPOINT: Verifier._checkpoint,
    Line.COUNT: Verifier._count,
    Line.UNSEALED: Verifier._unsealed,
    Line.END: Verifier._end,
}
