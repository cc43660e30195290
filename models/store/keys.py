"""API keys and the workspaces they open. A key's secret exists once, in the answer to whoever asked for it."""

import hashlib
import secrets

from sqlalchemy import func, or_, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.principals import Kind, Principal, Role
from models.tables.workspaces import ApiKey, Workspace

PREFIX = "mc_"
DEFAULT_WORKSPACE = "default"
_FIRST_START_LOCK = 0x4D43_0002


def new_secret() -> str:
    """Draw a key: 256 random bits behind a prefix that secret scanners can look for."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """Name a secret in the table. With 256 random bits a plain hash is as safe as a slow one."""
    return hashlib.sha256(secret.encode()).hexdigest()


async def create_workspace(session: AsyncSession, workspace_id: str, name: str) -> None:
    """Make a workspace (system door); making it twice makes it once."""
    row = {"workspace_id": workspace_id, "slug": workspace_id, "name": name}
    await session.execute(insert(Workspace).values(**row).on_conflict_do_nothing())


async def create_key(
    session: AsyncSession,
    workspace_id: str,
    principal: str,
    *,
    kind: Kind = Kind.HUMAN,
    role: Role | None = None,
    secret: str | None = None,
) -> str:
    """Give a principal a key (system door) and return the secret, which is kept nowhere. Humans need a role."""
    secret = secret or new_secret()
    row = {
        "workspace_id": workspace_id,
        "key_id": f"key_{secrets.token_hex(8)}",
        "digest": digest(secret),
        "principal": principal,
        "kind": kind.value,
        "role": role.value if role else kind.value,
    }
    await session.execute(insert(ApiKey).values(**row))
    return secret


async def find(session: AsyncSession, key_digest: str) -> Principal | None:
    """Find whose key this is (system door); None if unknown, revoked or expired."""
    valid = (
        col(ApiKey.revoked_at).is_(None),
        or_(col(ApiKey.expires_at).is_(None), col(ApiKey.expires_at) > func.mc_now()),
    )
    row = (await session.scalars(select(ApiKey).where(ApiKey.digest == key_digest, *valid))).one_or_none()
    if row is None:
        return None
    kind = Kind(row.kind)
    return Principal(row.workspace_id, row.principal, kind, Role(row.role) if kind is Kind.HUMAN else None, row.key_id)


async def has_admin(session: AsyncSession, workspace_id: str) -> bool:
    """Whether any admin key opens the workspace."""
    statement = select(ApiKey.key_id).where(
        ApiKey.workspace_id == workspace_id, ApiKey.role == Role.ADMIN.value, col(ApiKey.revoked_at).is_(None)
    )
    return (await session.scalars(statement.limit(1))).first() is not None


async def lock_first_start(session: AsyncSession) -> None:
    """Let one process at a time make the first key; given back when the transaction ends."""
    await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _FIRST_START_LOCK})
