"""Who this host is: worktrees stay where they were made, so their owner needs a name that outlives the process."""

import os
import re
from uuid import uuid4

from models.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def host_id(settings: Settings) -> str:
    """Read this host's id from the settings or its data folder; make one on the first start.

    Raises:
        ValueError: `MC_HOST_ID` is not 1 to 64 letters, digits, dots, dashes or underscores.
    """
    if settings.host_id is not None:
        if not _NAME.fullmatch(settings.host_id):
            raise ValueError("MC_HOST_ID takes 1 to 64 letters, digits, dots, dashes or underscores")
        return settings.host_id
    path = settings.data_dir / "host_id"
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = path.with_suffix(f".{os.getpid()}")
    mine.write_text(uuid4().hex[:12])
    try:
        os.link(mine, path)  # atomic: of two processes that start at once, one names the host
    except FileExistsError:
        pass
    finally:
        mine.unlink()
    return path.read_text()
