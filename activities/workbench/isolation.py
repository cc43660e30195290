"""How a command is started under each kind of isolation: bubblewrap, plain namespaces, or none.

Each kind gives an argument list and what the launcher reads from a descriptor of its own (so that `ps` on the host
shows no paths, and no list grows too long). The order is the same for all: enter the control groups, set rlimits,
isolate, become the unprivileged user, and only then run the script that carries anything foreign.
"""

import json
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from activities.workbench import namespace_init, port_guard
from activities.workbench.command import Isolation, Limits
from activities.workbench.limits import LAUNCHER_TASKS, Cage
from activities.workbench.slots import Slot
from activities.workbench.view import SCRATCH_FOLDERS, SCRIPT, View

LAUNCHER_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

_ENTER = 'while [ "$1" != -- ]; do echo 0 > "$1" || exit 125; shift; done; shift; exec "$@"'
_UNSHARED = ("--mount", "--pid", "--ipc", "--uts", "--cgroup")
_FIRST = """exec 3>&2 2>/dev/null
"$@" </dev/null 2>&3 3>&-
echo "{\\"exit-code\\": $?}" >&0
read -r _
"""
"""Bubblewrap's own first process would end with the command, and all that the command leaves behind with it, uncounted.

This one says the exit code and stays. Its input is the status socket, on which nothing comes: it ends by our hand, or
when we are gone. What the shell has to say of a command's death is nobody's output.
"""
_NO_CAPABILITIES = ("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs")
_WALL = 16
"""The rlimit stands this many times behind the limit: a fork bomb that hits it at once goes out by itself, unseen."""


@dataclass(frozen=True)
class Launch:
    """What to execute, and the bytes the launcher finds on the descriptor that `argv` names."""

    argv: tuple[str, ...]
    specification: bytes = b""
    status_as_input: bool = False
    """Whether what is started finds the status socket as its standard input, too."""


@dataclass(frozen=True)
class Box:
    """All that decides how one command is started."""

    slot: Slot
    view: View
    environment: Mapping[str, str]
    network: bool
    ports: frozenset[int] | None
    """The TCP ports that it reaches with a network; None for all."""
    script: Path

    def launch(self, isolation: Isolation, specification: int, status: int) -> Launch:
        """Build the isolating part of the launch; the arguments are descriptors the launcher inherits."""
        if isolation is Isolation.BUBBLEWRAP:
            return self._guarded(self._bubblewrap(specification, status))
        if isolation is Isolation.NAMESPACES:
            return self._guarded(self._namespaces(specification, status))
        return Launch(("setpriv", "--pdeathsig=KILL", *self._unprivileged(), *self._begin(str(self.script))))

    def _guarded(self, launch: Launch) -> Launch:
        """Put what keeps a command from our own servers around the rest of its launch, which needs none of them."""
        if not self.network or self.ports is None:
            return launch
        guard = (sys.executable, "-I", "-S", port_guard.__file__, *map(str, sorted(self.ports)), "--")
        return replace(launch, argv=(*guard, *launch.argv))

    def _bubblewrap(self, specification: int, status: int) -> Launch:
        options = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--die-with-parent"]
        options += ["--as-pid-1", "--hostname", "sandbox", *([] if self.network else ["--unshare-net"])]
        options += self._bubblewrap_view()
        tail = self._begin(SCRIPT)
        if self.slot.drops_uid:
            tail = ("setpriv", *self._unprivileged(), *tail)
        else:
            uid = str(self.slot.uid)
            options += ["--unshare-user", "--disable-userns", "--uid", uid, "--gid", uid]
        start = ("bwrap", "--args", str(specification), "--json-status-fd", str(status), "--")
        first = ("/bin/sh", "-c", _FIRST, "sh")
        written = b"".join(option.encode() + b"\0" for option in options)
        return Launch((*start, *first, *tail), written, status_as_input=True)

    def _bubblewrap_view(self) -> list[str]:
        view = self.view
        options = ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
        for folder in SCRATCH_FOLDERS:
            options += ["--perms", "1777", "--size", str(view.scratch), "--tmpfs", folder]
        for folder in view.folders:
            options += ["--perms", "0755", "--dir", folder]
        for mount in view.mounts:
            options += ["--bind" if mount.writable else "--ro-bind", str(mount.source), mount.target]
        for target, name in view.links:
            options += ["--symlink", target, name]
        return [*options, "--remount-ro", "/", "--chdir", "/"]

    def _namespaces(self, specification: int, status: int) -> Launch:
        mapped = not self.slot.drops_uid
        unshared = [*_UNSHARED, *([] if self.network else ["--net"]), *(["--map-root-user"] if mapped else [])]
        become = ("unshare", f"--map-user={self.slot.uid}", f"--map-group={self.slot.uid}", "--", "setpriv")
        tail = (*become, "--no-new-privs", "--") if mapped else ("setpriv", *self._unprivileged())
        root = self.slot.scratch / "root"
        root.mkdir()
        plan = namespace_init.Plan(
            root=str(root),
            folders=list(self.view.folders),
            links=[list(link) for link in self.view.links],
            mounts=[[str(mount.source), mount.target, mount.writable] for mount in self.view.mounts],
            scratch=list(SCRATCH_FOLDERS),
            scratch_bytes=self.view.scratch,
            mapped=mapped,
            network=self.network,
            argv=[*tail, *self._begin(SCRIPT)],
        )
        python = (sys.executable, "-I", "-S", namespace_init.__file__, str(specification), str(status))
        start = ("setpriv", "--pdeathsig=KILL", "--", "unshare", *unshared, "--fork", "--kill-child=SIGKILL", "--")
        return Launch((*start, *python), json.dumps(plan).encode())

    def _unprivileged(self) -> tuple[str, ...]:
        """Arguments of `setpriv` that leave no way back to where we came from."""
        uid = self.slot.uid
        dropped = (f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *_NO_CAPABILITIES)
        return (*(dropped if self.slot.drops_uid else ("--no-new-privs",)), "--")

    def _begin(self, script: str) -> tuple[str, ...]:
        return (
            "/usr/bin/env",
            "-i",
            *(f"{name}={value}" for name, value in self.environment.items()),
            "/bin/sh",
            script,
        )


NICE = 10
"""Foreign commands take what the product leaves: a fork bomb must not starve the heartbeats, nor whoever ends it."""


def fenced(argv: tuple[str, ...], cage: Cage, limits: Limits, others: int) -> tuple[str, ...]:
    """Put the limits around a launch. `others` is how many tasks of the same user are no part of it."""
    walls = ["--core=0", f"--fsize={_at_most(resource.RLIMIT_FSIZE, limits.disk)}"]
    if cage.pids is None:
        tasks = _WALL * (limits.processes + LAUNCHER_TASKS) + others
        walls.append(f"--nproc={_at_most(resource.RLIMIT_NPROC, tasks)}")
    fence = ("nice", "-n", str(NICE), "prlimit", *walls, "--", *argv)
    if not cage.entrances:
        return fence
    return ("/bin/sh", "-c", _ENTER, "sh", *map(str, cage.entrances), "--", *fence)


def _at_most(kind: int, wanted: int) -> int:
    """The limit to set: nobody may raise the one he was given."""
    _, hard = resource.getrlimit(kind)
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
