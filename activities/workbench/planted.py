"""Keeps git from running, in an origin of this machine, what a merge could have written there.

Hooks of an origin are its owner's law, and run as our user. Where git takes them, or settings, from the files of a
checkout, whoever writes a patch writes that law, too: then nothing is pushed. Programs that its settings name for
filters and the like may be files of the checkout in ways that nobody can see from here, and are not run at all.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from activities.workbench.mirrors import Mirror

_FILE = "file:"
_INCLUDED = re.compile(r"include(if\..*)?\.path$", re.DOTALL)
_FILTER = re.compile(r"(filter\..*)\.[a-z]+$", re.DOTALL)
_HOOKS = "core.hookspath"
_NO_PROGRAMS = {
    "core.fsmonitor": "false",
    "core.alternateRefsCommand": "true",
    "receive.autogc": "false",
    "maintenance.auto": "false",
}
"""Settings under which git, where it receives a push, runs hooks and no other programs but filters."""
_NO_FILTER = {"clean": "", "smudge": "", "process": "", "required": "false"}


class Setting(NamedTuple):
    """One of a repository's settings, and the file that says it; its name as git writes it."""

    file: Path
    name: str
    value: str


@dataclass(frozen=True)
class OriginLaw:
    """What a local origin would run that a patch may have written, for people ("" is nothing), and the environment in
    which its git runs hooks and no other programs.

    What a hook itself starts nobody can see here.
    """

    planted: str
    environment: dict[str, str]


async def read_law(mirror: Mirror) -> OriginLaw:
    """Read what a local origin's settings and hooks are."""
    listed = await mirror.origin_git("config", "--list", "--show-origin", "--includes", "--null")
    settings = list(read_settings(listed.out))
    return OriginLaw(next(_planted(settings, mirror.origin_dir, mirror.home), ""), _without_programs(settings))


def read_settings(listed: bytes) -> Iterator[Setting]:
    """Read what `git config --list --show-origin --null` prints, but for what the command line says."""
    parts = os.fsdecode(listed).split("\0")
    for origin, said in zip(parts[::2], parts[1::2], strict=False):
        if origin.startswith(_FILE):
            name, _, value = said.partition("\n")
            yield Setting(Path(origin.removeprefix(_FILE)), name, value)


def _without_programs(settings: Iterable[Setting]) -> dict[str, str]:
    """Say it as environment: a filter's name may hold what an option cannot."""
    filters = {found[1] for setting in settings if (found := _FILTER.match(setting.name))}
    none = {f"{name}.{part}": value for name in sorted(filters) for part, value in _NO_FILTER.items()}
    said = list((_NO_PROGRAMS | none).items())
    numbered = {f"GIT_CONFIG_KEY_{number}": name for number, (name, _) in enumerate(said)}
    numbered |= {f"GIT_CONFIG_VALUE_{number}": value for number, (_, value) in enumerate(said)}
    return {"GIT_CONFIG_COUNT": str(len(said)), **numbered}


def _planted(settings: Iterable[Setting], git_dir: Path, home: Path) -> Iterator[str]:
    """Look at the files that say something, and at the hooks. `home` is what git takes for the user's."""
    hooks = git_dir / "hooks"
    for file in (git_dir / "config", git_dir / "config.worktree"):  # git lists none that is not there yet
        if _is_from_checkout(file, git_dir):
            yield f"its settings in {file.name!r}"
    for file, name, value in settings:
        if name == _HOOKS:
            hooks = git_dir / _expanded(value, home)
        elif _INCLUDED.match(name) and _is_from_checkout(file.parent / _expanded(value, home), git_dir):
            yield f"its settings in {value!r}"
    if _is_from_checkout(hooks, git_dir):
        yield "its folder of hooks"
    elif hooks.is_dir():
        yield from (f"its hook {hook.name!r}" for hook in sorted(hooks.iterdir()) if _is_from_checkout(hook, git_dir))


def _is_from_checkout(path: Path, git_dir: Path) -> bool:
    """Whether a path leads among the files of any checkout. No commit holds a `.git`: what is in one is no patch's."""
    real, own = path.resolve(), git_dir.resolve()
    top = own if real.is_relative_to(own) else Path(real.anchor)
    folders = (folder for folder in (real, *real.parents) if folder.is_relative_to(top))
    return ".git" not in real.relative_to(top).parts and any((folder / ".git").exists() for folder in folders)


def _expanded(value: str, home: Path) -> Path:
    return home / value[2:] if value.startswith("~/") else Path(value).expanduser()
