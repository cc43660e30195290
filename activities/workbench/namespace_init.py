"""The first process of a sandbox made of plain namespaces; `unshare` starts this file alone, outside the package.

It shows the command the file system of the plan, starts it, says how it ended, and stays until its launcher has
counted what the command left behind: the end of a PID namespace's first process ends every other one in it. On the
status descriptor it writes what bubblewrap would.
"""

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
from typing import TypedDict

_libc = ctypes.CDLL(None, use_errno=True)

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC = 2, 4, 8, 4096, 16384
_MNT_DETACH = 2
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}


class Plan(TypedDict):
    """What the launcher asks for. `mapped`: we are root only in a user namespace of our own."""

    root: str
    folders: list[str]
    links: list[list[str]]
    mounts: list[list[str | bool]]
    scratch: list[str]
    scratch_bytes: int
    mapped: bool
    network: bool
    argv: list[str]


def main() -> int:
    """Be the first process: `argv` names the descriptors of the plan and of the status."""
    specification, status = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(status, False)
    with open(specification, encoding="utf-8") as file:
        plan: Plan = json.load(file)
    # Still the host's /proc: this is the number by which the host can kill us.
    _say(status, {"child-pid": int(os.readlink("/proc/self"))})
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    socket.sethostname("sandbox")
    if not plan["network"]:
        _bring_loopback_up()
    _build(plan)
    _enter(plan["root"])
    if plan["mapped"]:
        # One more user namespace, the command's own; it can then make none, and in none can it mount.
        _write("/proc/sys/user/max_user_namespaces", "1")
    code = _run(plan["argv"])
    _say(status, {"exit-code": code})
    os.read(status, 1)  # nothing ever comes: our launcher ends us, or is gone itself
    return code


def _build(plan: Plan) -> None:
    root = plan["root"]
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
    _make_devices(f"{root}/dev")
    os.mkdir(f"{root}/proc")
    _mount("proc", f"{root}/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    for folder in plan["scratch"]:
        os.makedirs(root + folder, exist_ok=True)
        _mount("tmpfs", root + folder, "tmpfs", _MS_NOSUID | _MS_NODEV, f"mode=1777,size={plan['scratch_bytes']}")
    for folder in plan["folders"]:
        os.mkdir(root + folder, 0o755)
    for source, target, writable in plan["mounts"]:
        _bind(str(source), f"{root}{target}", writable=bool(writable))
    for text, name in plan["links"]:
        os.symlink(text, root + name)
    for folder in (f"{root}/dev", root):
        _restrict(folder, _ATTR_RDONLY, recursive=False)


def _make_devices(dev: str) -> None:
    os.mkdir(dev)
    _mount("tmpfs", dev, "tmpfs", _MS_NOSUID, "mode=0755,size=64k")
    for name in _DEVICES:
        os.close(os.open(f"{dev}/{name}", os.O_CREAT))
        _mount(f"/dev/{name}", f"{dev}/{name}", "", _MS_BIND)
    os.mkdir(f"{dev}/pts")
    _mount("devpts", f"{dev}/pts", "devpts", _MS_NOSUID | _MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, f"{dev}/{name}")


def _bind(source: str, target: str, *, writable: bool) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.close(os.open(target, os.O_CREAT))
    _mount(source, target, "", _MS_BIND | _MS_REC)
    _restrict(target, _ATTR_NOSUID | _ATTR_NODEV | (0 if writable else _ATTR_RDONLY), recursive=True)


def _restrict(path: str, attributes: int, *, recursive: bool) -> None:
    """Take rights from a mount, and from all below it; what the host had taken already stays taken."""
    wanted = struct.pack("QQQQ", attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    arguments = (_AT_FDCWD, os.fsencode(path), flags, wanted, ctypes.c_size_t(len(wanted)))
    _check(_libc.syscall(_SYS_MOUNT_SETATTR, *arguments), path)


def _enter(root: str) -> None:
    """Make `root` the root, and let go of the old one."""
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), root)
    _check(_libc.umount2(b".", _MNT_DETACH), root)
    os.chdir("/")


def _bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))
        flags = struct.unpack("16sH14x", answer)[1] | _IFF_UP
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags))


def _run(argv: list[str]) -> int:
    """Run the command and reap orphans until it ends; a death by signal counts as in a shell."""
    child = os.fork()
    if child == 0:
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, and so by what it becomes
            signal.signal(ignored, signal.SIG_DFL)
        os.execvp(argv[0], argv)  # noqa: S606  # no shell is wanted here
    ended, code = 0, 0
    while ended != child:
        ended, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    result = _libc.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _check(result, target)


def _check(result: int, path: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _say(status: int, fact: dict[str, int]) -> None:
    os.write(status, json.dumps(fact).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
