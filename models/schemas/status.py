"""The body of the status route."""

from datetime import datetime

from pydantic import BaseModel

from models.domain.health import Health, Overall


class SubsystemStatus(BaseModel):
    """How one part of the product is."""

    id: str
    state: Health
    checked_at: datetime
    detail: str = ""


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

    version: str
    config_hash: str | None
    observing_missions: int
    escalated_missions: int
