"""Workspaces, who acts in them, the keys that open them, and the repositories registered in them."""

from sqlalchemy import ForeignKeyConstraint
from sqlmodel import Field

from models.domain.names import FIRST_START
from models.tables.base import Json, JsonList, SQLModel, Time, json, key, names, now, time, words


class Workspace(SQLModel, table=True):
    """An independent team: the scope of everything else."""

    workspace_id: str = key()
    slug: str = Field(unique=True)
    name: str
    mission_statement: str = words("")
    emoji: str = words("")
    color: str = words("")
    founder: str = words("")
    created_at: Time = now()


class PrincipalRow(SQLModel, table=True):
    """A human, agent or service of a workspace. `role` is a human's; others have their kind there."""

    __tablename__ = "principal"

    workspace_id: str = key(foreign_key="workspace.workspace_id")
    name: str = key()
    kind: str
    role: str
    created_by: str
    created_at: Time = now()
    deactivated_at: Time | None = time()


class ApiKey(SQLModel, table=True):
    """A principal's key; only its digest is kept, and a `hint` of its first characters to know it by.

    `kind` and `role` follow the principal's: the foreign key carries each change over. `lineage` is the key that it, or
    the one it was rotated from, began with.
    """

    __tablename__ = "api_key"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "principal", "kind", "role"],
            ["principal.workspace_id", "principal.name", "principal.kind", "principal.role"],
            onupdate="CASCADE",
        ),
    )

    workspace_id: str = key(foreign_key="workspace.workspace_id")
    key_id: str = key()
    lineage: str
    digest: str = Field(unique=True)
    principal: str
    kind: str
    role: str
    hint: str = words("")
    scopes: JsonList = json("[]")
    created_by: str = words(FIRST_START)
    rotated_to: str | None = None
    rate_per_minute: int | None = None
    created_at: Time = now()
    expires_at: Time | None = time()
    revoked_at: Time | None = time()
    last_used_at: Time | None = time()


class BrowserSession(SQLModel, table=True):
    """A key lent to a browser's cookie for a while; only the digest of the cookie is kept, and it ends with its key."""

    __tablename__ = "browser_session"
    __table_args__ = names("api_key", "key_id")

    workspace_id: str = key()
    digest: str = key()
    key_id: str
    created_at: Time = now()
    expires_at: Time = time(nullable=False)


class Repository(SQLModel, table=True):
    """A git repository that missions may change. Registered `commands` win over those of its file.

    `place` is the same for all spellings of its URL.
    """

    workspace_id: str = key(foreign_key="workspace.workspace_id")
    repository_id: str = key()
    name: str
    url: str
    place: str
    target_branch: str
    protected: bool
    env: str
    commands: Json = json("{}")
    created_by: str
    created_at: Time = now()


class Installation(SQLModel, table=True):
    """The one row about this installation: `epoch` grows when a dump was restored into another cluster.

    `origin` is what checkpoints of the audit log call this installation.
    """

    singleton: bool = key()
    epoch: int
    system_identifier: str
    config_hash: str | None = None
    default_workspace: str = words("default")
    origin: str


class SigningKey(SQLModel, table=True):
    """The public half of a key that signs records and commits, in OpenSSH form."""

    __tablename__ = "signing_key"

    key_id: str = key()
    public_key: str
    created_at: Time = now()
