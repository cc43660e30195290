"""Whoever can do anything to the database still cannot do it unseen: every position of a log of 1,000 rows."""

import copy
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
from psycopg import AsyncConnection, Connection, sql
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from activities.sealing import Sealer
from models.domain.audit_verifying import Problem, Verifier
from models.domain.checkpoints import raw_key
from models.settings import Settings
from models.store import audit_export
from models.store.audit_export import BYTES_AT_ONCE
from models.store.connections import plain
from models.store.database import Database
from tests.fixtures.audit import judged
from tests.fixtures.sealed_log import ROUND, ROWS, ROWS_OF_ROUND, SIZE, Log, log

__all__ = ["log"]
POSITIONS = (1, 999)
"""Numbers of rows whose change stays, and is looked for in the export of the whole log."""
REACH, ALL = 40, 10_000
"""How many later leaves are given other places: those that are read, or all."""
PICK = "CREATE TEMP TABLE {} AS SELECT * FROM audit_leaf WHERE workspace_id = '{}' AND seq IN ({})"
REWORDED = "UPDATE audit SET content = '{}' WHERE id IN (SELECT id FROM here)"
DIGESTED = "UPDATE audit SET digest = sha256(salt || convert_to(content, 'UTF8')) WHERE id IN (SELECT id FROM here)"
SEALED_AGAIN = """
    UPDATE audit_leaf l SET leaf = mc_audit_leaf(a, l.seq)
    FROM audit a, here h WHERE a.workspace_id = l.workspace_id AND a.id = l.id
        AND l.tree_index BETWEEN h.tree_index - 10 AND h.tree_index + {reach}
"""
SWAPPED = """
    UPDATE audit SET (subject_id, salt, content, digest) = (
        SELECT o.subject_id, o.salt, o.content, o.digest FROM audit o
        WHERE o.workspace_id = audit.workspace_id AND o.id = (
            SELECT CASE audit.id WHEN h.id THEN l.id ELSE h.id END
            FROM here h JOIN later l ON (l.seq - 1) / 10 = (h.seq - 1) / 10 WHERE audit.id IN (h.id, l.id)))
    WHERE id IN (SELECT id FROM here UNION SELECT id FROM later)
"""
INSERTED = """
    INSERT INTO audit SELECT workspace_id, -id, epoch, xid, created_at, 'mallory', actor_kind, action,
        subject_kind, subject_id, correlation_id, git_sha, config_hash, digest, salt, content
    FROM audit WHERE id IN (SELECT id FROM here)
"""
LATER = """
    UPDATE audit_leaf SET tree_index = -tree_index WHERE tree_index > (SELECT tree_index FROM here)
        AND tree_index <= (SELECT tree_index + {reach} FROM here)
"""
FREED = "DELETE FROM audit_leaf WHERE tree_index = (SELECT tree_index + {reach} + 1 FROM here)"
COUNTED = """
    UPDATE audit_leaf l SET seq = l.seq {by} FROM here h WHERE l.tree_index < 0 AND l.workspace_id = h.workspace_id
"""
STATEMENTS: dict[str, tuple[bool, list[str]]] = {
    "content changed": (True, [REWORDED]),
    "content and digest changed": (True, [REWORDED, DIGESTED]),
    "content moved into the salt": (
        True,
        [
            "ALTER TABLE audit DROP CONSTRAINT IF EXISTS audit_salt_length",
            "UPDATE audit SET salt = salt || convert_to(left(content, 5), 'UTF8'), content = substr(content, 6)"
            " WHERE id IN (SELECT id FROM here)",
        ],
    ),
    "actor changed": (True, ["UPDATE audit SET actor = 'mallory' WHERE id IN (SELECT id FROM here)"]),
    "redacted and not told": (True, ["UPDATE audit SET content = NULL, salt = NULL WHERE id IN (SELECT id FROM here)"]),
    "content taken away and the salt left": (
        True,
        ["UPDATE audit SET content = NULL WHERE id IN (SELECT id FROM here)"],
    ),
    "moved": (True, ["UPDATE audit SET workspace_id = 'elsewhere' WHERE id IN (SELECT id FROM here)"]),
    "changed with its leaf": (False, [REWORDED, DIGESTED, SEALED_AGAIN]),
    "deleted": (True, ["DELETE FROM audit WHERE id IN (SELECT id FROM here)"]),
    "deleted with its leaf": (
        False,
        [
            "DELETE FROM audit WHERE id IN (SELECT id FROM here)",
            "DELETE FROM audit_leaf WHERE tree_index = (SELECT tree_index FROM here)",
            LATER,
            COUNTED.replace("{by}", "- 1"),
            "UPDATE audit_leaf SET tree_index = -tree_index - 1 WHERE tree_index < 0",
            SEALED_AGAIN,
        ],
    ),
    "swapped": (True, [SWAPPED]),
    "swapped with leaves": (False, [SWAPPED, SEALED_AGAIN]),
    "inserted": (True, [INSERTED]),
    "inserted with a leaf": (
        False,
        [
            INSERTED,
            FREED,
            LATER,
            COUNTED.replace("{by}", "+ 1"),
            "UPDATE audit_leaf SET tree_index = -tree_index + 1 WHERE tree_index < 0",
            "INSERT INTO audit_leaf SELECT tree_index + 1, workspace_id, seq + 1, -id, '' FROM here",
            SEALED_AGAIN,
        ],
    ),
}
"""What is done to a row of which table, and whether its leaf survives."""
SAVE = "CREATE TABLE kept_{table} AS TABLE {table}"
GIVEN = "ALTER TABLE kept_audit DROP COLUMN agent_id, DROP COLUMN status"
"""What Postgres makes of the other columns cannot be put back."""
RESTORE = "DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept_{table}; DROP TABLE kept_{table}"
CHECKPOINTS = {
    "all deleted": ("DELETE FROM audit_checkpoint", "leaves_changed"),
    "the last one deleted": ("DELETE FROM audit_checkpoint WHERE size = 1300", "leaves_changed"),
    "the last ones deleted": ("DELETE FROM audit_checkpoint WHERE size > 650", "leaves_changed"),
    "one's size changed": ("UPDATE audit_checkpoint SET size = 651 WHERE size = 650", "leaves_changed"),
    "the last one's size changed": ("UPDATE audit_checkpoint SET size = 1301 WHERE size = 1300", "leaves_changed"),
    "the last one's size beyond all": ("UPDATE audit_checkpoint SET size = 9e18 WHERE size = 1300", "leaves_changed"),
    "another one's note": (
        "UPDATE audit_checkpoint SET note = (SELECT note FROM audit_checkpoint WHERE size = 637) WHERE size = 650",
        "leaves_changed",
    ),
    "another size written": (
        "UPDATE audit_checkpoint SET note = replace(note, '1300', '1299') WHERE size = 1300",
        "checkpoint_unsigned",
    ),
    "other counts written": (
        "UPDATE audit_checkpoint SET note = replace(note, 'workspaces 2', 'workspaces 1') WHERE size = 1300",
        "checkpoint_unsigned",
    ),
    "one garbled": ("UPDATE audit_checkpoint SET note = '' WHERE size = 650", "checkpoint_malformed"),
    "the last one garbled": ("UPDATE audit_checkpoint SET note = '' WHERE size = 1300", "checkpoint_malformed"),
    "the counts' salts changed": ("UPDATE audit_workspace SET salt = sha256(salt)", "count_changed"),
    "the counts' places changed": ("UPDATE audit_workspace SET number = 5 - number", "count_changed"),
    "one workspace counted no more": ("DELETE FROM audit_workspace WHERE number = 1", "count_changed"),
    "none counted": ("DELETE FROM audit_workspace", "count_missing"),
}
"""What is done to checkpoints, or to what they count, while all leaves stand."""
TABLES = ("audit", "audit_leaf", "audit_node", "audit_checkpoint", "audit_workspace")


@pytest.fixture
def superuser(log: Log) -> Iterator[Connection]:
    """Someone for whom no trigger fires; what was done is undone afterwards."""
    with psycopg.connect(plain(log.url), autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for_all(connection, SAVE)
        connection.execute(GIVEN)
        try:
            yield connection
        finally:
            for_all(connection, RESTORE)


def for_all(connection: Connection, statement: str) -> None:
    for table in TABLES:
        names = {"table": sql.Identifier(table)}
        connection.execute(
            sql.SQL(statement.replace("kept_{table}", f'"kept_{table}"').encode().decode()).format(**names)
        )


@dataclass
class Tampered:
    """The log with rows of it changed, in a transaction of a superuser that is rolled back."""

    log: Log
    session: AsyncSession

    @classmethod
    @asynccontextmanager
    async def begun(cls, log: Log) -> AsyncIterator["Tampered"]:
        """Begin where nothing is changed."""
        engine = create_async_engine(log.url)
        async with AsyncSession(engine) as session:
            found = cls(log, session)
            tables = [PICK.format(name, log.workspace_id, "0") for name in ("here", "later")]
            await found._execute("SET session_replication_role = replica", *tables, "COMMIT")
            yield found
        await engine.dispose()

    async def change(self, numbers: Sequence[int], statements: Sequence[str]) -> None:
        """Undo what was changed before, and change the rows of these numbers."""
        for name, wanted in (("here", numbers), ("later", [beside(number) for number in numbers])):
            pick = PICK.format(f"{name}_", self.log.workspace_id, ", ".join(map(str, wanted)))
            statements = [f"INSERT INTO {name} {pick.partition(' AS ')[2]}", *statements]
        await self._execute("ROLLBACK", "BEGIN", *statements)

    async def _execute(self, *statements: str) -> None:
        raw = (await (await self.session.connection()).get_raw_connection()).driver_connection
        assert isinstance(raw, AsyncConnection)
        await raw.execute("; ".join(statements).replace("{reach}", str(REACH)).encode())

    async def exported(self, at: int, upto: int) -> list[str]:
        """Give the export's lines of these leaves, and of the checkpoints among them."""
        piece, end = await audit_export._piece(self.session, self.log.workspace_id, at, upto)
        assert end == upto
        return (await piece.text(self.session)).splitlines()

    async def unsealed(self) -> list[str]:
        """Give the export's lines of rows that have no leaf."""
        limits = {"limit": 2 * ROWS, "most": BYTES_AT_ONCE}
        values = {"workspace_id": self.log.workspace_id, "after": -(2**63), "size": SIZE, **limits}
        found = (await self.session.execute(audit_export._UNSEALED, values)).one().lines
        return [line.rstrip() for line in found or []]


def beside(number: int) -> int:
    """Name another row that stands between the same checkpoints."""
    return number - 1 if number % ROWS_OF_ROUND == 0 else number + 1


class Judge:
    """Judges an export from the checkpoint on before which it is as it was."""

    def __init__(self, log: Log) -> None:
        self._lines, self._whole = log.lines, Verifier([raw_key(log.key.public_openssh)])
        self._starts: list[tuple[int, Verifier]] = []
        for number, line in enumerate(log.lines[:-1]):
            if number == 1 or json.loads(log.lines[number - 1])["kind"] == "checkpoint":
                self._starts.append((number, copy.deepcopy(self._whole)))
            assert self._whole.take(line)

    def problem(self, start: int, lines: Sequence[str], unsealed: Sequence[str]) -> Problem | None:
        """Find what is wrong in lines that follow checkpoint `start`; after them it is as it was again.

        If these lines look as they did, what is wrong can only be rows without a leaf, which stand at the end.
        """
        number, verifier = self._starts[start]
        end = number + len(lines)
        if list(lines) == self._lines[number:end]:
            return first_of(self._whole, [*unsealed, self._lines[-1]])
        return first_of(verifier, [*lines, *self._lines[end:]])


def first_of(verifier: Verifier, lines: Sequence[str]) -> Problem | None:
    """Let a copy of the verifier go on with lines until something is wrong."""
    other = copy.deepcopy(verifier)
    all(other.take(line) for line in lines)
    return other.verdict().problem


def by_round(lines: Sequence[str]) -> list[list[str]]:
    """Divide lines after each checkpoint."""
    ends = [number for number, line in enumerate(lines, 1) if '"checkpoint"' in line]
    return [list(lines[start:end]) for start, end in pairwise([0, *ends])]


class TestPostgres:
    """The tables are changed by a superuser, and the log is exported afterwards."""

    @pytest.mark.timeout(300)
    @pytest.mark.parametrize("kind", [kind for kind, (_, statements) in STATEMENTS.items() if LATER not in statements])
    async def test_it_is_found_in_every_position(self, log: Log, kind: str) -> None:
        """One row between any two checkpoints is changed at once, and each judged by what stands between them."""
        (survives, statements), judge = STATEMENTS[kind], Judge(log)
        ids = [entry["id"] for line in log.lines if (entry := json.loads(line))["kind"] == "row"]
        async with Tampered.begun(log) as tampered:
            for first in range(1, ROWS_OF_ROUND + 1):
                numbers = range(first, ROWS + 1, ROWS_OF_ROUND)
                await tampered.change(numbers, statements)
                lines = by_round(await tampered.exported(0, SIZE))
                unsealed = {-json.loads(line)["id"]: line for line in await tampered.unsealed()}
                for start, number in enumerate(numbers):
                    row, other = ids[number - 1], ids[beside(number) - 1]
                    put_in = [unsealed[row]] if row in unsealed else []
                    problem = judge.problem(start, lines[start], put_in)
                    assert problem, f"{kind}, number {number}"
                    if survives:
                        assert problem.row in (row, other, -row), problem
                    else:
                        assert problem.between == (start * ROUND, (start + 1) * ROUND), problem

    @pytest.mark.timeout(300)
    @pytest.mark.parametrize("kind", [kind for kind, (_, statements) in STATEMENTS.items() if LATER in statements])
    async def test_nor_can_leaves_be_moved_up_or_down(self, log: Log, kind: str) -> None:
        """Later leaves get other places, so one row is changed at a time, and the next two checkpoints are read."""
        judge = Judge(log)
        async with Tampered.begun(log) as tampered:
            for number in range(1, ROWS + 1):
                start = (number - 1) // ROWS_OF_ROUND
                await tampered.change([number], STATEMENTS[kind][1])
                lines = await tampered.exported(start * ROUND, min((start + 2) * ROUND, SIZE))
                problem = judge.problem(start, lines, await tampered.unsealed() if number == ROWS else [])
                assert problem, f"{kind}, number {number}"
                if problem.between:
                    assert start * ROUND <= problem.between[0] <= (start + 1) * ROUND, problem
                else:
                    assert problem.code == "order" or (number == ROWS and problem.code == "row_inserted"), problem

    @pytest.mark.parametrize("seq", POSITIONS)
    @pytest.mark.parametrize("kind", STATEMENTS)
    async def test_it_is_found(self, log: Log, superuser: Connection, kind: str, seq: int) -> None:
        survives, statements = STATEMENTS[kind]
        for name, number in (("here", seq), ("later", seq + 1)):
            superuser.execute(PICK.format(name, log.workspace_id, number).encode())
        for statement in statements:
            superuser.execute(statement.replace("{reach}", str(ALL)).encode())
        problem = judged(await log.export(), log.key).problem
        assert problem
        if survives:
            assert problem.row is not None, problem
        elif problem.between is None:
            assert problem.code == "order", problem
        else:
            assert problem.between[0] < seq * 1.3 + 13 <= problem.between[1] + 26, problem

    @pytest.mark.parametrize("done", CHECKPOINTS)
    async def test_nor_can_checkpoints_be_changed_while_leaves_stand(
        self, log: Log, superuser: Connection, done: str
    ) -> None:
        statement, code = CHECKPOINTS[done]
        assert superuser.execute(statement.encode()).rowcount > 0
        problem = judged(await log.export(), log.key).problem
        assert problem
        assert problem.code == code, problem

    async def test_what_stands_beside_a_note_is_not_signed(self, log: Log, superuser: Connection) -> None:
        """As `docs/audit.md` says; and a checkpoint before the last may be left out."""
        superuser.execute("UPDATE audit_checkpoint SET created_at = now() - interval '1 year', key_id = 'another'")
        superuser.execute("DELETE FROM audit_checkpoint WHERE size = 650")
        assert judged(await log.export(), log.key).is_good

    async def test_a_row_given_to_another_workspace_with_its_leaf_is_missed(
        self, log: Log, superuser: Connection
    ) -> None:
        superuser.execute(
            "UPDATE audit_leaf SET workspace_id = 'elsewhere' WHERE workspace_id = %s AND seq = 500",
            [log.workspace_id],
        )
        problem = judged(await log.export(), log.key).problem
        assert problem
        assert (problem.code, "number 501" in problem.message) == ("order", True)

    async def test_a_dropped_tail_is_found_with_a_checkpoint_that_was_kept(
        self, log: Log, superuser: Connection, tmp_path: Path
    ) -> None:
        last = superuser.execute("SELECT note FROM audit_checkpoint ORDER BY size DESC LIMIT 1").fetchone()
        assert last
        superuser.execute("DELETE FROM audit_checkpoint WHERE size > 1040")
        superuser.execute("DELETE FROM audit WHERE id IN (SELECT id FROM audit_leaf WHERE tree_index >= 1040)")
        superuser.execute("DELETE FROM audit_leaf WHERE tree_index >= 1040")
        lines = await log.export()
        assert judged(lines, log.key).is_good
        problem = judged(lines, log.key, kept=last[0]).problem
        assert problem
        assert (problem.code, problem.between) == ("kept_checkpoint", (1_040, 1_300))

    async def test_a_tail_that_was_written_anew_and_signed_is_found_with_it(
        self, log: Log, superuser: Connection
    ) -> None:
        last = superuser.execute("SELECT note FROM audit_checkpoint ORDER BY size DESC LIMIT 1").fetchone()
        assert last
        superuser.execute("UPDATE audit SET actor = 'mallory' WHERE actor = 'olga'")
        for table in TABLES[1:]:
            superuser.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
        db = Database.from_settings(Settings(DATABASE_URL=log.url))
        await Sealer(db, log.key, batch=650).seal()
        await db.close()
        lines = await log.export()
        assert judged(lines, log.key).is_good
        problem = judged(lines, log.key, kept=last[0]).problem
        assert problem
        assert problem.code == "kept_checkpoint"
