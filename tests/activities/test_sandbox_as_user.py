"""Root's sandbox drops to a user, a normal user's makes one in a namespace: both are held to the same tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGES = Path(pytest.__file__).parents[1]
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/env")
"""By way of `env`, because `setpriv` itself can still execute what only root may."""

FILES = ("test_sandbox.py", "test_sandbox_ends.py", "test_sandbox_hostile.py")


@pytest.fixture
def python() -> str:
    """A Python of our version that an unprivileged user may run (root's own is often closed to others)."""
    if os.geteuid() != 0:
        pytest.skip("these tests already run as a normal user")
    version = f"import sys, pytest; assert sys.version_info[:2] == {sys.version_info[:2]}"
    for candidate in (sys.executable, "/usr/bin/python3"):
        ask = [*AS_NOBODY, candidate, "-c", version]
        if subprocess.run(ask, env=_environment(), capture_output=True, check=False).returncode == 0:
            return candidate
    pytest.skip("no Python of this version, or not this checkout, can be reached by a normal user")


@pytest.mark.timeout(400)
def test_a_normal_user_has_the_same_sandbox(python: str) -> None:
    files = [str(REPOSITORY / "tests/activities" / name) for name in FILES]
    run = [*AS_NOBODY, python, "-m", "pytest", "-q", "-k", "not at_any_moment", *files]
    result = subprocess.run(run, cwd=REPOSITORY, env=_environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-10_000:] + result.stderr[-2_000:]


def _environment() -> dict[str, str]:
    paths = os.pathsep.join(map(str, (REPOSITORY, PACKAGES)))
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
