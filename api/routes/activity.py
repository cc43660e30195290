"""What agents did and decided, searchable for good (ACTIVITY-01..08). The rows are those of the audit log."""

from typing import Annotated

from fastapi import Depends, Query, Response
from pydantic import AwareDatetime
from sqlalchemy.ext.asyncio import AsyncSession

from api.deps import AgentOrService, Db, OnlyOnce, Pagination, Reader
from api.routing import router
from models.contracts.missions import Named
from models.domain.decisions import without_words
from models.domain.events import Subject
from models.domain.refusals import require_order
from models.schemas.activity import ActivityStatus, ActivityView, AgentDecision
from models.schemas.envelope import Page, Success
from models.schemas.events import content_of
from models.schemas.pagination import PageRequest
from models.store import activity
from models.tables.audit import AuditRow

routes = router("activity")
Newest = Annotated[PageRequest, Depends(Pagination("timestamp", default="-timestamp"))]


@routes.get("/activity")
async def list_activity(
    call: Reader,
    db: Db,
    page: Newest,
    agent_id: Annotated[Named | None, Query(description="By name or id.")] = None,
    workspace_id: str | None = None,
    status: ActivityStatus | None = None,
    action: str | None = None,
    since: Annotated[AwareDatetime | None, Query(alias="from")] = None,
    until: Annotated[AwareDatetime | None, Query(alias="to", description="Before this moment.")] = None,
) -> Success[Page[ActivityView]]:
    """List what agents did, the newest first. An agent sees of decisions those that it may read."""
    require_order(since, until, ("from", "to"))
    filters = {"agent_id": agent_id, "status": status, "action": action}
    if workspace_id not in (None, call.workspace_id):  # what a key does not open is empty for it
        return Success(data=Page(items=[]))
    async with db.workspace(call.workspace_id) as session:
        reader = call.principal.own_agent
        found = await activity.list_page(session, call.workspace_id, filters, page, since, until, reader)
    views = [_view(row) for row in found.rows]
    if reader:
        views = [_without_words(view) for view in views]
    return Success(data=Page(items=views, next_cursor=found.next_cursor))


@routes.post("/activity", status_code=201, response_model=Success[ActivityView])
async def record_decision(made: AgentDecision, call: AgentOrService, once: OnlyOnce) -> Response:
    """Record what an agent decided: input, reasoning and output. An agent tells of itself, a service of any agent."""

    async def record(session: AsyncSession) -> ActivityView:
        return _view(await activity.record(session, call.workspace_id, made, call.principal.own_agent, call.actor))

    return await once.commit(record)


def _without_words(view: ActivityView) -> ActivityView:
    return view.model_copy(update={"metadata": view.metadata and without_words(view.action, view.metadata)})


def _view(row: AuditRow) -> ActivityView:
    return ActivityView(
        id=row.id,
        timestamp=row.created_at,
        agent_id=row.agent_id or "",
        workspace_id=row.workspace_id,
        action=row.action,
        status=_status(row.status),
        metadata=None if row.content is None else content_of(row.content),
        subject=Subject.kept(row.subject_kind, row.subject_id),
        correlation_id=row.correlation_id,
    )


def _status(word: str | None) -> ActivityStatus | None:
    """Read how an act went; a word of a newer version, which is none of ours, says nothing."""
    return ActivityStatus(word) if word in set(ActivityStatus) else None
