"""Looks at the folders that repositories of this machine are in, for those who check a place before they use it."""

import asyncio
from collections.abc import Iterable
from pathlib import Path, PurePath

from models.domain.errors import InvalidInput
from models.domain.repositories import RepositoryUrl, local_path

_OUTSIDE = "repository_outside_roots"


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

    Links are resolved first, so check again right before use. Only the names of files are looked at, nothing is run.

    Raises:
        InvalidInput: of `local_path`; `repository_outside_roots` or `repository_not_git`.
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
    roots = [root.resolve() for root in allowed_roots]
    try:
        real = Path(path).resolve()
        inside = any(real.is_relative_to(root) for root in roots)
        git_dir = real / ".git"
        if inside and git_dir.is_symlink():
            inside = any(git_dir.resolve().is_relative_to(root) for root in roots)
        is_git = inside and (_is_git_dir(git_dir) or _is_git_dir(real))
    except (OSError, RuntimeError):
        raise InvalidInput("repository_url_invalid", "The repository's path cannot be followed.") from None
    if not inside:
        raise InvalidInput(
            _OUTSIDE,
            "The path is not inside the folders this server may use: add a folder above it to MC_REPOSITORY_ROOTS, for "
            "the API and the workers, and start them again; or give the repository by https or ssh.",
        )
    if not is_git:
        raise InvalidInput(
            "repository_not_git", "There is no git repository at that path (of a linked worktree, give the main one)."
        )
    return RepositoryUrl(str(real), real)


def _is_git_dir(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()
