"""Finds what git would run in an origin of this machine that a merge could have written there.

Hooks of an origin are its owner's law, and run as our user. Where git takes them, or programs that its settings name,
from the files of a checkout, whoever writes a patch writes that law, too.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from activities.workbench.mirrors import Mirror

_FILE = "file:"
_RUN = re.compile(r"\.(alternaterefscommand|clean|command|driver|fsmonitor|process|program|smudge|textconv)$")
"""How the names of settings end whose values git runs, or may run in time, where it receives a push."""
_INCLUDED = re.compile(r"include(if\..*)?\.path$", re.DOTALL)
_HOOKS = "core.hookspath"
_WORD = re.compile(r"[^\s'\"`;|&()<>$]+")


class Setting(NamedTuple):
    """One of a repository's settings, and the file that says it; its name as git writes it."""

    file: Path
    name: str
    value: str


async def planted(mirror: Mirror) -> str:
    """Say, for people, what a local origin would run that a patch may have written; "" where that is nothing.

    What a hook itself starts nobody can see here.
    """
    if mirror.url.path is None:
        return ""
    listed = await mirror.origin_git("config", "--list", "--show-origin", "--includes", "--null")
    return next(found(read_settings(listed.out), mirror.origin_dir, Path(mirror.url.path), mirror.home), "")


def found(settings: Iterable[Setting], git_dir: Path, tree: Path, home: Path) -> Iterator[str]:
    """Look at the files that say something, at the programs that settings name, and at the hooks.

    `home` is what git takes for the user's.
    """
    hooks = git_dir / "hooks"
    for file in (git_dir / "config", git_dir / "config.worktree"):  # git lists none that is not there yet
        if _is_from_checkout(file, git_dir):
            yield f"its settings in {file.name!r}"
    for file, name, value in settings:
        if name == _HOOKS:
            hooks = git_dir / _expanded(value, home)
        elif _INCLUDED.match(name) and _is_from_checkout(file.parent / _expanded(value, home), git_dir):
            yield f"its settings in {value!r}"
        elif _RUN.search(name) and _names_file(value, git_dir, tree):
            yield f"the program of its setting {name!r}"
    if _is_from_checkout(hooks, git_dir):
        yield "its folder of hooks"
    elif hooks.is_dir():
        yield from (f"its hook {hook.name!r}" for hook in sorted(hooks.iterdir()) if _is_from_checkout(hook, git_dir))


def read_settings(listed: bytes) -> Iterator[Setting]:
    """Read what `git config --list --show-origin --null` prints, but for what the command line says."""
    parts = os.fsdecode(listed).split("\0")
    for origin, said in zip(parts[::2], parts[1::2], strict=False):
        if origin.startswith(_FILE):
            name, _, value = said.partition("\n")
            yield Setting(Path(origin.removeprefix(_FILE)), name, value)


def _is_from_checkout(path: Path, git_dir: Path) -> bool:
    """Whether a path leads among the files of any checkout. No commit holds a `.git`: what is in one is no patch's."""
    real, own = path.resolve(), git_dir.resolve()
    top = own if real.is_relative_to(own) else Path(real.anchor)
    folders = (folder for folder in (real, *real.parents) if folder.is_relative_to(top))
    return ".git" not in real.relative_to(top).parts and any((folder / ".git").exists() for folder in folders)


def _names_file(command: str, git_dir: Path, tree: Path) -> bool:
    """Whether a command runs, or reads, a file of a checkout; the program itself may come with the patch."""
    words = _WORD.findall(command)
    files = [tree / word for number, word in enumerate(words) if (number == 0 and "/" in word) or _is_file(tree / word)]
    return any(_is_from_checkout(file, git_dir) for file in files)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a word that is too long for a name
        return False


def _expanded(value: str, home: Path) -> Path:
    return home / value[2:] if value.startswith("~/") else Path(value).expanduser()
