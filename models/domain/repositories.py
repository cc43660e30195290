"""Which repositories and which names of their branches Mission Control accepts."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from models.domain.errors import InvalidInput

_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_SCP_LIKE = re.compile(r"[A-Za-z0-9_][\w.-]*@[A-Za-z0-9_][\w.-]*:(?![-/]{2}|-)\S+")
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|^[-/.]|[/.]$|^@$")
_OUTSIDE = "repository_outside_roots"


@dataclass(frozen=True)
class RepositoryUrl:
    """A checked place of a repository: `url` is what git is given, `path` is set when it is on this machine."""

    url: str
    path: Path | None = None

    @property
    def git_dir(self) -> Path:
        """The folder with the refs and objects of a local repository, bare or not."""
        if self.path is None:
            raise ValueError("a remote repository has no folder here")
        return self.path / ".git" if (self.path / ".git").is_dir() else self.path


def check_url(url: str, allowed_roots: Iterable[Path]) -> RepositoryUrl:
    """Accept a local path or `file://` inside `allowed_roots`, `https://`, `ssh://` or `git@host:path`.

    Links are resolved first, so check again right before use. Only the names of files are looked at, nothing is run.

    Raises:
        InvalidInput: `repository_url_invalid`, `repository_scheme_not_allowed`, `repository_credentials_in_url`,
            `repository_outside_roots` or `repository_not_git`.
    """
    if not url or url.startswith("-") or re.search(r"[\x00-\x1f\x7f]", url):
        raise InvalidInput("repository_url_invalid", "Give an absolute path or a URL, without control characters.")
    if url.startswith("/"):
        return _local(Path(url), allowed_roots)
    if _SCP_LIKE.fullmatch(url):
        return RepositoryUrl(url)
    return _from_url(url, allowed_roots)


def outside_roots(urls: Iterable[str], allowed_roots: Iterable[Path]) -> tuple[str, ...]:
    """Pick the registered places that lie on this machine outside `allowed_roots`: no mission may use them."""
    roots = tuple(allowed_roots)
    return tuple(url for url in urls if _refusal(url, roots) == _OUTSIDE)


def check_ref_name(name: str) -> str:
    """Return `name` if git would take it as a branch, tag or SHA; refuse what git could read as something else.

    Raises:
        InvalidInput: `ref_invalid`.
    """
    if not name or len(name) > 250 or _BAD_REF.search(name):
        raise InvalidInput("ref_invalid", f"{name[:250]!r} is not a name of a branch, a tag or a commit.")
    return name


def _refusal(url: str, allowed_roots: Iterable[Path]) -> str:
    try:
        check_url(url, allowed_roots)
    except InvalidInput as error:
        return error.code
    return ""


def _from_url(url: str, allowed_roots: Iterable[Path]) -> RepositoryUrl:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        raise InvalidInput("repository_url_invalid", "The repository's URL cannot be read.") from None
    if parts.scheme == "file":
        return _local_file(parts, host, allowed_roots)
    if parts.scheme not in {"https", "ssh"} or not url.lower().startswith(f"{parts.scheme}://"):
        raise InvalidInput(
            "repository_scheme_not_allowed",
            "Give an absolute path, or a URL that begins with https:// or ssh://, or git@host:path.",
        )
    if not host or host.startswith("-") or _CONTROL.search(url) or parts.query or parts.fragment:
        raise InvalidInput("repository_url_invalid", "The URL needs a host and a path, and neither query nor spaces.")
    if parts.password is not None or (parts.scheme == "https" and parts.username is not None):
        raise InvalidInput(
            "repository_credentials_in_url",
            "A URL is stored and shown, so it must not hold a user's credentials: use a deploy key over ssh.",
        )
    if (parts.username or "").startswith("-") or not parts.path.strip("/"):
        raise InvalidInput("repository_url_invalid", "The URL needs a host and a path.")
    return RepositoryUrl(url)


def _local_file(parts: SplitResult, host: str, allowed_roots: Iterable[Path]) -> RepositoryUrl:
    path = unquote(parts.path)
    if host not in {"", "localhost"} or not path.startswith("/") or "\0" in path:
        raise InvalidInput("repository_url_invalid", "A file:// URL names an absolute path on this machine.")
    return _local(Path(path), allowed_roots)


def _local(path: Path, allowed_roots: Iterable[Path]) -> RepositoryUrl:
    roots = [root.resolve() for root in allowed_roots]
    try:
        real = path.resolve()
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
