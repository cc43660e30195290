"""A log that was sealed before rows were counted is counted on: its workspaces get their places as they came."""

import base64
from collections.abc import Callable
from pathlib import Path

import psycopg

from activities.sealing import Sealer
from activities.workbench.signing import ServiceKey
from models.domain import checkpoints
from models.domain.audit_counts import count_leaf, counts_of, counts_over
from models.domain.checkpoints import Checkpoint, raw_key
from models.domain.merkle import root_over
from models.settings import Settings
from models.store.connections import plain
from models.store.database import Database
from models.store.migrate import migrate
from tests.fixtures.audit import act, exported, judged, new_key
from tests.fixtures.servers import PostgresServer

SEALED = """
INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id)
SELECT CASE n % 3 WHEN 2 THEN 'early' ELSE 'a late one' END, 'capa.changed', 'capa', 'c', 'olga', 'r'
FROM generate_series(2, 10) AS n;
INSERT INTO audit_leaf (tree_index, workspace_id, seq, id, leaf)
SELECT place, workspace_id, seq, id, mc_audit_leaf(a, seq) FROM (
    SELECT row_number() OVER (ORDER BY id) - 1 AS place, workspace_id, id, audit AS a,
    row_number() OVER (PARTITION BY workspace_id ORDER BY id) AS seq FROM audit) AS numbered;
"""
CHECKPOINT = """
INSERT INTO audit_checkpoint (size, note, key_id, epoch, xid, id)
SELECT 9, %s, 'k', epoch, xid, id FROM audit ORDER BY id DESC LIMIT 1
"""


def signer(key: ServiceKey) -> Callable[[bytes], bytes]:
    return lambda text: base64.b64decode(key.sign(text))


async def test_it_goes_on(postgres_server: PostgresServer, tmp_path: Path) -> None:
    url, key = postgres_server.create_database(), new_key(tmp_path)
    public = raw_key(key.public_openssh)
    migrate(url, "0019")
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute(SEALED.encode())
        leaves = [row[0] for row in connection.execute("SELECT leaf FROM audit_leaf ORDER BY tree_index")]
        [[origin]] = connection.execute("SELECT origin FROM installation").fetchall()
        note = checkpoints.sign(Checkpoint(origin, 9, root_over(leaves)), public, signer(key))
        connection.execute(CHECKPOINT, [note])
    migrate(url)
    db = Database.from_settings(Settings(DATABASE_URL=url))
    await act(db, "early", 2)
    await Sealer(db, key).seal()
    with psycopg.connect(plain(url)) as connection:
        known = connection.execute("SELECT workspace_id, salt FROM audit_workspace ORDER BY number").fetchall()
        [[last]] = connection.execute("SELECT note FROM audit_checkpoint ORDER BY size DESC LIMIT 1").fetchall()
    assert [name for name, _ in known] == ["early", "a late one"]
    counts = counts_over([count_leaf("early", 5, known[0][1]), count_leaf("a late one", 6, known[1][1])])
    assert counts_of(checkpoints.verify(last, [public])) == counts
    verdict = judged(await exported(db, "a late one"), key)
    await db.close()
    assert (verdict.problem, verdict.rows, verdict.checkpoints, verdict.counted) == (None, 6, 2, True)
