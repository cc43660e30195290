"""The audit log and the tree over it. No row is ever changed, but for content that was redacted."""

from typing import Any

from sqlalchemy import BigInteger, FetchedValue
from sqlalchemy.types import UserDefinedType
from sqlmodel import Field

from models.tables.base import SQLModel, Time, big, binary, key, now


class Xid8(UserDefinedType[str]):
    """The id of a transaction; drivers know it as text."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Name it to Postgres."""
        return "xid8"


def _follows() -> Any:
    """Declare a column that Postgres makes of the others."""
    return Field(default=None, sa_column_kwargs={"server_default": FetchedValue()})


class AuditRow(SQLModel, table=True):
    """One act. A trigger writes it with the act's event; `digest` commits to `content` and `salt`.

    `agent_id` and `status` follow from the others: whose activity it is, and how what it tells of went.
    """

    __tablename__ = "audit"

    workspace_id: str = key()
    id: int = big(primary_key=True)
    epoch: int
    xid: str = Field(sa_type=Xid8, nullable=False)
    created_at: Time = now()
    actor: str
    actor_kind: str
    action: str
    subject_kind: str
    subject_id: str
    correlation_id: str
    git_sha: str | None = None
    config_hash: str | None = None
    digest: bytes = binary()
    salt: bytes | None = None
    content: str | None = None
    agent_id: str | None = _follows()
    status: str | None = _follows()


class AuditLeaf(SQLModel, table=True):
    """A sealed row's place in the tree, its number in its workspace, and what it commits to."""

    __tablename__ = "audit_leaf"

    tree_index: int = big(primary_key=True)
    workspace_id: str
    seq: int = big()
    id: int = big()
    leaf: bytes = binary()


class AuditWorkspace(SQLModel, table=True):
    """A workspace that has sealed rows: its place among all of them, and what its signed count is salted with."""

    __tablename__ = "audit_workspace"

    workspace_id: str = key()
    number: int = big()
    salt: bytes = binary()


class AuditNode(SQLModel, table=True):
    """The hash of a perfect subtree of height 8, 16, …"""

    __tablename__ = "audit_node"

    level: int = key()
    tree_index: int = big(primary_key=True)
    hash: bytes = binary()


class AuditCheckpoint(SQLModel, table=True):
    """A signed note over the first `size` leaves, and the place of the last row among them."""

    __tablename__ = "audit_checkpoint"

    size: int = big(primary_key=True)
    note: str
    key_id: str
    epoch: int
    xid: str = Field(sa_type=Xid8, nullable=False)
    id: int = Field(sa_type=BigInteger, nullable=False)
    created_at: Time = now()


class AuditMirrored(SQLModel, table=True):
    """A checkpoint, by its size, up to which the mirror has all."""

    __tablename__ = "audit_mirrored"

    size: int = big(primary_key=True)
    created_at: Time = now()
