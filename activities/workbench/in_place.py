"""Running without isolation: the fixed paths do not exist, so the command is told the host's own instead."""

import re
from collections.abc import Mapping
from dataclasses import replace

from activities.workbench.command import TMP, Command, Mount
from activities.workbench.slots import MARK, Slot
from activities.workbench.toolchain import Toolchain
from activities.workbench.view import first_environment


class HostPaths:
    """Turns a sandbox's paths into the host's, in command lines and variables."""

    def __init__(self, mounts: tuple[Mount, ...]) -> None:
        self._sources = {mount.target: str(mount.source) for mount in mounts}
        targets = "|".join(re.escape(target) for target in sorted(self._sources, key=len, reverse=True))
        # Whole paths only: neither the end of `/usr/bin/env` nor the beginning of `/environment`.
        self._pattern = re.compile(rf"(?<![\w./-])(?:{targets})(?![\w.-])")

    def text(self, text: str) -> str:
        """Name the host's folders in a piece of shell."""
        return self._pattern.sub(lambda match: self._sources[match[0]], text) if self._sources else text

    def values(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Name the host's folders in the values of variables."""
        return {name: self.text(value) for name, value in variables.items()}


def in_place(command: Command, slot: Slot, toolchain: Toolchain) -> tuple[Command, dict[str, str]]:
    """Give the command as it must be put on the host itself, and its first variables; the slot's home is its `/tmp`."""
    home = Mount(slot.home, TMP, writable=True)
    paths = HostPaths((*command.mounts, *toolchain.mounts, home))
    told = replace(
        command,
        line=paths.text(command.line),
        cwd=paths.text(command.cwd),
        env=paths.values(command.env),
        mounts=(*command.mounts, home),
    )
    return told, paths.values(first_environment(toolchain) | {"TMPDIR": TMP, MARK: slot.name})
