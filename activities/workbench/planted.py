"""Finds what git would run, in an origin of this machine, that a merge could have written there.

Hooks of an origin are its owner's law, and run as our user. Where git takes them, settings, or programs that settings
name, from the files of a checkout, whoever writes a patch writes that law, too: then nothing is pushed.
"""

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from activities.workbench.mirrors import Mirror

_FILE = "file:"
_INCLUDED = re.compile(r"include(if\..*)?\.path$", re.DOTALL)
_RUN = re.compile(
    r"(filter\..*\.(clean|smudge|process)|hook\..*\.command|core\.(fsmonitor|alternaterefscommand)|gc\.recentobjectshook)$",
    re.DOTALL,
)
"""Settings whose values git runs where it receives a push and brings a checkout up to date."""
_KNOWN = re.compile(
    r"""(?P<q>["']?)(?P<program>(/[\w.+-]+)*/?git([- ]lfs|-crypt))(?P=q) (clean|smudge|filter-process)"""
    r"""( --skip| --key-name=[\w-]+)?( (-- )?%f)?"""
)
"""Filters that take nothing from the files of a checkout but the one that they are for.

Git quotes `%f` for the shell itself: between quotes of a setting's own, the file's name is commands.
"""
_SIGNS = re.compile(r"[\s;&|<>=()`\"']")
_SWITCH = re.compile(r"|true|false|yes|no|on|off|[01]", re.IGNORECASE)
_HOOKS, _ELSEWHERE = "core.hookspath", "core.worktree"


class Setting(NamedTuple):
    """One of a repository's settings, and the file that says it; its name as git writes it."""

    file: Path
    name: str
    value: str


@dataclass(frozen=True)
class Place:
    """A local origin: the folder that git receives in, and those of its linked worktrees in there."""

    git_dir: Path
    linked: tuple[Path, ...]
    has_checkout: bool
    home: Path
    """What git takes for the user's."""

    def expand(self, value: str) -> Path:
        """Read a setting that is a path."""
        with suppress(RuntimeError):  # there is no such user
            return self.home / value[2:] if value.startswith("~/") else Path(value).expanduser()
        return Path(value)


@dataclass(frozen=True)
class OriginLaw:
    """What a local origin would run that a patch may have written, for people; "" is nothing.

    `hooks` is where it finds its hooks as it receives, if what it runs inside of a checkout might look elsewhere.
    """

    planted: str
    hooks: Path | None


async def read_law(mirror: Mirror) -> OriginLaw:
    """Read the settings and hooks of a local origin, also those that only a linked worktree has.

    What a hook itself starts nobody can see here.
    """
    git_dir = mirror.origin_dir
    linked = tuple(
        sorted(path.parent for path in git_dir.glob("worktrees/*/commondir") if (path.parent / "HEAD").exists())
    )
    place = Place(git_dir, linked, bool(linked) or str(git_dir) != str(mirror.url.path), mirror.home)
    own = list(read_settings(await mirror.origin_settings(git_dir)))
    others = [setting for path in linked for setting in read_settings(await mirror.origin_settings(path))]
    said = [setting.value for setting in own if setting.name == _HOOKS]
    hooks = git_dir / (place.expand(said[-1]) if said else "hooks")
    is_relative = bool(said) and not place.expand(said[-1]).is_absolute()
    may_look_elsewhere = place.has_checkout and (is_relative or any(one.name == _HOOKS for one in others))
    return OriginLaw(next(find([*own, *others], hooks, place), ""), hooks if may_look_elsewhere else None)


def read_settings(listed: bytes) -> Iterator[Setting]:
    """Read what `git config --list --show-origin --null` prints, but for what the command line says."""
    parts = os.fsdecode(listed).split("\0")
    for origin, said in zip(parts[::2], parts[1::2], strict=False):
        if origin.startswith(_FILE):
            name, _, value = said.partition("\n")
            yield Setting(Path(origin.removeprefix(_FILE)), name, value)


def find(settings: Iterable[Setting], hooks: Path, place: Place) -> Iterator[str]:
    """Look at the files that say something, at the programs that settings name, and at the hooks."""
    files = [place.git_dir / "config", *(path / "config.worktree" for path in (place.git_dir, *place.linked))]
    yield from (f"its settings in {file.name!r}" for file in files if _is_from_checkout(file, place))
    for file, name, value in settings:
        if _INCLUDED.match(name) and _is_from_checkout(file.parent / place.expand(value), place):
            yield f"its settings in {value!r}"
        elif place.has_checkout and name == _ELSEWHERE and not _is_its_own(place.git_dir / place.expand(value), place):
            yield f"its files in {value!r}, and perhaps its hooks,"
        elif _RUN.match(name) and not _is_harmless(value, place):
            yield f"the program of its setting {name!r}, perhaps,"
    if _is_from_checkout(hooks, place):
        yield "its folder of hooks"
    elif hooks.is_dir():
        yield from (f"its hook {hook.name!r}" for hook in sorted(hooks.iterdir()) if _is_from_checkout(hook, place))


def _is_harmless(command: str, place: Place) -> bool:
    """Whether what a setting runs is no file of a checkout; of an origin that has none, only a path can lead to one."""
    known = _KNOWN.fullmatch(command)
    words = [known["program"]] if known else _words(command)
    if any(_is_from_checkout(place.git_dir / place.expand(word), place) for word in words if "/" in word):
        return False
    return known is not None or not place.has_checkout or _SWITCH.fullmatch(command) is not None


def _words(command: str) -> list[str]:
    """Give the words of a command line, and their parts: one may be a command line of its own, for another shell."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quote that goes on
        words = command.split()
    return [part for word in words for part in (word, *_SIGNS.split(word))]


def _is_its_own(files: Path, place: Place) -> bool:
    """Whether a folder of files is the one in which git looks without being told."""
    return place.git_dir.name == ".git" and files.resolve() == place.git_dir.resolve().parent


def _is_from_checkout(path: Path, place: Place) -> bool:
    """Whether a path leads among the files of any checkout. No commit holds a `.git`: what is in one is no patch's."""
    with suppress(OSError, RuntimeError):  # longer than a path may be, or links in a circle: nobody opens it
        real, own = path.resolve(), place.git_dir.resolve()
        top = own if real.is_relative_to(own) else Path(real.anchor)
        folders = (folder for folder in (real, *real.parents) if folder.is_relative_to(top))
        return ".git" not in real.relative_to(top).parts and any((folder / ".git").exists() for folder in folders)
    return False
