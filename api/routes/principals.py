"""Who acts in the workspace: humans, agents and services (POL-19, C-03)."""

from fastapi import Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.deps import Admin, Db, Newest, OnAccess, Reader
from api.routing import router
from api.views import page_of
from models.domain.principals import Kind
from models.schemas.envelope import Page, Success
from models.schemas.names import CleanName
from models.schemas.principals import PrincipalCreate, PrincipalView
from models.store import principals

routes = router("principals")


@routes.post("/principals", status_code=201, response_model=Success[PrincipalView])
async def create_principal(new: PrincipalCreate, call: Admin, once: OnAccess) -> Response:
    """Add a principal; `POST /keys` gives it a key. An agent that did not register is approved by this."""

    async def create(session: AsyncSession) -> PrincipalView:
        known = (new.name, new.kind, new.role)
        made = await principals.create(session, call.workspace_id, *known, call.principal, call.actor)
        return PrincipalView.model_validate(made)

    return await once.commit(create)


@routes.get("/principals")
async def list_principals(
    call: Reader, db: Db, page: Newest, kind: Kind | None = None, role: str | None = None
) -> Success[Page[PrincipalView]]:
    """List principals, the newest first; those that were deactivated, too."""
    filters = {"kind": kind, "role": role}
    async with db.workspace(call.workspace_id) as session:
        return page_of(PrincipalView, await principals.list_page(session, call.workspace_id, filters, page))


@routes.get("/principals/{name}")
async def get_principal(name: CleanName, call: Reader, db: Db) -> Success[PrincipalView]:
    """Show a principal."""
    async with db.workspace(call.workspace_id) as session:
        found = await principals.require(session, call.workspace_id, name)
    return Success(data=PrincipalView.model_validate(found))


@routes.delete("/principals/{name}", response_model=Success[PrincipalView])
async def deactivate_principal(name: CleanName, call: Admin, once: OnAccess) -> Response:
    """End a principal and all its keys now; what it did stays listed."""

    async def deactivate(session: AsyncSession) -> PrincipalView:
        ended = await principals.deactivate(session, call.workspace_id, name, call.principal, call.actor)
        return PrincipalView.model_validate(ended)

    return await once.commit(deactivate)
