"""Which repositories and which names of their branches Mission Control accepts."""

import re
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit

from models.domain.errors import InvalidInput

_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_SCP_LIKE = re.compile(r"[A-Za-z0-9_][\w.-]*@[A-Za-z0-9_][\w.-]*:(?![-/]{2}|-)\S+")
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|^[-/.]|[/.]$|^@$")


@dataclass(frozen=True)
class RepositoryUrl:
    """A checked place of a repository: `url` is what git is given, `path` is set when it is on this machine."""

    url: str
    path: PurePath | None = None


def usable(place: RepositoryUrl | InvalidInput) -> RepositoryUrl:
    """Take a place that was looked at; raises why it may not be used, where that was found out."""
    if isinstance(place, InvalidInput):
        raise place
    return place


def local_path(url: str) -> PurePosixPath | None:
    """Check how a place is written; the path it names, if it is on this machine, and none for a remote one.

    Accepted are a local path or `file://`, `https://`, `ssh://` and `git@host:path`.

    Raises:
        InvalidInput: `repository_url_invalid`, `repository_scheme_not_allowed` or `repository_credentials_in_url`.
    """
    if not url or url.startswith("-") or re.search(r"[\x00-\x1f\x7f]", url):
        raise InvalidInput("repository_url_invalid", "Give an absolute path or a URL, without control characters.")
    if url.startswith("/"):
        return PurePosixPath(url)
    return None if _SCP_LIKE.fullmatch(url) else _path_of(url)


def check_ref_name(name: str) -> str:
    """Return `name` if git would take it as a branch, tag or SHA; refuse what git could read as something else.

    Raises:
        InvalidInput: `ref_invalid`.
    """
    if not name or len(name) > 250 or _BAD_REF.search(name):
        raise InvalidInput("ref_invalid", f"{name[:250]!r} is not a name of a branch, a tag or a commit.")
    return name


def _path_of(url: str) -> PurePosixPath | None:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        raise InvalidInput("repository_url_invalid", "The repository's URL cannot be read.") from None
    if parts.scheme == "file":
        return _path_of_file(parts, host)
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
    return None


def _path_of_file(parts: SplitResult, host: str) -> PurePosixPath:
    path = unquote(parts.path)
    if host not in {"", "localhost"} or not path.startswith("/") or "\0" in path:
        raise InvalidInput("repository_url_invalid", "A file:// URL names an absolute path on this machine.")
    return PurePosixPath(path)
