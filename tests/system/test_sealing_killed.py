"""SIGKILL of the worker in the middle of sealing, again and again: the tree is the one that the rows alone give."""

import asyncio
import random
from itertools import groupby
from typing import Any

import psycopg
import pytest

from activities.workbench.signing import ServiceKey
from models.domain import checkpoints
from models.domain.audit import leaf_of
from models.domain.audit_counts import count_leaf, counts_of, counts_over
from models.domain.checkpoints import raw_key
from models.domain.merkle import root_over
from tests.fixtures.audit import judged
from tests.fixtures.product import Product
from tests.fixtures.waiting import until

KILLS, ROWS = 5, 12_000
WORKSPACES = ("default", "a workspace", "another")
ACTS = """
INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
SELECT CASE n %% 7 WHEN 0 THEN %s WHEN 1 THEN %s ELSE %s END, 'mission.noted', 'mission', 'mission_' || n, 'olga', 'r',
    jsonb_build_object('detail', 'note ' || n) FROM generate_series(1, %s) AS n
"""
SEALS = "SELECT count(*) AS count FROM pg_locks WHERE locktype = 'advisory' AND objid = 1296236547"
UNSEALED = "SELECT count(*) AS count FROM audit LEFT JOIN audit_leaf USING (workspace_id, id) WHERE leaf IS NULL"
AUDIT = """
SELECT a.*, CAST(a.xid AS text) AS xid, encode(a.digest, 'hex') AS digest,
    to_char(a.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at
FROM audit a ORDER BY a.epoch, a.xid, a.id
"""


@pytest.mark.timeout(300)
async def test_the_tree_is_what_the_rows_alone_give(product: Product) -> None:
    chance = random.Random(4)  # it guards nothing, and a failure must come again
    keys, unsealed = [own_key(product)], list[int]()
    for kill in range(KILLS):
        await act(product)
        await until(lambda: count(product, SEALS) > 0)
        await asyncio.sleep(chance.uniform(0, 0.3))
        await product.stack.kill("worker")
        await until(lambda: count(product, SEALS) == 0)
        unsealed.append(count(product, UNSEALED))
        if kill == KILLS // 2:
            keys.append(rotated(product))
        await product.stack.start("worker")
    assert max(unsealed) > 0, "no kill came before the end"
    await until(lambda: count(product, UNSEALED) == 0, 60)
    public = [raw_key(key.public_openssh) for key in keys]
    compare(product, public)
    export = (await product.api.get("/audit/export")).text.rstrip("\n").split("\n")
    verdict = judged(export, *keys)
    assert (verdict.problem, verdict.counted) == (None, True)
    assert (await product.api.get("/audit/verify")).json()["data"]["good"] is True


async def act(product: Product) -> None:
    async with await psycopg.AsyncConnection.connect(product.url, autocommit=True) as connection:
        await connection.execute(ACTS, (*WORKSPACES, ROWS))


def compare(product: Product, public: list[bytes]) -> None:
    """Hold leaves, and each checkpoint, to a tree that is made of the rows of `audit` and nothing else."""
    rows, leaves = numbered(product.rows(AUDIT)), [bytes(row["leaf"]) for row in sealed(product)]
    offline = [leaf_of(row) for row in rows]
    assert leaves == offline
    salts = product.rows("SELECT workspace_id, salt FROM audit_workspace ORDER BY number")
    notes = [row["note"] for row in product.rows("SELECT note FROM audit_checkpoint ORDER BY size")]
    assert len(notes) >= KILLS
    for note in notes:
        found = checkpoints.verify(note, public)
        assert found.root == root_over(offline[: found.size])
        last = {row["workspace_id"]: row["seq"] for row in rows[: found.size]}
        counted = [(row["workspace_id"], bytes(row["salt"])) for row in salts if row["workspace_id"] in last]
        assert counts_of(found) == counts_over([count_leaf(name, last[name], salt) for name, salt in counted])


def numbered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Number each workspace's rows, in the order of the log."""
    in_workspaces = sorted(range(len(rows)), key=lambda at: (rows[at]["workspace_id"], at))
    for _, places in groupby(in_workspaces, key=lambda at: rows[at]["workspace_id"]):
        for number, place in enumerate(places, 1):
            rows[place]["seq"] = number
    return rows


def sealed(product: Product) -> list[dict[str, Any]]:
    return product.rows("SELECT leaf FROM audit_leaf ORDER BY tree_index")


def count(product: Product, statement: str) -> int:
    return int(product.rows(statement)[0]["count"])


def own_key(product: Product) -> ServiceKey:
    return ServiceKey.load_or_create(product.stack.settings.signing_key)


def rotated(product: Product) -> ServiceKey:
    """Give the worker that starts next another key."""
    product.stack.settings.signing_key.unlink()
    return own_key(product)
