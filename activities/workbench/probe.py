"""Tries a sandbox out: what it does not hold on this host, it does not promise."""

import os
import tempfile
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


async def probe(runner: CommandRunner) -> None:
    """Run a command that checks its own cell; raises `Unavailable` with what it printed when it does not hold."""
    with tempfile.TemporaryDirectory(prefix="mission-control-probe-") as folder:
        workspace, hidden = Path(folder, "workspace"), Path(folder, "hidden")
        workspace.mkdir()
        # Without isolation the command finds its folders only along paths that are open to its user.
        Path(folder).chmod(0o711)
        hidden.touch()
        printed: list[bytes] = []

        async def collect(data: bytes) -> None:
            printed.append(data)

        line = _RUNS if runner.isolation is Isolation.NONE else f"{_RUNS}set -x{_HOLDS}"
        facts = {"HIDDEN": str(hidden), "HOST_PID": os.readlink("/proc/self/ns/pid")}
        facts["HOST_NET"] = os.readlink("/proc/self/ns/net")
        command = Command(line, (Mount(workspace, WORKSPACE, writable=True),), facts, limits=Limits(seconds=20))
        result = await runner.run(command, collect)
        if not result.ok or not (workspace / "written").exists():
            said = b"".join(printed).decode(errors="replace")
            raise Unavailable("sandbox_failed", f"exit code {result.exit_code}, stopped: {result.stopped}. {said}")
