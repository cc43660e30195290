"""The runbook's commands for the database, the keys and the repository, run as they are written."""

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from activities.workbench.signing import ServiceKey
from models.settings import Settings
from models.store.connections import plain
from models.store.database import Database
from models.store.first_start import ensure_first_admin
from models.store.migrate import expected_revision, migrate
from tests.fixtures.git_repos import make_repo
from worker.dev.ports import free_port
from worker.dev.postgres import EmbeddedPostgres

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
HEAD = "\n".join(line[4:] for line in RUNBOOK.partition("\n## ")[0].splitlines() if line.startswith("    ")) + "\n"
"""The commands before all others."""
STARTS = ("mission-control up", "mission-control mission")
"""What starts or needs the whole product: the tests of the command line run these."""


SOMEBODY = {f"GIT_{role}_{what}": "ada" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def commands(section: str) -> str:
    """The commands of a section, but those that need the whole product."""
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", RUNBOOK, re.DOTALL | re.MULTILINE)
    assert found
    lines = (line[4:] for line in found[1].splitlines() if line.startswith("    "))
    return "\n".join(line for line in lines if not line.startswith(STARTS)) + "\n"


def reaching(port: int | None) -> str:
    """The commands that reach a server, on the port that `up` said."""
    return commands("Reaching the embedded PostgreSQL").replace("PGPORT=5433", f"PGPORT={port}")


def shell(script: str, folder: Path, **variables: str) -> str:
    """Run commands as an operator would, after those of the head; what they print."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MC_")} | variables
    whole = f"cd {shlex.quote(str(ROOT))}\n{HEAD}cd {shlex.quote(str(folder))}\n{script}"
    ended = subprocess.run(["bash", "-euc", whole], env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_head_finds_the_programs_and_the_data_folder(tmp_path: Path) -> None:
    told = shell('command -v mission-control; echo "$MC_DATA_DIR"', tmp_path, XDG_DATA_HOME="/var/lib")
    assert told.splitlines() == [str(Path(sys.executable).parent / "mission-control"), "/var/lib/mission-control"]
    assert shell('echo "$MC_DATA_DIR"', tmp_path, MC_DATA_DIR="/elsewhere").strip() == "/elsewhere"


def test_no_page_uses_a_variable_that_nobody_sets() -> None:
    """A reader with a default installation has none of ours set."""
    for page in (ROOT / "docs").glob("*.md"):
        text = page.read_text()
        used, given = (set(re.findall(rf"{sign}(MC_\w+)", text)) for sign in (r"\$\{?", "export "))
        assert used <= given, page.name


@pytest.fixture
async def server(open_dir: Path) -> AsyncIterator[EmbeddedPostgres]:
    """The embedded server of an installation that was started once; its data folder is `open_dir`."""
    async with EmbeddedPostgres(open_dir, Settings().cache_dir, free_port()) as started:
        await asyncio.to_thread(migrate, started.url)
        settings = Settings(DATABASE_URL=started.url, data_dir=open_dir)
        ServiceKey.load_or_create(settings.signing_key)
        db = Database.from_settings(settings)
        await ensure_first_admin(db, settings)
        await db.close()
        yield started


async def test_the_admin_key_is_revoked(server: EmbeddedPostgres, open_dir: Path) -> None:
    script = reaching(server.port) + commands("A key is lost or leaked").replace("NAME", "admin")
    told = await asyncio.to_thread(shell, script, open_dir, MC_DATA_DIR=str(open_dir))
    assert re.search(r"name *\n-+\n admin\n\(1 row\)", told), "whose key it is"
    assert "UPDATE 1" in told
    assert "DELETE 0" in told
    assert not (open_dir / "signing_key").exists()


async def test_what_grows_is_named_with_its_size(server: EmbeddedPostgres, open_dir: Path) -> None:
    script = reaching(server.port) + commands("The database grows")
    told = await asyncio.to_thread(shell, script, open_dir, MC_DATA_DIR=str(open_dir))
    assert "(8 rows)" in told
    assert "kB" in told


async def test_nothing_is_left_of_a_secret_that_was_removed(server: EmbeddedPostgres, open_dir: Path) -> None:
    secret = "to-be-forgotten-4711"
    filed = "INSERT INTO blob (workspace_id, digest, size, content) VALUES ('default', 'd', 20, %s)"
    async with await psycopg.AsyncConnection.connect(plain(server.url), autocommit=True) as connection:
        await connection.execute(filed, [secret.encode()])
        await connection.execute("UPDATE blob SET content = '', removed = 'it held a secret' WHERE digest = 'd'")
        await connection.execute("CHECKPOINT")
    assert holding(open_dir, secret), "the search finds nothing at all"
    script = reaching(server.port) + commands("A patch held a secret")
    await asyncio.to_thread(shell, script, open_dir, MC_DATA_DIR=str(open_dir))
    assert holding(open_dir, secret) == []


SAID = """
INSERT INTO decision (workspace_id, decision_id, kind, round, candidate, status, risk, requested_by, explanation)
VALUES ('default', 'd1', 'tool', 0, 0, 'denied', 'RED', 'agent', 'never type swordfish');
INSERT INTO decision_answer (workspace_id, decision_id, principal, answer, explanation, at)
VALUES ('default', 'd1', 'olga', 'denied', 'never type swordfish', now());
INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data) VALUES
('default', 'decision.denied', 'decision', 'd1', 'olga', 'r', '{"explanation": "never type swordfish", "own": false}');
INSERT INTO workspace SELECT * FROM jsonb_populate_record(
    (SELECT w FROM workspace w WHERE workspace_id = 'default'), '{"workspace_id": "other", "slug": "other"}');
INSERT INTO decision (workspace_id, decision_id, kind, round, candidate, status, risk, requested_by, explanation)
VALUES ('other', 'd1', 'tool', 0, 0, 'denied', 'RED', 'agent', 'not now');
SELECT set_config('app.workspace', 'default', false);
SELECT mc_redact_audit((SELECT id FROM audit WHERE (workspace_id, subject_id) = ('default', 'd1')),
    'olga', 'r', 'a password');
"""


async def test_what_must_go_is_found_and_written_over(server: EmbeddedPostgres, open_dir: Path) -> None:
    with psycopg.connect(plain(server.url), autocommit=True) as connection:
        connection.execute(SAID)
    section = (
        commands("Something was said that must go")
        .replace("WORDS", "swordfish")
        .replace("DECISION", "d1")
        .replace("WORKSPACE", "default")
    )
    script = reaching(server.port) + section + section
    told = await asyncio.to_thread(shell, script, open_dir, MC_DATA_DIR=str(open_dir))
    first, _, then = told.partition("UPDATE 1\nUPDATE 1\nUPDATE 1\n")
    assert re.findall(r"1 public\.(decision_answer|decision|event)", first) == ["decision", "decision_answer", "event"]
    assert "UPDATE 1" in then
    assert "public." not in then, "it stands nowhere any more"
    with psycopg.connect(plain(server.url)) as connection:
        kept = connection.execute("SELECT data FROM event WHERE subject_id = 'd1'").fetchall()
        others = connection.execute("SELECT explanation FROM decision WHERE workspace_id = 'other'").fetchall()
    assert (kept, others) == ([({"own": False},)], [("not now",)])


def holding(folder: Path, words: str) -> list[str]:
    """The files below a folder that hold some words."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and words.encode() in path.read_bytes()]


async def test_a_backup_is_restored_into_another_server(server: EmbeddedPostgres, open_dir: Path) -> None:
    script = reaching(server.port) + commands("Backup")
    await asyncio.to_thread(shell, script, open_dir, MC_DATA_DIR=str(open_dir))
    assert {path.name for path in (open_dir / "backup").iterdir()} >= {"signing_key", "admin.key"}
    other = open_dir / "other"
    other.mkdir(mode=0o711)
    async with EmbeddedPostgres(other, Settings().cache_dir, free_port()) as fresh:
        variables = reaching(fresh.port).partition("psql ")[0]
        script = variables + "dropdb mission_control\n" + commands("Restore from a dump")
        script += 'psql -tc "SELECT principal FROM api_key; SELECT epoch FROM installation"\n'
        told = await asyncio.to_thread(shell, script, open_dir, MC_DATA_DIR=str(other))
    assert expected_revision() in told
    assert told.split()[-2:] == ["admin", "2"], "another cluster, another epoch"


def test_a_merge_is_found_and_taken_back(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "app")
    repo.branch("work", {"fix.txt": "x"})
    repo.git(
        "merge", "-q", "--no-ff", "-m", "Fix it\n\nMission-Id: mission_20260101_001\nMission-Workspace: acme", "work"
    )
    finds, takes_back, *_ = commands("Taking a merge back").splitlines()
    found = shell(finds.replace("MISSION", "mission_20260101_001").replace("WORKSPACE", "acme"), repo.path).split()
    assert found == [repo.sha()]
    shell(takes_back.replace("COMMIT", found[0]), repo.path, **SOMEBODY)
    assert not (repo.path / "fix.txt").exists()
