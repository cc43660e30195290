"""The list of event types is closed: SQL inserts no other, and each is one that the product writes or reads."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.domain.events import EventType
from models.domain.tool_calls import CallStatus

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "models/domain/events.py"
PARTS = ("models", "activities", "workflows", "worker", "api", "cli")
PRODUCT = sorted({path for part in PARTS for path in (ROOT / part).rglob("*.py")} - {LIST})
MIGRATIONS = sorted((ROOT / "deploy/migrations/versions").glob("*.sql"))
MADE = {f"tool_call.{status}" for status in CallStatus}
"""Types that are put together: a call is told of by how it stands."""

_INSERT = re.compile(r"INSERT INTO event\b")
_KNOWN_FORM = re.compile(r"INSERT INTO event \(workspace_id, type, [^)]*\)\s*(?:SELECT|VALUES\s*\()")
_LITERAL = re.compile("'([^']*)'")
_NUMBERED = re.compile(r"\b\d(?: AS number)?, '([^']*)'")
"""Of several events in their order: a row of each, with its type after its number."""


def texts(source: str) -> Iterator[str]:
    """Take the texts out of a module, each as a whole; what is filled in stays empty."""
    nodes = list(ast.walk(ast.parse(source)))
    filled = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    pieces = {id(piece) for node in filled for piece in node.values}
    for text in filled:
        yield "".join(str(piece.value) if isinstance(piece, ast.Constant) else "{}" for piece in text.values)
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in pieces:
            yield node.value


def inserted(sql: str) -> Iterator[str]:
    """Name the types that SQL inserts into `event` by itself; a value that is passed in is an `EventType`'s."""
    bodies = _KNOWN_FORM.split(sql)[1:]
    if len(bodies) != len(_INSERT.findall(sql)):
        yield f"not to be read: {sql}"
    for body in bodies:
        column = body.split(",", 2)[1]
        named = _LITERAL.findall(column)
        yield from named or ([] if column.strip() in ("%(type)s", ":type") else _NUMBERED.findall(body))


def of_modules() -> set[str]:
    return {kind for path in PRODUCT for text in texts(path.read_text()) for kind in inserted(text)}


def of_migrations() -> set[str]:
    return {kind for path in MIGRATIONS for kind in inserted(path.read_text())}


def test_sql_inserts_no_other() -> None:
    assert (of_modules() | of_migrations()) - set(EventType) == set()


def test_each_is_somewhere() -> None:
    nodes = (node for path in PRODUCT for node in ast.walk(ast.parse(path.read_text())))
    named = {EventType[node.attr].value for node in nodes if isinstance(node, ast.Attribute) and _is_member(node)}
    assert set(EventType) - named - of_modules() - of_migrations() - MADE == set()


def _is_member(node: ast.Attribute) -> bool:
    return ast.unparse(node.value) == "EventType" and node.attr in EventType.__members__


COLUMNS = "INSERT INTO event (workspace_id, type, subject_kind, data) "


@pytest.mark.parametrize(
    ("rest", "types"),
    [
        ("SELECT workspace_id, 'run.unblokced', 'run', '{}' FROM gone_on", ["run.unblokced"]),
        ("VALUES (:workspace_id, 'run_blocked', 'run', '{}')", ["run_blocked"]),
        ("SELECT w, CASE WHEN a THEN 'run.on' ELSE 'run.off' END, 'run', '{}'", ["run.on", "run.off"]),
        ("SELECT w, t.type, 'run', data FROM (VALUES (1, 'a.b', '{}'), (2, %(type)s, '{}')) AS t", ["a.b"]),
        ("SELECT w, type, kind, data FROM (SELECT 1 AS number, 'a' AS type UNION ALL SELECT 2, 'b')", ["a", "b"]),
        ("SELECT w, %(type)s, 'run', '{}' FROM closed", []),
        ("SELECT w, type, 'run', data FROM unnest(%(types)s) AS t (type)", []),
    ],
)
def test_what_is_inserted_is_found(rest: str, types: list[str]) -> None:
    assert list(inserted(COLUMNS + rest)) == types


def test_a_form_that_is_not_known_is_found() -> None:
    [told] = inserted("INSERT INTO event (type, workspace_id) VALUES ('run.blocked', 'w')")
    assert told.startswith("not to be read")
    assert list(inserted("INSERT INTO remediation_event (type) VALUES ('block')")) == []


def test_a_text_is_taken_as_a_whole() -> None:
    assert list(texts("A = f'one {two}' ' three'")) == ["one {} three"]
    assert list(texts("A = 'one' ' two'")) == ["one two"]
