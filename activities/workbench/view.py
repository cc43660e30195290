"""What a sandbox's command sees: the file system it is shown, its user, and the script that begins it."""

import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from activities.workbench.command import TMP, Command, Mount
from activities.workbench.slots import Slot
from activities.workbench.toolchain import SYSTEM_PATH, Toolchain

SCRIPT = "/run/command"
SCRATCH_FOLDERS = (TMP, "/dev/shm")  # noqa: S108  # of the sandbox, not of the host
MADE_BY_KERNEL = ("/proc", "/dev")

_TOO_COMMON = 2
"""Paths as short as `/src` are no secret, and occur within other paths."""

_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "os-release",
    "pki/ca-trust",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
)
_ETC_FOR_NETWORK = ("hosts", "resolv.conf")


@dataclass(frozen=True)
class View:
    """One sandbox's file system. `mounts` come parents first; `scratch` bounds each folder in memory, in bytes."""

    links: tuple[tuple[str, str], ...]
    mounts: tuple[Mount, ...]
    scratch: int

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders to make once there are root, `/dev` and scratch folders, so that all can be mounted."""
        targets = [mount.target for mount in self.mounts]
        wanted = {str(parent) for target in targets for parent in PurePosixPath(target).parents}
        there = {"/", *SCRATCH_FOLDERS}
        return tuple(sorted(folder for folder in wanted - there if not _inside(folder, [*targets, *MADE_BY_KERNEL])))


def view_of(command: Command, slot: Slot, toolchain: Toolchain) -> View:
    """Decide what a command sees: the toolchain, its own mounts, a minimal `/etc`, and nothing else."""
    links, system = _system()
    shown = [*system, *_etc(slot, command.network), *toolchain.mounts, *_with_git_kept(command.mounts, slot)]
    shown.append(Mount(slot.scratch / "command", SCRIPT))
    mounts = tuple(sorted(shown, key=lambda mount: PurePosixPath(mount.target).parts))
    limits = command.limits
    return View(links, mounts, min(limits.disk, limits.memory // 2))


def script_of(command: Command) -> str:
    """Give the shell script that becomes the command: the command's own variables are set here and not before.

    They come from a repository: set any earlier, `LD_PRELOAD` would run its code in our launcher.
    """
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(command.env.items())]
    begin = [f"cd {shlex.quote(command.cwd)} || exit 126", f"exec /bin/sh -c {shlex.quote(command.line)}"]
    return "\n".join(["umask 022", *exports, *begin, ""])


def first_environment(toolchain: Toolchain) -> dict[str, str]:
    """Give the variables every command begins with; of the worker's own, none."""
    path = ("/site/bin", "/env/bin", *toolchain.path, *SYSTEM_PATH)
    return {"PATH": ":".join(dict.fromkeys(path)), "HOME": TMP, "LANG": "C.UTF-8", "TERM": "dumb"}


def names_of_host_paths(mounts: Iterable[Mount]) -> dict[str, str]:
    """Which words of the output name the host, and what the command knows these places as."""
    words: dict[str, str] = {}
    for mount in mounts:
        for path in (mount.source, mount.source.resolve()):
            # Shown under two names, a toolchain is called by the first, which is ours.
            if len(path.parts) > _TOO_COMMON:
                words.setdefault(str(path), mount.target)
    return words


def write_script(command: Command, slot: Slot) -> Path:
    """Put the command's script where only the slot's own user (and we) can read it."""
    file = slot.scratch / "command"
    file.touch(mode=0o400)
    file.chmod(0o600)
    file.write_text(script_of(command), encoding="utf-8")
    if slot.drops_uid:
        os.chown(file, slot.uid, slot.uid)
    return file


def _system() -> tuple[tuple[tuple[str, str], ...], list[Mount]]:
    """`/usr`, and the old top folders as they are here: links into it, or folders of their own."""
    links, mounts = [], [Mount(Path("/usr"), "/usr")]
    for name in _SYSTEM:
        folder = Path("/", name)
        if folder.is_symlink():
            links.append((str(folder.readlink()), str(folder)))
        elif folder.is_dir():
            mounts.append(Mount(folder, str(folder)))
    return tuple(links), mounts


def _etc(slot: Slot, network: bool) -> Iterator[Mount]:
    """A minimal `/etc`: what programs need to start, and a made-up user."""
    for name in (*_ETC, *(_ETC_FOR_NETWORK if network else ())):
        if Path("/etc", name).exists():
            yield Mount(Path("/etc", name), f"/etc/{name}")
    for name, text in _made_up(slot.uid, network).items():
        file = slot.scratch / f"etc-{name}"
        file.write_text(text, encoding="utf-8")
        yield Mount(file, f"/etc/{name}")


def _made_up(uid: int, network: bool) -> dict[str, str]:
    users = f"root:x:0:0:root:/root:/bin/false\nsandbox:x:{uid}:{uid}:sandbox:/tmp:/bin/sh\n"
    groups = f"root:x:0:\nsandbox:x:{uid}:\n"
    files = {"passwd": users, "group": groups, "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n"}
    return files if network else files | {"hosts": "127.0.0.1 localhost\n::1 localhost\n"}


def _with_git_kept(mounts: Iterable[Mount], slot: Slot) -> Iterator[Mount]:
    """Show `.git` read-only. One that is a file names a path of the host, so an empty one stands for it."""
    for mount in mounts:
        yield mount
        git = mount.source / ".git"
        if mount.writable and git.is_symlink():
            continue
        if mount.writable and git.exists():
            source = git if git.is_dir() else _empty(slot)
            yield Mount(source, f"{mount.target}/.git")


def _empty(slot: Slot) -> Path:
    file = slot.scratch / "empty"
    file.touch()
    return file


def _inside(folder: str, mounted: Iterable[str]) -> bool:
    return any(PurePosixPath(folder).is_relative_to(target) for target in mounted)
