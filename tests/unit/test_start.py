"""What a program says that is started with settings that cannot work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from models.settings import Settings

PROGRAM = Path(sys.executable).with_name("mission-control")


@pytest.mark.parametrize(
    ("command", "given", "named"),
    [
        ("api", {}, "DATABASE_URL"),
        ("api", {"DATABASE_URL": ""}, "DATABASE_URL"),
        ("worker", {}, "DATABASE_URL"),
        ("migrate", {}, "DATABASE_URL"),
        ("worker", {"MC_HOST_ID": "not a name"}, "MC_HOST_ID"),
        ("api", {"MC_API_PORT": "many"}, "MC_API_PORT"),
        *[
            ("up", {f"MC_{name}_PORT": number}, f"MC_{name}_PORT")
            for name, number in (("POSTGRES", "65536"), ("TEMPORAL_UI", "-1"))
        ],
        ("up", {"MC_DATA_DIR": "/proc/x"}, "MC_DATA_DIR"),
        ("up", {"MC_DATA_DIR": "/etc/passwd"}, "MC_DATA_DIR"),
    ],
)
def test_it_names_the_variable_and_ends_with_2(command: str, given: dict[str, str], named: str, tmp_path: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MC_", "DATABASE", "TEMP"))}
    env = inherited | {"MC_DATA_DIR": str(tmp_path)} | given
    ended = subprocess.run([PROGRAM, command], env=env, capture_output=True, text=True, check=False)
    assert (ended.returncode, named in ended.stderr) == (2, True)
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("name", ["api", "postgres", "temporal", "temporal_ui", "metrics"])
@pytest.mark.parametrize("number", ["65536", "-1"])
def test_a_port_is_one(monkeypatch: pytest.MonkeyPatch, name: str, number: str) -> None:
    monkeypatch.setenv(f"MC_{name.upper()}_PORT", number)
    with pytest.raises(ValidationError, match=f"{name}_port"):
        Settings()


@pytest.mark.parametrize("url", ["postgresql://owner:hun@ter2@127.0.0.1:1/none", "owner:hunter2@nowhere"])
@pytest.mark.parametrize("command", ["up", "api", "worker", "migrate"])
def test_a_database_that_is_not_there_is_told_in_a_line(command: str, url: str, tmp_path: Path) -> None:
    env = os.environ | {"DATABASE_URL": url, "TEMPORAL_ADDRESS": "127.0.0.1:1", "MC_DATA_DIR": str(tmp_path)}
    ended = subprocess.run([PROGRAM, command], env=env, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith("database_unreachable: the database of DATABASE_URL")
    assert "ter2" not in line
