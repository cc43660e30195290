"""What an operator may set, in one place, read from the environment here and nowhere else.

Temporal's SDK reads its own `TEMPORAL_*`. What we pass on to processes that we start is read where they are started.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from models.domain import spellings
from models.domain.errors import Misconfigured
from models.domain.rates import MAX_RATE


def _default_data_dir() -> Path:
    """Where state lives: a place that outlives a clone and that PostgreSQL's own user can reach when we are root."""
    if os.geteuid() == 0:
        return Path("/var/lib/mission-control")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "mission-control"


def _default_cache_dir() -> Path:
    """Where rebuildable things live: the Temporal CLI, test environments, mirrors."""
    if os.geteuid() == 0:
        return Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "mission-control"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mission-control"


Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """Settings of every process, from `MC_*` variables; `TEMPORAL_*` and `DATABASE_URL` keep their usual names.

    Built once in each entry point and passed down.
    """

    model_config = SettingsConfigDict(env_prefix="MC_", env_ignore_empty=True, frozen=True, extra="ignore")

    database_url: SecretStr | None = Field(default=None, validation_alias="DATABASE_URL")
    database_app_url: SecretStr | None = Field(default=None, validation_alias="DATABASE_APP_URL")
    database_system_url: SecretStr | None = Field(default=None, validation_alias="DATABASE_SYSTEM_URL")
    temporal_address: str | None = Field(default=None, validation_alias="TEMPORAL_ADDRESS")
    temporal_namespace: str = Field(default="default", validation_alias="TEMPORAL_NAMESPACE")
    temporal_cli_path: Path | None = Field(default=None, validation_alias="TEMPORAL_CLI_PATH")
    temporal_ui_url: str = "http://127.0.0.1:8233"
    task_queue_prefix: str = ""

    postgres_port: Port | None = None
    temporal_port: Port | None = None
    temporal_ui_port: Port | None = None
    """Ports of the servers `up` starts. Unset: the usual one, or another where that is taken. 0: any free one."""

    api_url: str = "http://127.0.0.1:8000"
    api_host: str = "127.0.0.1"
    api_port: Port = 8000
    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    trusted_proxies: str = Field(default="", validation_alias="FORWARDED_ALLOW_IPS")
    """Addresses and networks of proxies, with commas between, that are believed where a request comes from."""
    max_body_bytes: int = 64 * 1024 * 1024
    sse_heartbeat_seconds: float = Field(default=15, gt=0)
    streams_per_key: int = Field(default=20, ge=1, le=100_000)
    claims_per_agent: int = Field(default=20, ge=1, le=100_000)
    """Missions that an agent may have taken from the queue and not begun."""
    human_requests_per_minute: int = Field(default=600, ge=1, le=MAX_RATE)
    agent_requests_per_minute: int = Field(default=1200, ge=1, le=MAX_RATE)
    service_requests_per_minute: int = Field(default=6000, ge=1, le=MAX_RATE)
    anonymous_requests_per_minute: int = Field(default=30, ge=1, le=MAX_RATE)
    """Requests that a key may make, and an address without one; a key may have a number of its own."""

    data_dir: Path = Field(default_factory=_default_data_dir)
    cache_dir: Path = Field(default_factory=_default_cache_dir)
    signing_key_file: Path | None = None
    audit_mirror: SecretStr | None = None
    """A git repository that gets each checkpoint of the audit log; a URL may hold a password, or a token as one."""
    config_dir: Path = Path(__file__).resolve().parent.parent / "config"
    repository_roots: Annotated[tuple[Path, ...], NoDecode] = ()

    env: str = "dev"
    git_sha: str | None = None
    git_branch: str | None = None
    """What an image was built from; a checkout knows by itself."""
    host_id: str | None = Field(default=None, pattern=spellings.HOST)
    sandbox: Literal["auto", "bubblewrap", "namespaces", "none"] = "auto"
    setup_ports: Annotated[tuple[Annotated[int, Field(gt=0, lt=65_536)], ...], NoDecode] = ()
    """TCP ports that set-ups reach besides 80, 443 and those of the package indexes."""
    commands_at_once: int = Field(default=2, ge=1, le=256)
    metrics_host: str = "127.0.0.1"
    metrics_port: Port | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @field_validator("repository_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        return tuple(Path(p) for p in value.split(os.pathsep) if p) if isinstance(value, str) else value

    @field_validator("setup_ports", mode="before")
    @classmethod
    def _split_ports(cls, value: object) -> object:
        return tuple(part for part in value.replace(",", " ").split()) if isinstance(value, str) else value

    def database_doors(self) -> tuple[str, str]:
        """The URLs for the app's role and for the system's; with `DATABASE_URL` alone, both use it.

        Raises:
            Misconfigured: none is set.
        """
        app, system = self.database_app_url or self.database_url, self.database_system_url or self.database_url
        if app is None or system is None:
            message = "DATABASE_URL is not set: start with `mission-control up`, or point it at a PostgreSQL 18"
            raise Misconfigured("no_database", message)
        return app.get_secret_value(), system.get_secret_value()

    @property
    def key_file(self) -> Path:
        """The 0600 file that holds the first admin key; the CLI reads it."""
        return self.api_key_file or self.data_dir / "admin.key"

    @property
    def signing_key(self) -> Path:
        """The service's Ed25519 key in OpenSSH form; made on first start."""
        return self.signing_key_file or self.data_dir / "signing_key"
