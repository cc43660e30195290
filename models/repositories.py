"""Looks at the folders that repositories of this machine are in, for those who check a place before they use it."""

import asyncio
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePath

from models.domain.errors import InvalidInput
from models.domain.repositories import RepositoryUrl, local_path

_OUTSIDE = "repository_outside_roots"
_MAX_LINE = 8192
_NOT_BARE = re.compile(r"^\s*bare\s*=\s*(false|no|off|0)\s*$", re.MULTILINE | re.IGNORECASE)
_ELSEWHERE = (
    "The path's branches are in another folder (it is a submodule, a link, or made with --separate-git-dir): give a "
    "repository whose .git is a folder of its own, or a bare one."
)


async def look(url: str, allowed_roots: Iterable[Path]) -> RepositoryUrl | InvalidInput:
    """Check a place before a transaction needs it; a refusal is given back, to be raised by who finds that it counts.

    A network folder that hangs holds a thread, and neither the event loop nor a transaction.
    """
    try:
        path = local_path(url)
        return RepositoryUrl(url) if path is None else await asyncio.to_thread(_check_path, path, allowed_roots)
    except InvalidInput as error:
        return error


def check_url(url: str, allowed_roots: Iterable[Path]) -> RepositoryUrl:
    """Accept a place that is written as `local_path` allows and, on this machine, is a repository in `allowed_roots`.

    Links are resolved first, so check again right before use. Names of files are looked at, and where a `.git` file or
    `commondir` leads; nothing is run. `<repository>/.git` and a linked worktree give the repository itself.

    Raises:
        InvalidInput: of `local_path`; `repository_outside_roots`, `repository_not_git` or `repository_embedded`.
    """
    path = local_path(url)
    return RepositoryUrl(url) if path is None else _check_path(path, allowed_roots)


def outside_roots(urls: Iterable[str], allowed_roots: Iterable[Path]) -> tuple[str, ...]:
    """Pick the registered places that lie on this machine outside `allowed_roots`: no mission may use them."""
    roots = tuple(allowed_roots)
    return tuple(url for url in urls if _refusal(url, roots) == _OUTSIDE)


def _refusal(url: str, allowed_roots: Iterable[Path]) -> str:
    try:
        check_url(url, allowed_roots)
    except InvalidInput as error:
        return error.code
    return ""


def _check_path(path: PurePath, allowed_roots: Iterable[Path]) -> RepositoryUrl:
    """Find the repository that a path leads to, as git does: by its `.git`, be it a folder, a link or a file."""
    roots = tuple(root.resolve() for root in allowed_roots)
    try:
        real = _inside(Path(path), roots)
        git_dir = _inside(_named_by(real / ".git", "gitdir:"), roots)
        git_dir = git_dir if (git_dir / "HEAD").is_file() else real
        common = _inside(git_dir / (_line(git_dir / "commondir") or "."), roots)
        if not ((git_dir / "HEAD").is_file() and _is_git_dir(common)):
            raise InvalidInput("repository_not_git", "There is no git repository at that path.")
        _require_outside_checkouts(common, roots)
        here = _checkout(real, common, roots)
        owner = _inside(common / "refs" / "heads", roots).parents[1]
        if owner not in (here, here / ".git") or (here == common and _has_files(common)):
            raise InvalidInput("repository_not_git", _ELSEWHERE)
        str(here).encode()  # what is kept of it is text
    except (OSError, RuntimeError, UnicodeError):
        raise InvalidInput("repository_url_invalid", "The repository's path cannot be followed.") from None
    return RepositoryUrl(str(here), here)


def _inside(path: Path, roots: tuple[Path, ...]) -> Path:
    """Follow links, and go no further where they lead out of the roots."""
    real = path.resolve()
    if not any(real.is_relative_to(root) for root in roots):
        raise InvalidInput(
            _OUTSIDE,
            "The path is not inside the folders this server may use: add a folder above it to MC_REPOSITORY_ROOTS, for "
            "the API and the workers, and start them again; or give the repository by https or ssh.",
        )
    return real


def _require_outside_checkouts(common: Path, roots: tuple[Path, ...]) -> None:
    """Refuse a git folder among the files of another repository: a patch can bring one, with hooks that we would run.

    No commit can hold a `.git`, so what lies in one is no patch's. Of the folders above the roots nobody knows.
    """
    above = (path / ".git" for path in common.parents if any(path.is_relative_to(root) for root in roots))
    others = (git for git in above if git.exists() and _named_by(git, "gitdir:").resolve() != common)
    if ".git" not in common.parts and any(others):
        raise InvalidInput(
            "repository_embedded",
            "The git folder lies among the files of another repository, which anybody's patch may write: move it out "
            "of there, or let MC_REPOSITORY_ROOTS begin below that repository.",
        )


def _checkout(real: Path, common: Path, roots: tuple[Path, ...]) -> Path:
    """Find the folder whose files follow a merge, from whichever path was given; the git folder if it has none."""
    if (real / ".git").resolve() == common:
        return real
    above = common.parent
    return above if common.name == ".git" and any(above.is_relative_to(root) for root in roots) else common


def _has_files(git_dir: Path) -> bool:
    """Whether a git folder says that files are checked out of it: where, only git knows."""
    return _NOT_BARE.search(_line(git_dir / "config") or "") is not None


def _named_by(path: Path, word: str) -> Path:
    """Follow a file that stands for a folder; a path that is no such file stands for itself."""
    line = _line(path)
    return path.parent / line.removeprefix(word).strip() if line and line.startswith(word) else path


def _line(path: Path) -> str | None:
    """Read what a small file of git's says, if there is one."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        said = os.fsdecode(file.read(_MAX_LINE))
    return None if "\0" in said else said.strip()


def _is_git_dir(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()
