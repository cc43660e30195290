"""The languages and tools of this host that a sandbox shows, under names that tell nothing of the host."""

import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from activities.workbench.command import Mount

ROOT = "/toolchain"
SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin")


@dataclass(frozen=True)
class Toolchain:
    """Read-only folders outside `/usr`, and where in them the programs are (first wins)."""

    mounts: tuple[Mount, ...] = ()
    path: tuple[str, ...] = ()

    @classmethod
    def detect(cls, extra: Sequence[Path] = ()) -> "Toolchain":
        """Find the worker's own Python, Go and uv; `extra` folders are shown at their own paths."""
        found = [_python(), _go(), _uv(), *(_extra(folder) for folder in extra)]
        mounts = tuple(mount for part in found for mount in part.mounts)
        return cls(mounts, tuple(entry for part in found for entry in part.path))


@cache
def versions() -> dict[str, str]:
    """What builds depend on, for the keys of built environments."""
    return {"python": platform.python_version(), "machine": platform.machine(), "go": _go_env("GOVERSION")}


def _python() -> Toolchain:
    return _shown("python", Path(sys.base_prefix).resolve())


def _go() -> Toolchain:
    root = _go_env("GOROOT")
    return _shown("go", Path(root).resolve()) if root else Toolchain()


def _shown(name: str, prefix: Path) -> Toolchain:
    """Show a prefix under a name of ours, and at its own path too: shared libraries are looked for there."""
    if prefix.is_relative_to("/usr"):
        return Toolchain(path=(str(prefix / "bin"),))
    mounts = (Mount(prefix, f"{ROOT}/{name}"), Mount(prefix, str(prefix)))
    return Toolchain(mounts, (f"{ROOT}/{name}/bin",))


def _uv() -> Toolchain:
    """The real binary: version managers put scripts in front that need their own folders."""
    beside = Path(sys.base_prefix) / "bin/uv"
    on_path = Path(shutil.which("uv") or "/nowhere")
    for candidate in (Path(sys.prefix) / "bin/uv", beside, on_path):
        if candidate.is_file() and _is_binary(candidate):
            return Toolchain((Mount(candidate.resolve(), f"{ROOT}/bin/uv"),), (f"{ROOT}/bin",))
    return Toolchain()


def _is_binary(file: Path) -> bool:
    with file.open("rb") as content:
        return content.read(4) == b"\x7fELF"


def _extra(folder: Path) -> Toolchain:
    folder = folder.resolve()
    programs = folder / "bin"
    return Toolchain((Mount(folder, str(folder)),), (str(programs),) if programs.is_dir() else ())


def _go_env(name: str) -> str:
    """One of Go's settings; empty when there is no Go."""
    program = shutil.which("go")
    if program is None:
        return ""
    # Nothing of the worker's own settings must decide what the toolchain is.
    environment = {"HOME": "/", "GOENV": "off", "GOTOOLCHAIN": "local"}
    asked = subprocess.run(
        [program, "env", name], cwd="/", env=environment, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()
