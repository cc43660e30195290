"""The git repositories that missions may change."""

from fastapi import Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.deps import AppSettings, Db, Newest, OnlyOnce, Operator, Reader
from api.routing import router
from api.views import page_of
from models.domain.names import environment
from models.repositories import look
from models.schemas.envelope import Page, Success
from models.schemas.repositories import RepositoryCreate, RepositoryView
from models.store import repositories

routes = router("repositories")


@routes.post("/repositories", status_code=201, response_model=Success[RepositoryView])
async def create_repository(new: RepositoryCreate, call: Operator, once: OnlyOnce, settings: AppSettings) -> Response:
    """Register a repository: a local path inside the allowed folders, or an https or ssh URL.

    One that another workspace has registered is registered in a second one by platform admins only.
    """
    place = await look(new.url, settings.repository_roots)

    async def register(session: AsyncSession) -> RepositoryView:
        added = await repositories.register(
            session, call.workspace_id, new, place, settings.env, call.actor, may_share=call.principal.opens_all
        )
        return RepositoryView.model_validate(added)

    return await once.commit(register)


@routes.get("/repositories")
async def list_repositories(
    call: Reader, db: Db, page: Newest, name: str | None = None, url: str | None = None, env: str | None = None
) -> Success[Page[RepositoryView]]:
    """List repositories, the newest first."""
    filters = {"name": name, "url": url, "env": environment(env) if env else None}
    async with db.workspace(call.workspace_id) as session:
        return page_of(RepositoryView, await repositories.list_page(session, call.workspace_id, filters, page))


@routes.get("/repositories/{repository}")
async def get_repository(repository: str, call: Reader, db: Db) -> Success[RepositoryView]:
    """Show a repository by its id or its name."""
    async with db.workspace(call.workspace_id) as session:
        found = await repositories.require(session, call.workspace_id, repository)
    return Success(data=RepositoryView.model_validate(found))
