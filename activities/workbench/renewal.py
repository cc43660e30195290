"""Puts a bare repository in the place of another one that is read meanwhile."""

from collections.abc import Iterator
from pathlib import Path

_OBJECTS, _INDEX = "objects", ".idx"


def take_over(fresh: Path, place: Path, *, spare: tuple[str, ...]) -> None:
    """Move the files of `fresh` into `place`, then remove what was there; its folder stays, for the lock is on it.

    As with a repack, every object is found at any moment, in the new files or in the old: all new objects come before
    what refers to them, a pack before its index, and old objects go last.

    Args:
        spare: beginnings of the names, right in `place`, that are none of the repository's.
    """
    new = sorted(_files(fresh), key=lambda file: (file.parts[0] != _OBJECTS, file.suffix == _INDEX))
    old = {file for file in _files(place) if not file.parts[0].startswith(spare)}.difference(new)
    for file in new:
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (fresh / file).replace(place / file)
    for file in sorted(old, key=lambda file: (file.parts[0] == _OBJECTS, file)):
        (place / file).unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[Path]:
    """Every file by its path in the folder; links are files, too."""
    return (path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
