"""The body of the status route."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from models.domain.health import Health, Overall
from models.domain.principals import Kind, Role


class SubsystemStatus(BaseModel):
    """How one part of the product is."""

    id: str
    state: Health
    checked_at: datetime
    detail: str = ""


class SigningKeyView(BaseModel):
    """A public key of the service, in OpenSSH form; records and commits name it by `key_id`, its fingerprint."""

    model_config = ConfigDict(from_attributes=True)

    key_id: str
    public_key: str
    created_at: datetime


class CallerView(BaseModel):
    """Whose key asked, and how its holder names it, to rotate it."""

    name: str
    kind: Kind
    role: Role | None
    key_id: str


class SystemStatus(BaseModel):
    """The whole system at a glance (MISS-25): ten keys as the older document names them, then ours."""

    git_sha: str | None
    git_branch: str | None
    grace_version: str
    environment: str
    total_missions: int
    open_missions: int
    in_progress_missions: int
    resolved_missions: int
    subsystems: tuple[SubsystemStatus, ...]
    overall_health: Overall

    workspace_id: str
    version: str
    config_hash: str | None
    observing_missions: int
    escalated_missions: int
    signing_keys: tuple[SigningKeyView, ...]
    caller: CallerView
