"""The audit log of the product as it runs: the sealer killed in the middle, and the command line with no server."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from activities.sealing import Sealer
from activities.workbench.signing import ServiceKey
from models.domain import checkpoints
from models.domain.merkle import Frontier
from models.settings import Settings
from models.store.connections import plain
from models.store.database import Database
from tests.fixtures.api import Team, db, make_team, migrated_template, served, team
from tests.fixtures.audit import act, exported, filled, judged, new_key
from tests.fixtures.product import Product, running
from tests.fixtures.servers import PostgresServer
from tests.fixtures.waiting import until

__all__ = ["db", "migrated_template", "team"]

SEAL = """
import asyncio, sys
from pathlib import Path
from activities.sealing import Sealer
from activities.workbench.signing import ServiceKey
from models.settings import Settings
from models.store.database import Database

async def main():
    db = Database.from_settings(Settings())
    sealer = Sealer(db, ServiceKey.load_or_create(Path(sys.argv[1])), batch=50)
    print("begins", flush=True)
    await sealer.run()

asyncio.run(main())
"""
LATCH = """
CREATE FUNCTION test_latch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7, TG_ARGV[0]::int);
    RETURN NULL;
END $$;
CREATE TRIGGER test_latch AFTER INSERT ON audit_leaf FOR EACH STATEMENT EXECUTE FUNCTION test_latch(1);
CREATE TRIGGER test_latch AFTER INSERT ON audit_checkpoint FOR EACH STATEMENT EXECUTE FUNCTION test_latch(2);
"""
OTHERS_HOLD = """
SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND l.locktype IN ('advisory', 'transactionid')
"""
KEY_ADDED = 1
"""A sealer that starts publishes its key, which is an act."""
WAITS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 7 AND NOT granted"


@pytest.fixture
def database_url(postgres_server: PostgresServer, migrated_template: str) -> str:
    """A database of the test's own: there is one log in each."""
    return postgres_server.create_database(migrated_template)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(DATABASE_URL=database_url, data_dir=tmp_path, TEMPORAL_ADDRESS="127.0.0.1:1")


class TestTheSealerIsKilled:
    @pytest.mark.timeout(180)
    async def test_anywhere_and_the_tree_is_the_same(
        self, db: Database, team: Team, database_url: str, tmp_path: Path
    ) -> None:
        """A latch holds the sealer after its leaves or after its checkpoint; there it is killed, and one goes on."""
        for _ in range(8):
            await act(db, team.workspace_id, 40)
        key = new_key(tmp_path)
        with psycopg.connect(plain(database_url), autocommit=True) as superuser:
            superuser.execute(LATCH)
            for number in range(6):
                before = counted(superuser)
                superuser.execute("SELECT pg_advisory_lock(7, %s)", [number % 2 + 1])
                process = await started(database_url, tmp_path / "signing_key")
                await held(superuser)
                os.kill(process.pid, signal.SIGKILL)
                await process.wait()
                superuser.execute("SELECT pg_advisory_unlock_all()")
                await gone(superuser)
                assert counted(superuser) == before
                if number < 4:
                    await Sealer(db, key, batch=33).seal()
                    await act(db, team.workspace_id, 15)
            await Sealer(db, key).seal()
            leaves = superuser.execute("SELECT leaf FROM audit_leaf ORDER BY tree_index").fetchall()
            notes = superuser.execute("SELECT note FROM audit_checkpoint ORDER BY size").fetchall()
        verdict = judged(await exported(db, team.workspace_id), key)
        assert (verdict.rows, verdict.problem) == (8 * 40 + 4 * 15 + KEY_ADDED, None)
        assert checkpoints.read(notes[-1][0]).root == root(leaves)

    @pytest.mark.timeout(180)
    async def test_at_any_moment_while_others_act(
        self, db: Database, team: Team, database_url: str, tmp_path: Path
    ) -> None:
        key, acts = new_key(tmp_path), 0
        for delay in (0.0, 0.02, 0.05, 0.1, 0.2):
            process = await started(database_url, tmp_path / "signing_key")
            ending = asyncio.get_running_loop().call_later(delay, process.kill)
            while process.returncode is None:
                await act(db, team.workspace_id, 60)
                acts += 60
            ending.cancel()
            await process.wait()
        with psycopg.connect(plain(database_url), autocommit=True) as superuser:
            await gone(superuser)
        await Sealer(db, key).seal()
        verdict = judged(await exported(db, team.workspace_id), key)
        assert (verdict.rows, verdict.unsealed, verdict.problem) == (acts + KEY_ADDED, 0, None)


class TestNobodyWaits:
    @pytest.mark.parametrize("latch", [1, 2], ids=["after its leaves", "after its checkpoint"])
    async def test_acts_commit_while_a_sealer_stands_in_its_transaction(
        self, db: Database, team: Team, database_url: str, tmp_path: Path, latch: int
    ) -> None:
        key, newcomer = new_key(tmp_path), await make_team(db)
        await act(db, team.workspace_id, 40)
        with psycopg.connect(plain(database_url), autocommit=True) as superuser:
            superuser.execute(LATCH)
            superuser.execute("SELECT pg_advisory_lock(7, %s)", [latch])
            sealing = asyncio.create_task(Sealer(db, key).seal())
            await held(superuser)
            for workspace_id in (team.workspace_id, newcomer.workspace_id):
                async with asyncio.timeout(2):
                    await act(db, workspace_id, 3)
            assert one(superuser, WAITS) == 1, "the sealer stands there still"
            assert one(superuser, "SELECT count(*) FROM audit") == 46
            superuser.execute("SELECT pg_advisory_unlock_all()")
            assert await sealing == 40
        assert await Sealer(db, key).seal() == 6
        for workspace_id, rows in ((team.workspace_id, 43), (newcomer.workspace_id, 3)):
            verdict = judged(await exported(db, workspace_id), key)
            assert (verdict.rows, verdict.unsealed, verdict.problem) == (rows, 0, None)


async def started(url: str, key: Path) -> asyncio.subprocess.Process:
    """Start a sealer as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SEAL, str(key), env={**os.environ, "DATABASE_URL": url}, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    assert await process.stdout.readline() == b"begins\n"
    return process


async def held(superuser: psycopg.Connection) -> None:
    """Wait until a sealer is held by a latch."""
    await until(lambda: bool(one(superuser, WAITS)))


async def gone(superuser: psycopg.Connection) -> None:
    """Wait until Postgres has noticed the death, and taken back what was not committed."""
    await until(lambda: not one(superuser, OTHERS_HOLD))


def one(superuser: psycopg.Connection, statement: str) -> int:
    row = superuser.execute(statement.encode()).fetchone()
    assert row
    return int(row[0])


def counted(superuser: psycopg.Connection) -> int:
    return one(superuser, "SELECT (SELECT count(*) FROM audit_leaf) + (SELECT count(*) FROM audit_checkpoint)")


def root(leaves: Sequence[tuple[bytes]]) -> bytes:
    tree = Frontier()
    for (leaf,) in leaves:
        tree.add(leaf)
    return tree.root


class TestCommandLine:
    async def test_an_export_is_verified_with_no_server_and_a_changed_row_is_named(
        self, db: Database, settings: Settings, database_url: str, tmp_path: Path
    ) -> None:
        key, export, public = new_key(tmp_path), tmp_path / "log.jsonl", tmp_path / "pub.pem"
        public.write_bytes(pem(key))
        async with served(settings) as url:
            await filled(db, key, ["default"], 300, each=20)
            kept = tmp_path / "checkpoint"
            kept.write_text(newest(database_url))
            client = ["--url", url, "--api-key", settings.key_file.read_text().strip()]
            listed = await command("audit", "list", "--actor", "olga", "--all", "--json", *client)
            assert (listed.exit_code, len(json.loads(listed.stdout))) == (0, 300)
            assert (await command("audit", "list", *client)).exit_code == 0
            exports = await command("audit", "export", "-o", str(export), *client)
            assert (exports.exit_code, exports.stdout, " rows, " in exports.stderr) == (0, "", True)
            printed = await command("audit", "export", *client)
            assert printed.stdout == export.read_text()
            rows = printed.stdout.count('"kind" : "row"')
            assert rows > 300
            changed = tmp_path / "changed.jsonl"
            row = changed_by_hand(database_url)
            assert (await command("audit", "export", "-o", str(changed), *client)).exit_code == 0
        verify = ("audit", "verify", str(export), "--key", str(public))
        good = await command(*verify, "--checkpoint", str(kept), "--json")
        assert (good.exit_code, json.loads(good.stdout)["rows"]) == (0, rows)
        shown = await command(*verify)
        assert (shown.exit_code, str(rows) in shown.stdout, shown.stdout.endswith("\nthe log verifies\n")) == (
            0,
            True,
            True,
        )
        bad = await command("audit", "verify", str(changed), "--key", str(public))
        assert (bad.exit_code, f"row {row} is not what was sealed" in bad.stderr) == (1, True)
        told = await command("audit", "verify", str(changed), "--key", str(public), "--json")
        assert (told.exit_code, json.loads(told.stdout)["problem"]["row"]) == (1, row)

    async def test_what_cannot_be_verified_is_said(self, tmp_path: Path) -> None:
        public, nothing = tmp_path / "pub", tmp_path / "nothing"
        public.write_text(new_key(tmp_path).public_openssh)
        nothing.write_bytes(b"")
        binary = tmp_path / "binary"
        binary.write_bytes(b"\xff\xfe")
        for export, key, code, word in (
            (nothing, public, 1, "cut_off"),
            (binary, public, 2, "file_unreadable"),
            (tmp_path / "none", public, 2, "file_unreadable"),
            (nothing, nothing, 2, "key_unreadable"),
            (nothing, tmp_path / "none", 2, "file_unreadable"),
        ):
            said = await command("audit", "verify", str(export), "--key", str(key))
            assert (said.exit_code, word in said.stderr) == (code, True), said


@dataclass(frozen=True)
class Ended:
    """What a command said, and how it ended."""

    exit_code: int
    stdout: str
    stderr: str


async def command(*words: str) -> Ended:
    program = str(Path(sys.executable).with_name("mission-control"))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(program, *words, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    return Ended(process.returncode or 0, out.decode(), err.decode())


def pem(key: ServiceKey) -> bytes:
    public = load_ssh_public_key(key.public_openssh.encode())
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def newest(url: str) -> str:
    with psycopg.connect(plain(url)) as connection:
        row = connection.execute("SELECT note FROM audit_checkpoint ORDER BY size DESC OFFSET 3 LIMIT 1").fetchone()
    assert row
    return str(row[0])


def changed_by_hand(url: str) -> int:
    """Let a superuser say that somebody else did it."""
    statement = (
        "UPDATE audit SET actor = 'peter' WHERE id = (SELECT id FROM audit_leaf WHERE workspace_id = 'default'"
        " AND seq = 200) RETURNING id"
    )
    with psycopg.connect(plain(url)) as connection:
        connection.execute("SET session_replication_role = replica")
        row = connection.execute(statement.encode()).fetchone()
    assert row
    return int(row[0])


@pytest.mark.timeout(180)
async def test_the_product_seals_and_mirrors_what_a_mission_did(open_dir: Path) -> None:
    mirror = open_dir / "mirror.git"
    await git("init", "-q", "--bare", str(mirror))
    async with running(open_dir, audit_mirror=str(mirror)) as product:
        repo = product.repo()
        mission = await product.file(repo)
        assert (await product.ended(mission))["outcome"] == "merged"
        product.assert_unharmed(mission, repo)
        await until(lambda: sealed(product, mission), 30)
        [size] = product.rows("SELECT max(size) AS size FROM audit_checkpoint")
        await until(lambda: mirrored(product) >= size["size"], 30)
        requested = product.rows("SELECT actor FROM audit WHERE action = 'mission.execute_requested'")
        assert requested == [{"actor": "admin"}]
        found = (await product.api.get("/audit/verify")).json()["data"]
        assert found["problem"] is None
        assert found["rows"] + found["unsealed"] == product.rows("SELECT count(*) FROM audit")[0]["count"]
        export = (await product.api.get("/audit/export")).text.rstrip("\n").split("\n")
        key = ServiceKey.load_or_create(product.stack.settings.signing_key)
        kept = await git("--git-dir", str(mirror), "cat-file", "blob", "main:checkpoint")
    verdict = judged(export, key, kept=kept)
    assert verdict.problem is None
    assert verdict.rows > 25


def sealed(product: Product, mission: str) -> bool:
    """Whether all of a mission's rows have leaves."""
    sql = "SELECT 1 FROM audit LEFT JOIN audit_leaf USING (workspace_id, id) WHERE subject_id = %s AND leaf IS NULL"
    return product.rows(sql, mission) == []


def mirrored(product: Product) -> int:
    return int(product.rows("SELECT coalesce(max(size), 0) AS size FROM audit_mirrored")[0]["size"])


async def git(*words: str) -> str:
    process = await asyncio.create_subprocess_exec("git", *words, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()
