"""The ports on which this installation's own servers listen: set-ups of repositories, which have a network, reach none.

Temporal asks nobody for a password, and whoever reaches it steers the missions of all workspaces.
"""

from collections.abc import Collection, Iterator
from contextlib import suppress
from urllib.parse import urlsplit

from models.domain.errors import Misconfigured
from models.settings import Settings

POSTGRES = 5432
"""The port of a database's URL that names none."""
UNGUARDED = (
    "set-ups of repositories reach this host's own servers, such as Temporal, which asks for no password: run only "
    "repositories you trust, or use Linux 6.7 or newer with Landlock"
)


def require_apart(settings: Settings, ports: Collection[int]) -> None:
    """Raise `Misconfigured` where a port that set-ups may connect to is one of ours."""
    shared = [f"{name} on {port}" for name, port in own_ports(settings) if port in ports]
    if shared:
        message = (
            f"set-ups of repositories could connect to our own {', '.join(shared)}: 80, 443, the ports of package "
            "indexes and those of MC_SETUP_PORTS are open to them. Let it listen elsewhere."
        )
        raise Misconfigured("set_ups_reach_us", message)


def own_ports(settings: Settings) -> Iterator[tuple[str, int]]:
    """Name what listens on this host, as far as the settings tell."""
    yield "API", settings.api_port
    if settings.metrics_port:
        yield "metrics", settings.metrics_port
    temporal = [("Temporal", f"//{settings.temporal_address or ''}"), ("Temporal UI", settings.temporal_ui_url)]
    databases = (settings.database_url, settings.database_app_url, settings.database_system_url)
    for name, url in (*temporal, *(("PostgreSQL", url.get_secret_value()) for url in databases if url)):
        with suppress(ValueError):  # a database's URL may name several hosts: these are not ours
            parts = urlsplit(url)
            port = parts.port or (POSTGRES if name == "PostgreSQL" else 0)
            if port and _is_here(parts.hostname or ""):
                yield name, port


def _is_here(host: str) -> bool:
    return host in ("localhost", "::1", "::", "0.0.0.0") or host.startswith("127.")  # noqa: S104  # not listened on
