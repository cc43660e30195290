"""Bodies of the audit routes."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from models.domain.events import Subject
from models.schemas.envelope import Body, Said


class Redaction(Body):
    """Removes what a row of the log says, and nothing elsewhere; the reason is told by a row of its own."""

    reason: Said


class AuditView(BaseModel):
    """One act: who did what to what, in which chain of causes, and what was said of it."""

    id: int
    created_at: datetime
    actor: str
    actor_kind: str = Field(description="human, agent, service, system; unknown where nobody of that name has a key.")
    action: str
    subject: Subject
    correlation_id: str
    git_sha: str | None
    config_hash: str | None
    digest: str
    content: dict[str, Any] | None = Field(description="Null once it was redacted; `digest` commits to it still.")
    links: dict[str, str]


class InclusionProof(BaseModel):
    """Shows that a row is in the tree of a signed checkpoint (RFC 6962; hashes in hexadecimal)."""

    row: dict[str, Any] = Field(description="What the leaf commits to.")
    leaf_index: int
    leaf: str
    hashes: list[str]
    checkpoint: str = Field(description="A signed note in the format C2SP tlog-checkpoint.")
    key_id: str
    signed_at: datetime


class ConsistencyProof(BaseModel):
    """Shows that the larger tree begins with the smaller one (RFC 6962; hashes in hexadecimal)."""

    from_size: int
    to_size: int
    hashes: list[str]


class CheckpointView(BaseModel):
    """A signed note over the first `size` rows of the installation."""

    model_config = ConfigDict(from_attributes=True)

    size: int
    note: str
    key_id: str
    created_at: datetime


class ProblemView(BaseModel):
    """The first thing that is wrong: with a row, or between the checkpoints of two sizes."""

    model_config = ConfigDict(from_attributes=True)

    code: str
    message: str
    row: int | None
    between: tuple[int, int] | None


class AuditVerdictView(BaseModel):
    """What came of verifying the workspace's log."""

    model_config = ConfigDict(from_attributes=True)

    good: Annotated[bool, Field(validation_alias="is_good")]
    origin: str
    rows: int
    redacted: int
    unsealed: int
    checkpoints: int
    size: int
    counted: bool
    problem: ProblemView | None
