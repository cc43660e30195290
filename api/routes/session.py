"""A browser's session: a key exchanged for a cookie, because EventSource cannot send headers (C-08)."""

from datetime import timedelta

from fastapi import Request, Response

from api.auth import COOKIE, secret_of
from api.deps import PUBLIC, Db, Leaver
from api.routing import router
from api.services import services
from models.domain.agents import Latitude, require_latitude
from models.domain.errors import Unauthenticated
from models.domain.keys import SESSION_PREFIX
from models.schemas.envelope import Success
from models.schemas.session import SessionOpen, SessionView
from models.store import keys

LASTS = timedelta(hours=12)
routes = router("auth")


@routes.post("/auth/session", dependencies=[PUBLIC])
async def open_session(request: Request, response: Response, body: SessionOpen, db: Db) -> Success[SessionView]:
    """Exchange a key for a cookie that lasts 12 hours, or as long as the key; 409 where its agent may not look."""
    if body.key.startswith(SESSION_PREFIX):
        raise Unauthenticated("invalid_api_key", "a session makes no further sessions; send the API key")
    principal = await services(request).keys.open(body.key)
    require_latitude(principal.name, principal.status, Latitude.LOOK)
    async with db.system() as session:
        secret = await keys.open_session(session, principal, LASTS, request.state.request_id)
    secure = request.url.scheme == "https"
    age = int(LASTS.total_seconds())
    response.set_cookie(COOKIE, secret, max_age=age, httponly=True, samesite="strict", secure=secure)
    view = SessionView(
        principal=principal.name, workspace_id=principal.workspace_id, kind=principal.kind, role=principal.role
    )
    return Success(data=view)


@routes.delete("/auth/session", status_code=204)
async def close_session(request: Request, call: Leaver, db: Db) -> Response:
    """End the session of the cookie; without one there is nothing to end."""
    secret = secret_of(request)
    async with db.system() as session:
        await keys.close_session(session, call.principal, secret, call.request_id)
    services(request).keys.forget_all()
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response
