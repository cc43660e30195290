"""How the parts of the product are, and which commit of it runs."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from api.gateway import Gateway
from models.configuration import config_hash, load_catalog
from models.domain.errors import Unavailable
from models.domain.health import Health
from models.schemas.status import SubsystemStatus
from models.settings import Settings

SILENT = timedelta(seconds=90)
"""A worker's poll lasts up to 60 s: one that has not asked for longer is gone."""
_ROOT = Path(__file__).resolve().parents[1]


class Part(NamedTuple):
    """A part of the product, and whether nothing works without it."""

    status: SubsystemStatus
    critical: bool


class Commit(NamedTuple):
    """Which commit of the product runs, as far as it can be known."""

    sha: str | None
    branch: str | None


async def parts(settings: Settings, gateway: Gateway) -> list[Part]:
    """Look at each part now. The database is well if anybody gets this far: a caller's key is read from it."""
    temporal, polled = await asyncio.gather(gateway.answers(), gateway.last_poll())
    configuration = await asyncio.to_thread(_configuration, settings)
    return [
        _part("api", Health.HEALTHY),
        _part("database", Health.HEALTHY),
        _part("temporal", Health.HEALTHY) if temporal else _part("temporal", Health.DOWN, "it does not answer"),
        _part("worker", *_worker(temporal, polled)),
        _part("configuration", *configuration, critical=False),
    ]


def _worker(temporal: bool, polled: datetime | None) -> tuple[Health, str]:
    if not temporal:
        return Health.UNKNOWN, "only Temporal knows"
    if polled is None or datetime.now(UTC) - polled > SILENT:
        return Health.DOWN, "no worker asks for work; start one with `mission-control worker`"
    return Health.HEALTHY, f"asked for work at {polled:%H:%M:%S} UTC"


def _configuration(settings: Settings) -> tuple[Health, str]:
    try:
        known = len(load_catalog(settings.config_dir).metrics)
        config_hash(settings.config_dir)
        return Health.HEALTHY, f"{known} metrics have a bound"
    except Unavailable as error:
        return Health.DEGRADED, error.message


def _part(name: str, state: Health, detail: str = "", *, critical: bool = True) -> Part:
    return Part(SubsystemStatus(id=name, state=state, detail=detail, checked_at=datetime.now(UTC)), critical)


async def running_commit(settings: Settings) -> Commit:
    """Find the product's own commit: what the build says, else the checkout it runs from."""
    if settings.git_sha or not (_ROOT / ".git").exists():
        return Commit(settings.git_sha, settings.git_branch)
    asked = ("git", "-C", str(_ROOT), "rev-parse", "HEAD", "--abbrev-ref", "HEAD")
    try:
        git = await asyncio.create_subprocess_exec(
            *asked, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return Commit(None, None)
    printed, _ = await git.communicate()
    lines = printed.decode().split()
    return Commit(*lines) if git.returncode == 0 and len(lines) == 2 else Commit(None, None)
