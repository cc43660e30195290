"""A worker process comes up step by step, and its log says which."""

import json
import subprocess
import sys
from pathlib import Path

from models.settings import Settings
from tests.fixtures.servers import TemporalServer
from worker.dev.programs import environment

STEPS = ["database", "configuration", "temporal", "tools", "workers", "reconciler"]


def worker(settings: Settings) -> subprocess.Popen[str]:
    """Start one, with these settings."""
    argv = [sys.executable, "-m", "worker"]
    return subprocess.Popen(
        argv, env=environment(settings), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def told(process: subprocess.Popen[str], last: str) -> list[dict[str, str]]:
    """The lines of its log up to the event `last`."""
    assert process.stdout
    lines = []
    for text in process.stdout:
        lines.append(json.loads(text))
        if lines[-1]["event"] == last:
            break
    return lines


def settings_of(database_url: str, address: str, folder: Path) -> Settings:
    """Settings of an installation of the test's own."""
    return Settings(
        DATABASE_URL=database_url,
        TEMPORAL_ADDRESS=address,
        data_dir=folder,
        cache_dir=folder,
        task_queue_prefix=f"{folder.name}-",
    )


def test_it_names_its_steps(database_url: str, temporal_server: TemporalServer, tmp_path: Path) -> None:
    with worker(settings_of(database_url, temporal_server.address, tmp_path)) as process:
        lines = told(process, "worker.ready")
        process.terminate()
        process.communicate()
    assert [line["step"] for line in lines if line["event"] == "boot.done"] == STEPS
    assert process.returncode == 0


def test_a_step_that_fails_ends_the_start(database_url: str, tmp_path: Path) -> None:
    with worker(settings_of(database_url, "127.0.0.1:1", tmp_path)) as process:
        lines = told(process, "boot.failed")
        assert process.wait(30) == 1
    assert lines[-1]["step"] == "temporal"
    assert "TEMPORAL_ADDRESS" in lines[-1]["error"]
