"""Which repositories and which names of their branches Mission Control accepts."""

import posixpath
import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import PurePath, PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit

from models.domain.errors import InvalidInput
from models.domain.names import alike

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCP_LIKE = re.compile(r"[A-Za-z0-9_][\w.-]*@[A-Za-z0-9_][\w.-]*:(?![-/]{2}|-)\S+")
_HOME = re.compile("^/~(?=/)")
_USUAL_PORTS = {"https": 443, "ssh": 22}
_NO_HOST = re.compile(r"[^\w.-]", re.ASCII)
_NUMERIC = re.compile(r"(^|\.)(0[xX][0-9a-fA-F]*|[0-9]+)\.?$")
"""Of a name that ends so, resolvers make an address."""
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|^[-/.]|[/.]$|^@$")


@dataclass(frozen=True)
class RepositoryUrl:
    """A checked place of a repository: `url` is what git is given, `path` is set when it is on this machine."""

    url: str
    path: PurePath | None = None

    @property
    def place(self) -> str:
        """Which repository it is, however it was spelt."""
        return place_of(self.url)


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
    if not url or url.startswith("-") or _CONTROL.search(url):
        raise InvalidInput("repository_url_invalid", "Give an absolute path or a URL, without control characters.")
    if url.startswith("/"):
        return PurePosixPath(url)
    if not _SCP_LIKE.fullmatch(url):
        return _path_of(url)
    _require_host(url.partition("@")[2].partition(":")[0])
    return None


def place_of(url: str) -> str:
    """Name the repository that an accepted URL, or a path without links, leads to: all its spellings give one place.

    A local one is its folder. Of a remote one host, port and path count: the ways to reach it (`https`, `ssh`, whose
    key) lead to the same branches, and so do `.git` at the end, other case, and slashes and dots that name nothing.

    Raises:
        InvalidInput: as of `local_path`.
    """
    path = local_path(url)
    if path is not None:
        return posixpath.normpath(f"/{str(path).lstrip('/')}").removesuffix("/.git") or "/"
    host, named = _address(url)
    named = _HOME.sub("", alike(posixpath.normpath(f"/{named.strip('/')}")))
    while named.endswith(".git"):
        named = named.removesuffix(".git").rstrip("/")
    return host + named


def check_ref_name(name: str) -> str:
    """Return `name` if git would take it as a branch, tag or SHA; refuse what git could read as something else.

    Raises:
        InvalidInput: `ref_invalid`.
    """
    if not name or len(name) > 250 or _BAD_REF.search(name):
        raise InvalidInput("ref_invalid", f"{name[:250]!r} is not a name of a branch, a tag or a commit.")
    return name


def _address(url: str) -> tuple[str, str]:
    """Part an accepted remote URL into its host, with a port that is not the usual one, and its path."""
    if "://" not in url:
        host, _, path = url.partition("@")[2].partition(":")
        return _host(host), path
    parts = urlsplit(url)
    port = "" if parts.port in (None, _USUAL_PORTS[parts.scheme]) else f":{parts.port}"
    return _host(parts.hostname or "") + port, unquote(parts.path)


def _host(name: str) -> str:
    """Spell a host as the resolver of names does, and an address in one way."""
    if ":" in name:
        address = IPv6Address(name)
        return str(address.ipv4_mapped or address)
    return name.rstrip(".").lower()


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
    if not host or host.startswith("-") or "%" in parts.netloc or _is_odd(url) or parts.query or parts.fragment:
        told = "The URL needs a host and a path, no query, spaces or control characters, and no % before its path."
        raise InvalidInput("repository_url_invalid", told)
    if parts.password is not None or (parts.scheme == "https" and parts.username is not None):
        raise InvalidInput(
            "repository_credentials_in_url",
            "A URL is stored and shown, so it must not hold a user's credentials: use a deploy key over ssh.",
        )
    _require_host(host)
    if (parts.username or "").startswith("-") or not parts.path.strip("/"):
        raise InvalidInput("repository_url_invalid", "The URL needs a host and a path.")
    return None


def _is_odd(url: str) -> bool:
    """Whether a URL has a space, or a control character, be it spelt with %."""
    return bool(" " in url or _CONTROL.search(unquote(url)))


def _require_host(name: str) -> None:
    if not _is_host(name):
        told = (
            "The URL's host must be a name (beyond ASCII, its xn-- form), or an address in its usual form, without %."
        )
        raise InvalidInput("repository_url_invalid", told)


def _is_host(name: str) -> bool:
    """Whether all who read a host read the same.

    Some decode %, some take `127.1` for an address, and what they make of ß or ς is not the same host.
    """
    if ":" in name or _NUMERIC.search(name):
        try:
            return bool(ip_address(name))
        except ValueError:
            return False
    return not _NO_HOST.search(name)


def _path_of_file(parts: SplitResult, host: str) -> PurePosixPath:
    path = unquote(parts.path)
    if host not in {"", "localhost"} or not path.startswith("/") or "\0" in path:
        raise InvalidInput("repository_url_invalid", "A file:// URL names an absolute path on this machine.")
    return PurePosixPath(path)
