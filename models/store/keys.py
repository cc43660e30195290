"""API keys: whose they are, and what they open. A key's secret exists once, in the answer to whoever asked for it."""

import hashlib
import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Boolean, ColumnElement, delete, false, func, literal_column, or_, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.agents import AgentStatus
from models.domain.events import EventType, Subject
from models.domain.keys import PREFIX, SESSION_PREFIX
from models.domain.principals import ADMINS, Kind, Principal, Role
from models.store import events
from models.store.database import Database
from models.store.events import Actor
from models.tables.workspaces import ApiKey, BrowserSession

HINT = len(PREFIX) + 4
"""Characters of a key that lists show: enough to tell a person's few keys apart, of no use to a guesser."""
DEFAULT_WORKSPACE = "default"
_FIRST_START_LOCK = 0x4D43_0002


def new_secret(prefix: str = PREFIX) -> str:
    """Draw a key: 256 random bits behind a prefix that secret scanners can look for."""
    return prefix + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """Name a secret in the table. With 256 random bits a plain hash is as safe as a slow one."""
    return hashlib.sha256(secret.encode()).hexdigest()


def of_secret(secret: str) -> dict[str, str]:
    """Give the columns of a new key that are made from its secret, or drawn with it."""
    key_id = f"key_{secrets.token_hex(8)}"
    return {"key_id": key_id, "lineage": key_id, "digest": digest(secret), "hint": secret[:HINT]}


async def find(db: Database, key_digest: str) -> Principal | None:
    """Find whose key this is (system door); None if unknown, revoked or expired. Every key in use asks each second."""
    return (await find_all(db, [key_digest])).get(key_digest)


async def find_all(db: Database, digests: Sequence[str]) -> dict[str, Principal]:
    """Find whose keys these are, in one exchange (system door); without those that are unknown, revoked or expired."""
    return await _found(db, _OPENS, digests)


async def find_sessions(db: Database, digests: Sequence[str]) -> dict[str, Principal]:
    """Find whose browser sessions these are (system door); without those that have ended, or whose key has."""
    return await _found(db, _LENT, digests)


async def _found(db: Database, statement: str, digests: Sequence[str]) -> dict[str, Principal]:
    """Look past the sessions' pool: one who holds a connection of it may ask whether they still may."""
    found: dict[str, Principal] = {}
    for row in await db.look(statement, {"digests": digests}):
        asked, status = row.pop("asked"), row.pop("agent_status")
        found[asked] = _principal(ApiKey(**row), status)
    return found


def _validity(key: str, now: str = "mc_now()") -> str:
    """Write that a key opens, as `key_state` has it."""
    return f"{key}.revoked_at IS NULL AND ({key}.expires_at IS NULL OR {key}.expires_at > {now})"


_OWNED = f"""
    JOIN principal AS p ON p.workspace_id = k.workspace_id AND p.name = k.principal AND p.deactivated_at IS NULL
    LEFT JOIN agent AS a ON k.kind = 'agent' AND a.workspace_id = k.workspace_id AND a.name = k.principal
        AND a.registration <> 'rejected'
    WHERE {_validity("k")}
"""  # constants of this module, no input
"""Keys that open, each with what its agent is, where an agent owns it. None does of whoever was deactivated."""
_OPENS = f"""
    SELECT k.*, k.digest AS asked, a.status AS agent_status FROM api_key AS k {_OWNED} AND k.digest = ANY(%(digests)s)
"""  # noqa: S608  # a constant of this module, no input
_LENT = f"""
    SELECT k.*, b.digest AS asked, a.status AS agent_status
    FROM browser_session AS b JOIN api_key AS k ON k.workspace_id = b.workspace_id AND k.key_id = b.key_id {_OWNED}
        AND b.digest = ANY(%(digests)s) AND b.expires_at > mc_now()
"""  # noqa: S608  # as above


async def open_session(session: AsyncSession, principal: Principal, lasts: timedelta, request_id: str) -> str:
    """Lend a key to a browser (system door); the secret of the cookie, which is kept nowhere."""
    secret = new_secret(SESSION_PREFIX)
    row = {"workspace_id": principal.workspace_id, "digest": digest(secret), "key_id": principal.key_id}
    await session.execute(delete(BrowserSession).where(col(BrowserSession.expires_at) <= func.mc_now()))
    await session.execute(insert(BrowserSession).values(**row, expires_at=func.mc_now() + lasts))
    await _tell(session, EventType.SESSION_OPENED, principal, request_id)
    return secret


async def close_session(session: AsyncSession, principal: Principal, secret: str, request_id: str) -> None:
    """End a browser's session (system door); an API key has none."""
    ended = delete(BrowserSession).where(col(BrowserSession.digest) == digest(secret))
    if (await session.execute(ended.returning(col(BrowserSession.key_id)))).first() is not None:
        await _tell(session, EventType.SESSION_CLOSED, principal, request_id)


async def _tell(session: AsyncSession, kind: EventType, principal: Principal, request_id: str) -> None:
    """Tell where the key is at home: a session goes along on a visit, and is of no host."""
    home = principal.home or principal.workspace_id
    about, actor = Subject(kind="principal", id=principal.name), Actor(principal.name, request_id)
    await events.append(session, home, kind, about, actor, {"key_id": principal.key_id})


async def has_platform_admin(session: AsyncSession, workspace_id: str) -> bool:
    """Whether any key of a platform admin is at home in the workspace, for good."""
    of_platform = col(ApiKey.role) == Role.PLATFORM_ADMIN.value
    statement = select(ApiKey.key_id).where(*lasting_admin(workspace_id), of_platform)
    return (await session.scalars(statement.limit(1))).first() is not None


async def has_ended(session: AsyncSession, principal: Principal) -> bool:
    """Whether the key of a caller has expired or was revoked; no other key is, until the transaction ends, beside us.

    That of a visitor is in another workspace, and not seen.
    """
    now = "mc_now() + (clock_timestamp() - now())"  # the transaction may have waited since it began
    own = (ApiKey.workspace_id == principal.workspace_id, ApiKey.key_id == principal.key_id)
    statement = select(~valid(now)).where(*own)
    return (await session.scalars(statement.with_for_update(read=True))).one_or_none() is True


async def other_resolvers(
    session: AsyncSession, workspace_id: str, role: Role, names: Collection[str], *, wide: bool = False
) -> bool:
    """Whether anybody but these has a key, of the role or higher, with which to answer decisions now.

    `wide`: one that is not narrowed, for an answer that lets somebody have a key.
    """
    narrowed = col(ApiKey.scopes).contains(["decisions"])
    high_enough = [each.value for each in Role if each.includes(role)]
    statement = select(ApiKey.key_id).where(
        ApiKey.workspace_id == workspace_id,
        ApiKey.kind == Kind.HUMAN.value,
        col(ApiKey.role).in_(high_enough),
        col(ApiKey.principal).not_in(names),
        or_(col(ApiKey.scopes) == [], narrowed if not wide else false()),
        valid(),
    )
    return (await session.scalars(statement.limit(1))).first() is not None


async def note_uses(session: AsyncSession, uses: Mapping[tuple[str, str], datetime]) -> set[tuple[str, str]]:
    """Write down when keys were last used (system door): many in one statement, now and then, never per request.

    Those that somebody changes now are left, for it would take keys in no order; which were written is given.
    """
    names = {"workspaces": [name for name, _ in uses], "keys": [key for _, key in uses], "times": list(uses.values())}
    return {(row.workspace_id, row.key_id) for row in await session.execute(_USED, names)}


_USED = text(
    "UPDATE api_key SET last_used_at = greatest(last_used_at, t.at) FROM ("
    " SELECT k.workspace_id, k.key_id, u.at"
    " FROM unnest(CAST(:workspaces AS text[]), CAST(:keys AS text[]), CAST(:times AS timestamptz[]))"
    " AS u (workspace_id, key_id, at) JOIN api_key AS k ON k.workspace_id = u.workspace_id AND k.key_id = u.key_id"
    " FOR UPDATE OF k SKIP LOCKED) AS t"
    " WHERE api_key.workspace_id = t.workspace_id AND api_key.key_id = t.key_id"
    " RETURNING api_key.workspace_id, api_key.key_id"
)


async def lock_first_start(session: AsyncSession) -> None:
    """Let one process at a time make the first key; given back when the transaction ends."""
    await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _FIRST_START_LOCK})


def valid(now: str = "mc_now()") -> ColumnElement[bool]:
    """Pick the keys that are neither revoked nor expired by the database's clock."""
    return literal_column(f"({_validity(ApiKey.__tablename__, now)})", Boolean())


def lasting_admin(workspace_id: str) -> tuple[ColumnElement[bool], ...]:
    """Pick the keys that may do everything, for good: as long as there is one, nobody is locked out."""
    place = (col(ApiKey.workspace_id) == workspace_id, col(ApiKey.role).in_(ADMINS))
    return (*place, col(ApiKey.revoked_at).is_(None), col(ApiKey.expires_at).is_(None), col(ApiKey.scopes) == [])


def _principal(key: ApiKey, status: str | None) -> Principal:
    kind = Kind(key.kind)
    return Principal(
        workspace_id=key.workspace_id,
        name=key.principal,
        kind=kind,
        role=Role(key.role) if kind is Kind.HUMAN else None,
        key_id=key.key_id,
        scopes=tuple(key.scopes),
        rate=key.rate_per_minute,
        lineage=key.lineage,
        status=AgentStatus(status) if status else None,
    )
