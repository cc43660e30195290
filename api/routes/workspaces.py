"""Workspaces, and the humans who are members of them (WORKSPACE-01, 04, 05, 07)."""

from fastapi import Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.blocks import ToMissions, told
from api.deps import Admin, Db, Human, Newest, OnAccess, OnlyOnce, OnlyOnceEverywhere, PlatformAdmin, Reader
from api.routing import router
from api.views import page_of
from models.domain.budgets import MONTH
from models.domain.errors import nothing_to_change
from models.schemas.budgets import LimitView
from models.schemas.envelope import Page, Success
from models.schemas.names import CleanName, NewName
from models.schemas.principals import MemberPut, PrincipalView
from models.schemas.workspaces import WorkspaceBudget, WorkspaceChange, WorkspaceCreate, WorkspaceMade, WorkspaceView
from models.store import budgets, caps, principals, workspaces

routes = router("workspaces")


@routes.post("/workspaces", status_code=201, response_model=Success[WorkspaceMade])
async def create_workspace(new: WorkspaceCreate, call: Human, once: OnlyOnceEverywhere) -> Response:
    """Make a workspace and become its admin, with a key to it that is in this answer and nowhere else."""

    async def create(session: AsyncSession) -> WorkspaceMade:
        made, key, secret = await workspaces.create(session, new, call.principal, call.actor)
        return WorkspaceMade(**made.model_dump(), key_id=key.key_id, secret=secret)

    return await once.commit(create, shown_once="secret")


@routes.get("/workspaces")
async def list_workspaces(call: Reader, db: Db, page: Newest) -> Success[Page[WorkspaceView]]:
    """List the workspaces that the key opens, the newest first: one, and for a platform admin all."""
    async with db.system() as session:
        return page_of(WorkspaceView, await workspaces.opened_page(session, call.principal, page))


@routes.get("/workspaces/{workspace_id}")
async def get_workspace(workspace_id: str, call: Reader, db: Db) -> Success[WorkspaceView]:
    """Show a workspace."""
    async with db.workspace(call.workspace_id) as session:
        return Success(data=WorkspaceView.model_validate(await workspaces.require(session, call.workspace_id)))


@routes.patch("/workspaces/{workspace_id}", response_model=Success[WorkspaceView])
async def change_workspace(workspace_id: str, change: WorkspaceChange, call: Admin, once: OnlyOnce) -> Response:
    """Change how a workspace is shown."""
    values = change.model_dump(exclude_none=True)
    if not values:
        raise nothing_to_change(*WorkspaceChange.model_fields)

    async def apply(session: AsyncSession) -> WorkspaceView:
        return WorkspaceView.model_validate(await workspaces.change(session, call.workspace_id, values, call.actor))

    return await once.commit(apply)


@routes.put("/workspaces/{workspace_id}/default", response_model=Success[WorkspaceView])
async def set_default_workspace(workspace_id: str, call: PlatformAdmin, once: OnlyOnceEverywhere) -> Response:
    """Make a workspace the one that is meant where a stranger names none (V-73)."""

    async def choose(session: AsyncSession) -> WorkspaceView:
        return WorkspaceView.model_validate(await workspaces.set_default(session, call.workspace_id, call.actor))

    return await once.commit(choose)


@routes.put("/workspaces/{workspace_id}/budget", response_model=Success[LimitView])
async def set_workspace_budget(
    workspace_id: str, new: WorkspaceBudget, call: Admin, once: OnlyOnce, missions: ToMissions
) -> Response:
    """Set how many tokens the workspace may use in a month; its limit in dollars stays as it is."""

    async def set_tokens(session: AsyncSession) -> LimitView:
        change = {"tokens": new.cap_tokens}
        await caps.change_limit(session, call.workspace_id, MONTH, change, call.actor)
        return await budgets.view(session, call.workspace_id, MONTH)

    return told(await once.commit(set_tokens), missions)


@routes.get("/workspaces/{workspace_id}/members")
async def list_members(workspace_id: str, call: Reader, db: Db, page: Newest) -> Success[Page[PrincipalView]]:
    """List the humans of a workspace, the newest first, with their roles."""
    async with db.workspace(call.workspace_id) as session:
        return page_of(PrincipalView, await principals.members_page(session, call.workspace_id, page))


@routes.put("/workspaces/{workspace_id}/members/{name}", response_model=Success[PrincipalView])
async def put_member(workspace_id: str, name: NewName, body: MemberPut, call: Admin, once: OnAccess) -> Response:
    """Give a human a role; it holds for all keys that the human has, within a second."""

    async def put(session: AsyncSession) -> PrincipalView:
        member = await principals.set_role(session, call.workspace_id, name, body.role, call.principal, call.actor)
        return PrincipalView.model_validate(member)

    return await once.commit(put)


@routes.delete("/workspaces/{workspace_id}/members/{name}", response_model=Success[PrincipalView])
async def remove_member(workspace_id: str, name: CleanName, call: Admin, once: OnAccess) -> Response:
    """End a human's membership and all its keys now; the last admin stays."""

    async def remove(session: AsyncSession) -> PrincipalView:
        await principals.require_human(session, call.workspace_id, name)
        gone = await principals.deactivate(session, call.workspace_id, name, call.principal, call.actor)
        return PrincipalView.model_validate(gone)

    return await once.commit(remove)
