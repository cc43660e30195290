"""A process that used Temporal's SDK ends with the exit code of its work, whatever the SDK's threads do."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

BEGIN = "import atexit, sys; from models.leaving import leave_after; atexit.register(print, 'torn down')\n"


def ended(work: str, out: int | IO[str] = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run a program whose work is this expression."""
    argv = [sys.executable, "-c", f"{BEGIN}leave_after(lambda: {work})"]
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    return subprocess.run(argv, text=True, check=False, env=buffered, stdout=out, stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    ("work", "code", "out", "error"),
    [
        ("print('done')", 0, "done\n", ""),
        ("sys.exit()", 0, "", ""),
        ("sys.exit(3)", 3, "", ""),
        ("exec('raise KeyboardInterrupt')", 130, "", ""),
        ("sys.exit('no_database: none')", 1, "", "no_database: none\n"),
        ("(sys.stdout.write('begun'), sys.exit(2))", 2, "begun", ""),
    ],
)
def test_it_ends_as_its_work_did_and_is_not_torn_down(work: str, code: int, out: str, error: str) -> None:
    end = ended(work)
    assert (end.returncode, end.stdout, end.stderr) == (code, out, error)


def test_an_error_that_nobody_caught_is_told() -> None:
    end = ended("1 / 0")
    assert end.returncode == 1
    assert end.stderr.startswith("Traceback")
    assert end.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_what_cannot_be_written_is_no_success() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        assert ended("sys.stdout.write('lost')", full).returncode == 120
