"""Ports on the loopback interface: who holds one, and which is free."""

import atexit
import secrets
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack

import psutil

from models.domain.errors import Conflict
from models.settings import Settings

LOOPBACK = "127.0.0.1"
CANDIDATES = range(15_000, 32_000)
USUAL = {
    "api_port": 8000,
    "postgres_port": 5433,
    "temporal_port": 7233,
    "temporal_ui_port": 8233,
    "metrics_port": 9464,
}
"""By the name of the setting that asks for another one."""

_MARKS = ExitStack()
atexit.register(_MARKS.close)


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port for a server of ours, from below those the kernel hands out for outgoing connections."""
    while not _take(port := secrets.choice(CANDIDATES)):
        pass
    return port


def _take(port: int) -> bool:
    """Whether a server of ours could listen there; then no other Mission Control is told so as long as we live.

    A port is free until its server listens, and again while that one is started anew: others would take it meanwhile.
    The mark is a name in the same network namespace as the port, and goes with its process, however that ends.
    """
    if not is_free(port):
        return False
    if sys.platform != "linux":
        return True
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind(f"\0mission-control-port-{port}")
    except OSError:
        mark.close()
        return False
    _MARKS.enter_context(mark)
    return True


def listens(pid: int, port: int) -> bool:
    """Whether this very process serves that port; an answer alone could come from another."""
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port for c in connections)


def holder(port: int) -> str:
    """Who listens on `port`, as `process 4711 (python -m http.server)`; `another process` if we may not see it."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            return _describe(connection.pid)
    return "another process"


def _describe(pid: int | None) -> str:
    if pid is None:
        return "a process of another user"
    try:
        return f"process {pid} ({' '.join(psutil.Process(pid).cmdline())[:200]})"
    except psutil.Error:
        return f"process {pid}"


def asked_port(settings: Settings, field: str) -> int | None:
    """The port that an operator set, as opposed to a default."""
    return getattr(settings, field) if field in settings.model_fields_set else None


def choose_port(settings: Settings, field: str, report: Callable[[str], None]) -> int:
    """The port of a server we start: as the setting says, else the usual one, else another, and it is said.

    Raises:
        Conflict: the setting asks for a port that is taken; the message names the holder.
    """
    asked = asked_port(settings, field)
    port = USUAL[field] if asked is None else asked
    if port == 0:
        return free_port()
    if _take(port) if asked is None else is_free(port):
        return port
    if asked is not None:
        variable = f"MC_{field.upper()}"
        raise Conflict(
            "port_taken", f"port {port} ({variable}) is taken by {holder(port)}; stop it or change {variable}"
        )
    other = free_port()
    report(f"port {port} is taken by {holder(port)}; using {other}")
    return other
