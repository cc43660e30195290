"""The store leaves its transactions to its callers: it takes their session, or visibly the doors to open its own."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOORS = {
    "connections.py": "keeps the bare connections of the doors",
    "database.py": "is the doors: one transaction each time one is opened",
    "migrate.py": "connects as the tables' owner, and Alembic has transactions of its own",
}
STORE = sorted(path for path in (ROOT / "models/store").glob("*.py") if path.name not in DOORS)

ENDS = {"begin", "begin_nested", "begin_twophase", "commit", "rollback"}
CONNECTS = {"AsyncConnection", "AsyncSession", "Connection", "Database", "Session"}
SAID_IN_SQL = re.compile(r"\s*(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|START TRANSACTION)\b|.*\bAUTOCOMMIT\b")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def findings(source: str) -> Iterator[str]:
    """Say what in a module of the store decides on a transaction that is not its own.

    A function with a `Database` opens its own, one for each use of a door (ADR 15), and its caller sees that in the
    first argument. A function with an `AsyncSession` is part of its caller's, and neither opens nor ends any. Nothing
    has both, or finds another way to Postgres.
    """
    nodes = list(ast.walk(ast.parse(source)))
    imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    for node in nodes:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _misplaced(node)
            case ast.Attribute() if node.attr in ENDS and ast.unparse(node.value) not in imported:
                yield f"{ast.unparse(node)} begins or ends a transaction"
            case ast.Call() if _connects(ast.unparse(node.func)):
                yield f"{ast.unparse(node.func)}() is another way to Postgres"
            case ast.Constant(value=str(text)) if SAID_IN_SQL.match(text):
                yield f"{text!r} begins or ends a transaction"


def _misplaced(function: Function) -> Iterator[str]:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    kinds = [ast.unparse(argument.annotation) for argument in arguments if argument.annotation]
    found = [kind for kind in kinds if kind in ("AsyncSession", "Database")]
    if found and kinds[0] != found[0]:
        yield f"{function.name} does not take its {found[0]} first"
    if len(found) > 1:
        yield f"{function.name} takes more than one of {found}"


def _connects(called: str) -> bool:
    return called.partition(".")[0] in CONNECTS or called.startswith(("create_engine", "create_async_engine"))


@pytest.mark.parametrize("path", STORE, ids=lambda path: path.name)
def test_the_store_leaves_transactions_to_its_callers(path: Path) -> None:
    assert list(findings(path.read_text())) == []


def test_the_doors_are_where_they_are_said_to_be() -> None:
    assert all(list(findings((ROOT / "models/store" / name).read_text())) for name in DOORS)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("async def a(session: AsyncSession): await session.commit()", "session.commit begins or ends a transaction"),
        ("async def a(session: AsyncSession): end = session.rollback", "session.rollback begins or ends a transaction"),
        ("async def a(session: AsyncSession):\n    async with session.begin(): pass", "session.begin begins or ends"),
        ("async def a(session: AsyncSession): await session.execute(text('COMMIT'))", "'COMMIT' begins or ends"),
        ("async def a(key: str, session: AsyncSession): pass", "a does not take its AsyncSession first"),
        ("async def a(key: str, db: Database): pass", "a does not take its Database first"),
        ("async def a(session: AsyncSession, db: Database): pass", "a takes more than one of"),
        ("async def a(session: AsyncSession, *, db: Database): pass", "a takes more than one of"),
        ("async def a(settings: Settings): db = Database.from_settings(settings)", "Database.from_settings() is an"),
        ("def a(url: str): return create_async_engine(url)", "create_async_engine() is another way to Postgres"),
        ("async def a(engine: Engine): return AsyncSession(engine)", "AsyncSession() is another way to Postgres"),
    ],
)
def test_a_bad_function_is_found(source: str, found: str) -> None:
    [only] = findings(source)
    assert only.startswith(found)


@pytest.mark.parametrize(
    "source",
    [
        "async def a(session: AsyncSession, key: str): await session.execute(text('SELECT 1'))",
        "async def a(db: Database, key: str):\n    async with db.workspace(key) as session: await b(session)",
        "class A:\n    def __init__(self, db: Database) -> None: self._db = db",
        "async def begin(session: AsyncSession): await session.flush()",
        "from models.store import stages\nasync def a(session: AsyncSession): await stages.begin(session)",
    ],
)
def test_a_good_function_is_not(source: str) -> None:
    assert list(findings(source)) == []
