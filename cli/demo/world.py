"""What the demo plays in: a small git repository with a real bug, and two patches for it, one of them hasty."""

import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from models.domain.errors import Unavailable

FILES = Path(__file__).resolve().parents[2] / "deploy" / "demo"
BRANCH = "main"
_AUTHOR = ("-c", "user.name=Demo", "-c", "user.email=demo@localhost")
_PLAIN = ("-c", "commit.gpgSign=false", "-c", "core.hooksPath=/dev/null", "-c", "core.autocrlf=false")


def make_repository(parent: Path) -> Path:
    """Make the repository anew, under a name of its own; what earlier demos left goes away."""
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir(parents=True)
    # A place of its own each time: a mission that an interrupted demo left behind cannot meet the new one's branch.
    place = parent / f"invoices-{secrets.token_hex(3)}"
    shutil.copytree(FILES / "repository", place, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    git(place, "init", "--quiet", f"--initial-branch={BRANCH}")
    git(place, "add", ".")
    git(place, "commit", "--quiet", "--message=Add up invoices and their tax")
    return place


def mission(repository: str, patches: Sequence[str] = ("1-hasty", "2-thorough")) -> dict[str, Any]:
    """The mission as it is filed: what is wrong, what must pass, and the patches to try in order."""
    body: dict[str, Any] = yaml.safe_load((FILES / "mission.yaml").read_text(encoding="utf-8"))
    diffs = [(FILES / "patches" / f"{patch}.diff").read_text(encoding="utf-8") for patch in patches]
    return body | {"repository": repository, "patch_candidates": [{"diff": diff} for diff in diffs]}


def git(place: Path, *arguments: str) -> str:
    """Run git in the demo's repository; what it printed.

    Raises:
        Unavailable: it failed, or there is no git.
    """
    try:
        done = subprocess.run(
            ["git", "-C", str(place), *_AUTHOR, *_PLAIN, *arguments], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        raise Unavailable("no_git", "git is not installed; install git 2.38 or newer") from None
    except subprocess.CalledProcessError as error:
        raise Unavailable("git_failed", f"git {arguments[0]} failed: {error.stderr.strip()}") from None
    return (done.stdout + done.stderr).strip()
