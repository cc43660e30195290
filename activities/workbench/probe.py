"""Tries a sandbox out: what it does not hold on this host, it does not promise."""

import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

from activities.workbench.command import WORKSPACE, Command, CommandRunner, Isolation, Limits, Mount
from models.domain.errors import Unavailable

_RUNS = """
set -e
touch /workspace/written
python3 -c 'import ctypes, ssl'
"""
_HOLDS = """
test "$(id -u)" -ne 0
test ! -e "$HIDDEN"
test ! -w /usr && test ! -w / && test ! -w /dev
test "$(readlink /proc/self/ns/pid)" != "$HOST_PID"
test "$(readlink /proc/self/ns/net)" != "$HOST_NET"
python3 -c '
import socket
here = socket.create_server(("127.0.0.1", 0))
socket.create_connection(here.getsockname()).close()
'
"""
_REACHES = """
python3 -c '
import os, socket
here = ("127.0.0.1", int(os.environ["PORT"]))
def ways():
    yield lambda: socket.create_connection(here)
    yield lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP).connect(here)
    yield lambda: socket.socket().sendto(b"x", socket.MSG_FASTOPEN, here)
reached = 0
for way in ways():
    try:
        way()
        reached += 1
    except OSError:
        pass
exit(reached)
'
"""


async def probe(runner: CommandRunner) -> None:
    """Run a command that checks its own cell; raises `Unavailable` with what it printed when it does not hold."""
    line = _RUNS if runner.isolation is Isolation.NONE else f"{_RUNS}set -x{_HOLDS}"
    facts = {"HOST_PID": os.readlink("/proc/self/ns/pid"), "HOST_NET": os.readlink("/proc/self/ns/net")}
    await _try(runner, line, facts, network=False)


async def probe_ports(runner: CommandRunner) -> None:
    """Run a command with network that tries all ways to a server of this host; raises `Unavailable` if one leads there.

    It has them all where the kernel knows nothing of ports.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        await _try(runner, _RUNS + _REACHES, {"PORT": str(server.getsockname()[1])}, network=True)


async def _try(runner: CommandRunner, line: str, facts: Mapping[str, str], network: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="mission-control-probe-") as folder:
        workspace, hidden = Path(folder, "workspace"), Path(folder, "hidden")
        workspace.mkdir()
        # Without isolation the command finds its folders only along paths that are open to its user.
        Path(folder).chmod(0o711)
        hidden.touch()
        printed: list[bytes] = []

        async def collect(data: bytes) -> None:
            printed.append(data)

        mounts = (Mount(workspace, WORKSPACE, writable=True),)
        known = {"HIDDEN": str(hidden), **facts}
        result = await runner.run(Command(line, mounts, known, network, limits=Limits(seconds=20)), collect)
        if not result.ok or not (workspace / "written").exists():
            said = b"".join(printed).decode(errors="replace")
            raise Unavailable("sandbox_failed", f"exit code {result.exit_code}, stopped: {result.stopped}. {said}")
