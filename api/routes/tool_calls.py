"""Tools that a run calls: judged by the policy, logged, and asked about where the policy says so (POL-01..11)."""

from typing import Annotated

from fastapi import Depends, Path, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.deps import AppSettings, Db, OnlyOnce, Pagination, Policies, Reader, Settler, Spender
from api.routing import router
from api.views import page_of
from models.domain.errors import NotPermitted
from models.schemas.envelope import Page, Success
from models.schemas.pagination import PageRequest
from models.schemas.tool_calls import ToolCallCreate, ToolCallEnd, ToolCallView
from models.store import runs, tool_calls
from models.store.tool_calls import Asking

routes = router("runs")
InOrder = Annotated[PageRequest, Depends(Pagination("number", default="number"))]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]


@routes.post("/runs/{run_id}/tool-calls", status_code=201, response_model=Success[ToolCallView])
async def log_tool_call(
    run_id: str, made: ToolCallCreate, call: Spender, once: OnlyOnce, book: Policies, settings: AppSettings
) -> Response:
    """Ask whether a tool may be called, and log that; `status` is the answer. A call that was made is logged, too.

    The fourth retry in a row with the same error blocks the run. A tool that is not on the agent's list is 403.
    """
    asking = Asking(call.principal, call.actor, settings.env)

    async def log(session: AsyncSession) -> ToolCallView | NotPermitted:
        await runs.require_going_on(session, call.workspace_id, run_id, call.principal.own_agent)
        logged = await tool_calls.log(session, book, asking, run_id, made)
        if logged["refused"]:
            return NotPermitted("tool_not_permitted", f"{made.tool!r}: {logged['refused']}", number=logged["number"])
        return ToolCallView.model_validate(logged)

    return await once.commit(log)


@routes.get("/runs/{run_id}/tool-calls")
async def list_tool_calls(
    run_id: str, call: Reader, db: Db, page: InOrder, book: Policies
) -> Success[Page[ToolCallView]]:
    """List a run's tool calls in their order, each with the cost that it names."""
    async with db.workspace(call.workspace_id) as session:
        await runs.find(session, call.workspace_id, run_id)
        return page_of(ToolCallView, await tool_calls.list_page(session, book, call.workspace_id, run_id, page))


@routes.get("/runs/{run_id}/tool-calls/{number}")
async def get_tool_call(run_id: str, number: Number, call: Reader, db: Db, book: Policies) -> Success[ToolCallView]:
    """Show a tool call as it stands now: whether it may be made, must wait, or how it went."""
    async with db.workspace(call.workspace_id) as session:
        await runs.find(session, call.workspace_id, run_id)
        found = await tool_calls.find(session, book, call.workspace_id, run_id, number)
    return Success(data=ToolCallView.model_validate(found))


@routes.post("/runs/{run_id}/tool-calls/{number}/end", response_model=Success[ToolCallView])
async def end_tool_call(run_id: str, number: Number, told: ToolCallEnd, call: Settler, once: OnlyOnce) -> Response:
    """Tell how a call went that was allowed."""

    async def end(session: AsyncSession) -> ToolCallView:
        await runs.require_open_to(session, call.workspace_id, run_id, call.principal.own_agent)
        ended = await tool_calls.end(session, call.workspace_id, run_id, number, told, call.actor)
        return ToolCallView.model_validate(ended)

    return await once.commit(end)
