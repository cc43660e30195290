"""`mission-control demo`, as somebody sees it who has just cloned the repository."""

import asyncio
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import psycopg
import pytest

from cli.demo.run import apart
from models.settings import Settings
from models.store.connections import plain
from worker.dev.stack import Stack

PROGRAM = [str(Path(sys.executable).with_name("mission-control")), "demo"]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def environment(server_dir: Path) -> dict[str, str]:
    data = Path(tempfile.mkdtemp(dir=server_dir))
    data.chmod(0o711)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MC_", "DATABASE", "TEMPORAL"))}
    return plain | {"MC_DATA_DIR": str(data)}


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        PROGRAM + list(words), stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False
    )


def left_over(environment: dict[str, str]) -> list[str]:
    """Processes that still work on the demo's data."""
    found = []
    for process in psutil.process_iter():
        try:
            variables = process.environ()
        except psutil.Error:
            continue
        if environment["MC_DATA_DIR"] in variables.get("MC_DATA_DIR", "") and process.pid != os.getpid():
            found.append(" ".join(process.cmdline()))
    return found


def require_whole_story(printed: str) -> None:
    stages = [line.split() for line in printed.splitlines()]
    assert [line[2] for line in stages if line[1:2] == ["run_tests"]][:2] == ["failed", "passed"]
    passed = [line[1] for line in stages if line[2:3] == ["passed"]]
    assert passed[-5:] == ["collect_metrics", "governance", "merge", "observe", "resolve"]
    assert "the branch is protected" in printed
    assert 'Good "git" signature for mission-control' in printed
    held = re.findall(r"(\d+) of (\d+) have their digest", printed)
    assert len(held) == 2
    assert all(ours == all_ for ours, all_ in held)
    assert "/api-docs" in printed
    assert "/namespaces/default/workflows/mission" in printed


def test_yes_and_exit_twice_in_a_row(environment: dict[str, str]) -> None:
    for _ in range(2):
        done = run(environment, "--yes", "--exit")
        assert done.returncode == 0, done.stdout + done.stderr
        require_whole_story(done.stdout)
    assert left_over(environment) == []


def test_a_killed_worker_is_seen_and_the_mission_goes_on(environment: dict[str, str]) -> None:
    done = run(environment, "--yes", "--kill-worker", "--exit")
    assert done.returncode == 0, done.stdout + done.stderr
    require_whole_story(done.stdout)
    killed = done.stdout.index("SIGKILL to the worker")
    restarted = done.stdout.index("worker is up again")
    assert killed < restarted < done.stdout.index("observe")
    assert left_over(environment) == []


def test_without_a_terminal_and_without_yes_it_says_what_to_do(environment: dict[str, str]) -> None:
    done = run(environment)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert done.stdout == ""


async def test_a_folder_of_another_version_is_named_with_what_to_do(server_dir: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=server_dir))
    folder.chmod(0o711)
    async with Stack(apart(Settings(), folder), parts=["postgres"], report=print) as stack:
        assert stack.settings.database_url
        with psycopg.connect(plain(stack.settings.database_url.get_secret_value()), autocommit=True) as connection:
            connection.execute("UPDATE alembic_version SET version_num = 'of-another-version'")
    done = await asyncio.to_thread(run, dict(os.environ), "--yes", "--exit", "--data-dir", str(folder))
    assert done.returncode == 2, done.stdout + done.stderr
    told = " ".join(done.stderr.split())
    assert f"demo_outdated: the demo's folder {folder} was made by another version: delete it" in told
    assert 'make demo ARGS="--data-dir FOLDER"' in told


def test_the_question_is_answered_in_the_terminal(environment: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    demo = subprocess.Popen([*PROGRAM, "--exit"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    seen = read_until(ours, b"Approve this merge?")
    assert b"quantize" in seen
    os.write(ours, b"n\n")
    seen = read_until(ours, b"postgres is stopped")
    assert demo.wait(timeout=60) == 11
    os.close(ours)
    assert b"denied" in seen


def read_until(terminal: int, wanted: bytes, seconds: float = 120) -> bytes:
    seen, deadline = b"", time.monotonic() + seconds
    while wanted not in seen:
        assert time.monotonic() < deadline, seen.decode(errors="replace")
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 65536)
    return seen


def test_the_governance_scene_holds_stops_and_finds_out(environment: dict[str, str]) -> None:
    done = run(environment, "--scene", "governance", "--yes", "--exit")
    assert done.returncode == 0, done.stdout + done.stderr
    require_law(done.stdout)
    assert left_over(environment) == []


def require_law(printed: str) -> None:
    """Each act in its order: who tried, and what the product said."""
    row = re.search(r"row (\d+) says that maria did decision.approved", printed)
    assert row
    told = [
        "because         the environment is production",
        "takes           2 different people of role operator or higher",
        *("olga   approves it", "refused, own_decision"),
        *("peter  approves it", "pending: 1 of 2 approvals"),
        *("maria  approves it", "approved: 2 of 2 approvals"),
        "governance           passed",
        "merged into main as",
        "probe  asks to be let in, without a key",
        "approved, at the level intern",
        "it may spend $0.25",
        "granted; it took $0.08, so $0.24 of $0.25 are spent",
        "refused, budget_exceeded: the run's limit of 0.25 USD is crossed",
        "the run is blocked",
        "run.blocked the run's limit of 0.25 USD is crossed",
        "admin  approves that the run may spend up to $0.50",
        "granted; it took $0.08, so $0.32 of $0.50 are spent",
        "success: 4 calls for $0.32",
        *("$ mission-control audit verify", "as they were sealed", "signed, up to"),
        *("postgres=# SET session_replication_role = replica;", "SET"),
        *("postgres=# UPDATE audit SET actor = 'olga' ", f"WHERE id = {row[1]};", "UPDATE 1"),
        *("$ mission-control audit verify", f"row_changed: row {row[1]} is not what was sealed"),
    ]
    place = 0
    for text in told:
        assert text in printed[place:], f"{text!r} is not told, or not in its place:\n{printed}"
        place = printed.index(text, place) + len(text)


def test_the_governance_scene_asks_in_the_terminal_and_survives_a_killed_worker(environment: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    words = [*PROGRAM, "--scene", "governance", "--kill-worker", "--exit"]
    demo = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    for question, answer in ((b"merge as peter?", b"y"), (b"merge as maria?", b"n"), (b"spend up to $0.50?", b"n")):
        read_until(ours, question)
        os.write(ours, answer + b"\n")
    seen = read_until(ours, b"postgres is stopped")
    assert demo.wait(timeout=60) == 11
    os.close(ours)
    assert b"success:" not in seen
    assert re.search(rb"row_changed: row \d+ is not what was sealed", seen)
    assert left_over(environment) == []


def test_an_unknown_scene_is_refused_with_those_that_there_are(environment: dict[str, str]) -> None:
    done = run(environment, "--scene", "romance", "--yes")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'mission', 'governance'" in done.stderr
