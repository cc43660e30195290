"""API keys: made, listed, rotated, revoked (API-07, AGENT-06, V-46)."""

from datetime import timedelta

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth import Call
from api.deps import Admin, Anybody, Db, Newest, OnAccess
from api.routing import router
from api.scopes import require_use
from api.services import services
from api.views import key_made, key_view, key_views
from models.contracts.missions import Named
from models.domain.errors import NotFound
from models.domain.principals import Kind
from models.schemas.envelope import Page, Success
from models.schemas.keys import KeyCreate, KeyMade, KeyRotate, KeyView
from models.store import api_keys, principals

routes = router("keys")
SECRET = "secret"  # noqa: S105  # the name of a field


@routes.post("/keys", status_code=201, response_model=Success[KeyMade])
async def create_key(new: KeyCreate, call: Admin, once: OnAccess, request: Request) -> Response:
    """Give a principal a key, and make the principal where there is none. Its secret is in this answer only."""

    async def create(session: AsyncSession) -> KeyMade:
        call.principal.require_scopes_over(new.scopes)
        owner = (new.principal, new.kind, new.role)
        found = await principals.find_or_create(session, call.workspace_id, *owner, call.principal, call.actor)
        call.principal.require_power_over(found.role)
        call.principal.require_rate_over(new.rate_per_minute, services(request).limiter.usual(Kind(found.kind)))
        require_use(request, principals.as_caller(found), new.scopes)
        key, secret = await api_keys.create(session, call.workspace_id, new, call.actor)
        return await key_made(session, key, secret)

    return await once.commit(create, shown_once=SECRET)


@routes.get("/keys")
async def list_keys(
    call: Admin, db: Db, page: Newest, principal: Named | None = None, kind: Kind | None = None, role: str | None = None
) -> Success[Page[KeyView]]:
    """List the workspace's keys, the newest first; those that ended, too."""
    filters = {"principal": principal, "kind": kind, "role": role}
    async with db.workspace(call.workspace_id) as session:
        found = await api_keys.list_page(session, call.workspace_id, filters, page)
        items = await key_views(session, found.rows)
    return Success(data=Page(items=items, next_cursor=found.next_cursor))


@routes.get("/keys/{key_id}")
async def get_key(key_id: str, call: Admin, db: Db) -> Success[KeyView]:
    """Show a key, without its secret."""
    async with db.workspace(call.workspace_id) as session:
        found = await api_keys.require(session, call.workspace_id, key_id)
        return Success(data=await key_view(session, found))


@routes.post("/keys/{key_id}/rotate", status_code=201, response_model=Success[KeyMade])
async def rotate_key(key_id: str, body: KeyRotate, call: Anybody, once: OnAccess) -> Response:
    """Make a key's successor; the old one opens for the grace period yet. An admin may, and whoever holds the key."""
    is_own = call.principal.key_id == key_id
    if not (is_own or call.principal.is_admin):
        raise NotFound("key_not_found", f"you have no key {key_id!r}: rotate your own, or ask an admin")

    async def rotate(session: AsyncSession) -> KeyMade:
        await _require_power(session, call, key_id, gives=not is_own)
        grace = timedelta(hours=body.grace_hours)
        key, secret = await api_keys.rotate(session, call.workspace_id, key_id, grace, call.actor)
        return await key_made(session, key, secret)

    return await once.commit(rotate, shown_once=SECRET)


@routes.delete("/keys/{key_id}", response_model=Success[KeyView])
async def revoke_key(key_id: str, call: Admin, once: OnAccess) -> Response:
    """End a key now: every process refuses it within a second, and its event streams end."""

    async def revoke(session: AsyncSession) -> KeyView:
        await _require_power(session, call, key_id, gives=False)
        return await key_view(session, await api_keys.revoke(session, call.workspace_id, key_id, call.actor))

    return await once.commit(revoke)


async def _require_power(session: AsyncSession, call: Call, key_id: str, *, gives: bool) -> None:
    """Refuse to let anyone end, or where it `gives` a secret come to hold, a key that can do more than its own."""
    key = await api_keys.require(session, call.workspace_id, key_id)
    call.principal.require_power_over(key.role)
    if gives:
        call.principal.require_scopes_over(key.scopes)
