"""Rows that an export does not show are missed, the newest ones too: each checkpoint signs how many there are."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from activities.sealing import Sealer
from activities.workbench.signing import ServiceKey
from models.domain import checkpoints
from models.domain.audit_counts import counts_of
from models.domain.audit_verifying import Verdict, Verifier
from models.domain.checkpoints import raw_key
from models.domain.errors import Conflict
from models.store import audit_export
from models.store.connections import plain
from models.store.database import Database
from tests.fixtures.api import Team, make_team
from tests.fixtures.audit import act, exported, filled, fresh_log, judged, key

__all__ = ["fresh_log", "key"]

Entry = dict[str, Any]


@pytest.fixture
async def entries(db: Database, team: Team, key: ServiceKey) -> list[Entry]:
    """The lines of a workspace with 40 sealed rows, among three workspaces, the newest 7 of all its own."""
    names = [(await make_team(db)).workspace_id, (await make_team(db)).workspace_id, team.workspace_id]
    await filled(db, key, names, 105)
    await act(db, team.workspace_id, 5)
    await Sealer(db, key).seal()
    return [json.loads(line) for line in await exported(db, team.workspace_id)]


def as_superuser(url: str, statement: str, *values: Any) -> list[dict[str, Any]]:
    with psycopg.connect(plain(url), row_factory=dict_row, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


def verdict_on(entries: list[Entry], key: ServiceKey) -> Verdict:
    return judged([json.dumps(entry, ensure_ascii=False) for entry in entries], key)


def code(entries: list[Entry], key: ServiceKey) -> str | None:
    problem = verdict_on(entries, key).problem
    return problem.code if problem else None


def without_newest(entries: list[Entry], count: int) -> list[Entry]:
    """Give only the hashes of the newest rows, as of rows of others."""
    rows = [entry for entry in entries if entry["kind"] == "row"]
    hidden = [entry["index"] for entry in rows[-count:]]
    return [hash_of(entry) if entry.get("index") in hidden else entry for entry in entries]


def hash_of(entry: Entry) -> Entry:
    return {"kind": "hidden", "level": 0, "index": entry["index"], "hash": entry["leaf"]} if "leaf" in entry else entry


def counting(entries: list[Entry], change: Callable[[Entry], list[Entry]]) -> list[Entry]:
    """Change the line that says how many rows there are."""
    return [new for entry in entries for new in (change(entry) if entry["kind"] == "count" else [entry])]


class TestAFile:
    async def test_as_it_is_all_rows_are_counted(self, entries: list[Entry], key: ServiceKey) -> None:
        verdict = verdict_on(entries, key)
        assert (verdict.problem, verdict.rows, verdict.counted, verdict.size) == (None, 40, True, 110)
        assert verdict.shortfall(strict=True) is None

    @pytest.mark.parametrize("count", [1, 5, 7, 39])
    async def test_the_newest_rows_withheld(self, entries: list[Entry], key: ServiceKey, count: int) -> None:
        problem = verdict_on(without_newest(entries, count), key).problem
        assert problem
        assert problem.code == "rows_withheld"
        assert f"40 sealed rows, and {40 - count} are here" in problem.message

    async def test_and_the_count_with_them(self, entries: list[Entry], key: ServiceKey) -> None:
        fewer = without_newest(entries, 3)
        assert code(counting(fewer, lambda entry: [entry | {"rows": 37}]), key) == "count_changed"
        assert code(counting(fewer, lambda _: []), key) == "count_missing"

    async def test_and_an_earlier_count_in_its_place(
        self, entries: list[Entry], key: ServiceKey, db: Database, team: Team
    ) -> None:
        [earlier] = [entry for entry in entries if entry["kind"] == "count"]
        await act(db, team.workspace_id, 4)
        await Sealer(db, key).seal()
        later = [json.loads(line) for line in await exported(db, team.workspace_id)]
        assert code(counting(without_newest(later, 4), lambda _: [earlier]), key) == "count_changed"

    async def test_and_a_count_that_stands_before_them(self, entries: list[Entry], key: ServiceKey) -> None:
        """What is proved by one checkpoint says nothing of rows that come after it."""
        [last] = [number for number, entry in enumerate(entries) if entry["kind"] == "count"]
        verifier = Verifier([raw_key(key.public_openssh)])
        for entry in (*entries[: last + 1], entries[last - 1]):
            verifier.take(json.dumps(entry, ensure_ascii=False))
        problem = verifier.verdict().problem
        assert problem
        assert problem.code == "order"

    async def test_nothing_of_others_is_shown(self, entries: list[Entry], database_url: str, team: Team) -> None:
        others = as_superuser(database_url, "SELECT * FROM audit_workspace WHERE workspace_id <> %s", team.workspace_id)
        text = json.dumps(entries)
        assert len(others) == 2
        for other in others:
            assert other["workspace_id"] not in text
            assert other["salt"].hex() not in text


class TestTheDatabase:
    async def test_the_last_row_given_to_another_workspace_is_missed(
        self, entries: list[Entry], db: Database, team: Team, key: ServiceKey, database_url: str
    ) -> None:
        as_superuser(
            database_url,
            "UPDATE audit_leaf SET workspace_id = 'elsewhere' WHERE workspace_id = %s AND seq = 40",
            team.workspace_id,
        )
        problem = judged(await exported(db, team.workspace_id), key).problem
        assert problem
        assert problem.code == "count_changed", "what the database counts now was never signed"
        await act(db, team.workspace_id)
        with pytest.raises(Conflict, match="not that of its checkpoint 110"):
            await Sealer(db, key).seal()

    async def test_a_workspace_that_is_made_to_have_none_is_missed(
        self, entries: list[Entry], db: Database, team: Team, key: ServiceKey, database_url: str
    ) -> None:
        as_superuser(
            database_url, "UPDATE audit_leaf SET workspace_id = 'elsewhere' WHERE workspace_id = %s", team.workspace_id
        )
        problem = judged(await exported(db, team.workspace_id), key).problem
        assert problem
        assert problem.code == "count_changed"


async def test_a_workspace_that_came_since_is_not_missed(
    db: Database, team: Team, key: ServiceKey, entries: list[Entry]
) -> None:
    """An export tells what the checkpoint that was the newest at its beginning says, which is nothing of this one."""
    new = await make_team(db)
    pieces = audit_export.pieces(db, new.workspace_id)
    text = await anext(pieces)
    await act(db, new.workspace_id, 3)
    await Sealer(db, key).seal()
    text += "".join([piece async for piece in pieces])
    verdict = judged(text.rstrip("\n").split("\n"), key)
    assert (verdict.problem, verdict.rows, verdict.size) == (None, 0, 110)
    verdict = judged(await exported(db, new.workspace_id), key)
    assert (verdict.problem, verdict.counted) == (None, True)
    assert verdict.rows >= 3


class TestALogFromBeforeRowsWereCounted:
    async def test_stays_verifiable_and_is_counted_from_now_on(
        self, entries: list[Entry], db: Database, team: Team, key: ServiceKey, database_url: str
    ) -> None:
        for row in as_superuser(database_url, "SELECT size, note FROM audit_checkpoint"):
            uncounted = replace(checkpoints.read(row["note"]), extensions=())
            old = checkpoints.sign(
                uncounted, raw_key(key.public_openssh), lambda text: base64.b64decode(key.sign(text))
            )
            as_superuser(database_url, "UPDATE audit_checkpoint SET note = %s WHERE size = %s", old, row["size"])
        verdict = judged(await exported(db, team.workspace_id), key)
        assert (verdict.problem, verdict.rows, verdict.counted) == (None, 40, False)
        shortfall = verdict.shortfall(strict=True)
        assert shortfall
        assert shortfall.code == "not_counted"
        assert verdict.shortfall(strict=False) is None
        await act(db, team.workspace_id, 2)
        await Sealer(db, key).seal()
        verdict = judged(await exported(db, team.workspace_id), key)
        assert (verdict.problem, verdict.rows, verdict.counted) == (None, 42, True)
        [last] = as_superuser(database_url, "SELECT note FROM audit_checkpoint ORDER BY size DESC LIMIT 1")
        counts = counts_of(checkpoints.verify(last["note"], [raw_key(key.public_openssh)]))
        assert counts
        assert counts.workspaces == 3
