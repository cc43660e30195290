"""Who this host is: worktrees stay where they were made, so their owner needs a name that outlives the process."""

import os
from uuid import uuid4

from models.settings import Settings


def host_id(settings: Settings) -> str:
    """Read this host's id from the settings or its data folder; make one on the first start."""
    if settings.host_id is not None:
        return settings.host_id
    path = settings.data_dir / "host_id"
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = path.with_suffix(f".{os.getpid()}")
    mine.write_text(uuid4().hex[:12], encoding="utf-8")
    try:
        os.link(mine, path)  # atomic: of two processes that start at once, one names the host
    except FileExistsError:
        pass
    finally:
        mine.unlink()
    return path.read_text(encoding="utf-8")
