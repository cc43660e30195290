"""Small files that are there whole, or not at all, however their writer ends."""

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in the place of the one before, if any; who reads meanwhile finds one of the two."""
    draft_of(path, content).replace(path)


def draft_of(path: Path, content: bytes) -> Path:
    """Write a file beside `path` that only its owner reads, down to the disk; the caller puts it in place."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:  # a full disk is not filled further by each try
        Path(name).unlink()
        raise
    return Path(name)
