"""A workspace's API keys as its admins see them: made, listed, rotated, revoked. Which key opens what: `keys`.

Whoever locks several things takes their turn first (`take_turn`), then a decision, an agent, principals, and keys, so
that nobody waits in a ring. The order would not do without the turn: a changed role cascades to all keys of its
principal in no order, and each is held until the transaction ends.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.agents import AgentStatus
from models.domain.errors import Conflict
from models.domain.events import EventType, Subject
from models.domain.keys import KeyState, key_state
from models.domain.principals import Kind, last_of, leaves_admins
from models.domain.refusals import missing
from models.schemas.keys import KeyCreate
from models.schemas.pagination import PageRequest
from models.store import events, keys, lists, rows
from models.store.events import Actor
from models.store.pagination import Rows
from models.tables.agents import AgentRow
from models.tables.workspaces import ApiKey, PrincipalRow


async def create(session: AsyncSession, workspace_id: str, new: KeyCreate, actor: Actor) -> tuple[ApiKey, str]:
    """Give a principal a key; the row, and the secret, which is kept nowhere."""
    days = new.expires_in_days
    values = {
        "principal": new.principal,
        "scopes": list(new.scopes),
        "rate_per_minute": new.rate_per_minute,
        "expires_at": None if days is None else func.mc_now() + timedelta(days=days),
    }
    return await insert_key(session, workspace_id, values, actor)


async def list_page(
    session: AsyncSession, workspace_id: str, filters: Mapping[str, object], page: PageRequest
) -> Rows[ApiKey]:
    """Read one page of keys, also of those that have ended."""
    return await lists.fetch(session, ApiKey, workspace_id, filters, (col(ApiKey.created_at), col(ApiKey.key_id)), page)


async def require(session: AsyncSession, workspace_id: str, key_id: str, *, for_update: bool = False) -> ApiKey:
    """Read a key that must be there."""
    found = await session.get(
        ApiKey, (workspace_id, key_id), with_for_update=for_update or None, populate_existing=for_update
    )
    if found is None:
        raise missing("key", key_id)
    return found


async def rotate(
    session: AsyncSession, workspace_id: str, key_id: str, grace: timedelta, actor: Actor
) -> tuple[ApiKey, str]:
    """Make a key's successor; the old one opens for the grace period yet.

    Raises:
        Conflict: `key_ended`, or `key_rotated` with the successor's id.
    """
    await _lock_owner(session, workspace_id, (await require(session, workspace_id, key_id)).principal)
    old = await require(session, workspace_id, key_id, for_update=True)
    if old.rotated_to is not None:
        told = f"this key has a successor, {old.rotated_to}: use that; where it was lost, an admin rotates it"
        raise Conflict("key_rotated", told, successor=old.rotated_to)
    if await states(session, [old]) != [KeyState.ACTIVE]:
        raise Conflict("key_ended", "this key has expired or was revoked; an admin makes a new one")
    kept = {name: getattr(old, name) for name in ("principal", "scopes", "rate_per_minute", "expires_at", "lineage")}
    made, secret = await insert_key(session, workspace_id, kept, actor)
    ends = func.least(col(ApiKey.expires_at), func.mc_now() + grace)  # which passes over a NULL
    # What has no grace is over for good: a clock that goes back must not open it again.
    over = {} if grace else {"revoked_at": func.mc_now()}
    ending = await rows.set_columns(session, old, rotated_to=made.key_id, expires_at=ends, **over)
    await _tell(session, old, EventType.API_KEY_ROTATED, actor, {"successor": made.key_id, **_ending(ending)})
    return made, secret


async def revoke(session: AsyncSession, workspace_id: str, key_id: str, actor: Actor) -> ApiKey:
    """End a key now; every process hears of it within a second. Ending it again changes nothing.

    Raises:
        Conflict: `last_admin_key`, nobody could make another.
    """
    await lock_principal(session, workspace_id, (await require(session, workspace_id, key_id)).principal)
    admins = await lock_admins(session, workspace_id)
    key = await require(session, workspace_id, key_id, for_update=True)
    if key.revoked_at is not None:
        return key
    others = [admin.role for admin in admins if admin.key_id != key_id]
    if not leaves_admins([admin.role for admin in admins], others):
        told = f"this is the last key of any {last_of(others)} that may do everything and never expires"
        raise Conflict("last_admin_key", f"{told}; make another one first")
    key = await rows.set_columns(session, key, revoked_at=func.mc_now())
    await _tell(session, key, EventType.API_KEY_REVOKED, actor, {})
    return key


async def revoke_all(session: AsyncSession, workspace_id: str, principal: str, actor: Actor) -> None:
    """End whatever keys a principal has, now. It is locked, so that none is just being made.

    Those that have expired end with them, or a clock that goes back would open them; only of those that opened it is
    told.
    """
    await lock_principal(session, workspace_id, principal)
    place = (col(ApiKey.workspace_id) == workspace_id, col(ApiKey.principal) == principal)
    ending = update(ApiKey).where(*place, col(ApiKey.revoked_at).is_(None)).values(revoked_at=func.mc_now())
    for key in (await session.scalars(ending.returning(ApiKey), execution_options={"populate_existing": True})).all():
        assert key.revoked_at is not None  # noqa: S101  # set just now
        if key_state(None, key.expires_at, key.rotated_to, key.revoked_at) is not KeyState.EXPIRED:
            await _tell(session, key, EventType.API_KEY_REVOKED, actor, {})


async def states(session: AsyncSession, found: Sequence[ApiKey]) -> list[KeyState]:
    """Tell how keys stand, by the database's clock."""
    now = (await session.scalars(select(func.mc_now()))).one()
    return [key_state(key.revoked_at, key.expires_at, key.rotated_to, now) for key in found]


async def newest(session: AsyncSession, workspace_id: str, principal: str) -> ApiKey | None:
    """Find a principal's newest key that opens and has no successor."""
    statement = select(ApiKey).where(
        ApiKey.workspace_id == workspace_id,
        ApiKey.principal == principal,
        col(ApiKey.rotated_to).is_(None),
        keys.valid(),
    )
    return (await session.scalars(statement.order_by(col(ApiKey.created_at).desc()).limit(1))).first()


async def insert_key(
    session: AsyncSession, workspace_id: str, values: Mapping[str, Any], actor: Actor
) -> tuple[ApiKey, str]:
    """Make a key with these columns.

    Raises:
        Conflict: `principal_deactivated`, or `agent_not_active`.
    """
    owner = await _lock_owner(session, workspace_id, values["principal"])
    secret = keys.new_secret()
    row = {"workspace_id": workspace_id, "kind": owner.kind, "role": owner.role, **keys.of_secret(secret), **values}
    made = (await session.scalars(insert(ApiKey).values(**row, created_by=actor.name).returning(ApiKey))).one()
    opens = {"role": made.role, "scopes": made.scopes, "rate_per_minute": made.rate_per_minute, **_ending(made)}
    await _tell(session, made, EventType.API_KEY_CREATED, actor, opens)
    return made, secret


async def _lock_owner(session: AsyncSession, workspace_id: str, name: str) -> PrincipalRow:
    """Hold a principal as it is, so that its end and a new key of it do not miss each other."""
    owner = await lock_principal(session, workspace_id, name)
    if owner is None or owner.deactivated_at is not None:
        is_human = owner is not None and owner.kind == Kind.HUMAN
        back = f"`mission-control member set {name} ROLE` brings them back first" if is_human else "take another name"
        raise Conflict("principal_deactivated", f"{name!r} was deactivated, and gets no keys: {back}")
    if owner.kind == Kind.AGENT:
        stopped = select(AgentRow.agent_id).where(
            AgentRow.workspace_id == workspace_id, AgentRow.name == name, AgentRow.status == AgentStatus.STOPPED.value
        )
        if (await session.scalars(stopped)).first() is not None:
            raise Conflict("agent_not_active", f"{name!r} is stopped and has no keys; an admin resumes it first")
    return owner


async def take_turn(session: AsyncSession, workspace_id: str) -> None:
    """Be the one who changes, until the transaction ends, who may do what in a workspace."""
    turn = text("SELECT pg_advisory_xact_lock(hashtextextended('access/' || :workspace_id, 0))")
    await session.execute(turn, {"workspace_id": workspace_id})


async def lock_principal(session: AsyncSession, workspace_id: str, name: str) -> PrincipalRow | None:
    """Take a principal, in turn, before any of its keys: all that is told of a key is told by who holds its owner."""
    await take_turn(session, workspace_id)
    return await session.get(PrincipalRow, (workspace_id, name), with_for_update=True, populate_existing=True)


async def lock_admins(session: AsyncSession, workspace_id: str) -> Sequence[ApiKey]:
    """Find the keys that may do everything, for good. They are locked: of two that are ended at once, one waits."""
    statement = select(ApiKey).where(*keys.lasting_admin(workspace_id)).order_by(col(ApiKey.key_id)).with_for_update()
    return (await session.scalars(statement, execution_options={"populate_existing": True})).all()


def _ending(key: ApiKey) -> dict[str, str | None]:
    return {"expires_at": key.expires_at.isoformat() if key.expires_at else None}


async def _tell(session: AsyncSession, key: ApiKey, kind: EventType, actor: Actor, data: dict[str, Any]) -> None:
    about, known = Subject(kind="api_key", id=key.key_id), {"principal": key.principal, "kind": key.kind}
    await events.append(session, key.workspace_id, kind, about, actor, known | data)
