"""Ports on the loopback interface: who holds one, and which is free."""

import socket

import psutil

from models.domain.errors import Conflict

LOOPBACK = "127.0.0.1"


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
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port


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


def require_free(port: int, setting: str) -> int:
    """`port` itself.

    Raises:
        Conflict: it is taken; the message names the holder and the setting that chooses another.
    """
    if not is_free(port):
        raise Conflict(
            "port_taken", f"port {port} is taken by {holder(port)}; stop it, or choose another port with {setting}"
        )
    return port
