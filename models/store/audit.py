"""The audit log as its readers see it. Its rows are written by Postgres itself, with the event of each act."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.audit import COMMITTED
from models.domain.errors import Conflict
from models.domain.refusals import missing
from models.schemas.pagination import PageRequest
from models.store import lists, pagination
from models.store.database import mark_events
from models.store.events import Actor
from models.store.pagination import Rows
from models.tables.audit import AuditLeaf, AuditRow


async def list_page(
    session: AsyncSession,
    workspace_id: str,
    filters: Mapping[str, object],
    page: PageRequest,
    since: datetime | None = None,
    until: datetime | None = None,
    *only: ColumnElement[bool],
) -> Rows[AuditRow]:
    """Read one page of rows, of those from `since` on and before `until`."""
    statement = lists.matching(AuditRow, workspace_id, filters).where(*only)
    if since is not None:
        statement = statement.where(col(AuditRow.created_at) >= since)
    if until is not None:
        statement = statement.where(col(AuditRow.created_at) < until)
    return await pagination.fetch(session, statement, (col(AuditRow.created_at), col(AuditRow.id)), page)


async def require(session: AsyncSession, workspace_id: str, row_id: int) -> AuditRow:
    """Read a row that must be there."""
    found = await session.get(AuditRow, (workspace_id, row_id))
    if found is None:
        raise missing("audit row", row_id)
    return found


async def require_sealed(session: AsyncSession, workspace_id: str, row_id: int) -> tuple[dict[str, Any], AuditLeaf]:
    """Read what a row's leaf commits to, and its leaf; raises `Conflict` where it is not sealed yet."""
    row = await require(session, workspace_id, row_id)
    statement = select(AuditLeaf).where(AuditLeaf.workspace_id == workspace_id, AuditLeaf.id == row_id)
    leaf = (await session.scalars(statement)).one_or_none()
    if leaf is None:
        raise Conflict("audit_not_sealed", "the row is not sealed yet: ask again in a few seconds")
    at = row.created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    known = row.model_dump() | {"seq": leaf.seq, "at": at, "digest": row.digest.hex()}
    return {name: known[name] for name in COMMITTED}, leaf


async def redact(session: AsyncSession, workspace_id: str, row_id: int, reason: str, actor: Actor) -> AuditRow:
    """Remove what a row says, and its salt; its leaf stays, and an audit row tells who did it and why.

    Raises:
        NotFound: no such row.
        Conflict: `already_redacted`.
    """
    await require(session, workspace_id, row_id)
    values = {"id": row_id, "who": actor.name, "correlation": actor.correlation_id, "why": reason}
    if not (await session.execute(_REDACT, values)).scalar_one():
        raise Conflict("already_redacted", "the content of this row is gone already")
    mark_events(session)
    session.expire_all()
    return await require(session, workspace_id, row_id)


_REDACT = text("SELECT mc_redact_audit(:id, :who, :correlation, :why)")
