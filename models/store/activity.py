"""The activity of agents: the rows of the audit log that are theirs, and the decisions that they record."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, or_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from models.domain.decisions import QUESTION
from models.domain.errors import InvalidInput, NotPermitted
from models.domain.events import EventType
from models.schemas.activity import AgentDecision
from models.schemas.pagination import PageRequest
from models.store import agents, audit, decisions, runs
from models.store.events import Actor
from models.store.pagination import Rows
from models.tables.audit import AuditRow


async def list_page(
    session: AsyncSession,
    workspace_id: str,
    filters: Mapping[str, object],
    page: PageRequest,
    since: datetime | None = None,
    until: datetime | None = None,
    reader: str | None = None,
) -> Rows[AuditRow]:
    """Read one page of what agents did, from `since` on and before `until`; of questions those `reader` may read."""
    only: list[ColumnElement[bool]] = [col(AuditRow.agent_id).is_not(None)]
    if reader is not None:
        own = decisions.of_agent(workspace_id, reader)
        only.append(or_(col(AuditRow.subject_kind) != QUESTION, col(AuditRow.subject_id).in_(own)))
    filters = {**filters, "agent_id": await agents.name_of(session, workspace_id, filters.get("agent_id"))}
    return await audit.list_page(session, workspace_id, filters, page, since, until, *only)


async def record(
    session: AsyncSession, workspace_id: str, made: AgentDecision, own: str | None, actor: Actor
) -> AuditRow:
    """Keep what an agent decided. The agent `own` records its own decisions only, also as far as runs go.

    Raises:
        InvalidInput: `agent_required`.
        NotFound: `agent_not_found`, `run_not_found`.
        NotPermitted: `own_activity_only`.
    """
    if (agent := made.agent_id or own) is None:
        raise InvalidInput("agent_required", "say which agent decided: `agent_id`")
    known = await agents.require(session, workspace_id, agent)
    if own not in (None, known.name):
        raise NotPermitted("own_activity_only", "an agent records its own decisions; leave `agent_id` out")
    if made.run_id:
        await runs.find(session, workspace_id, made.run_id, own)
    data = made.model_dump(exclude_none=True) | {"agent_id": known.name}
    place = await agents.tell(session, known, EventType.AGENT_DECIDED, actor, data)
    return await audit.require(session, workspace_id, place.id)
