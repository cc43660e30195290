"""Lists of a workspace's rows, narrowed by what their columns hold."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel, select
from sqlmodel.sql.expression import SelectOfScalar

from models.schemas.pagination import PageRequest
from models.store import pagination
from models.store.pagination import Rows

Row = TypeVar("Row", bound=SQLModel)


async def fetch(
    session: AsyncSession,
    table: type[Row],
    workspace_id: str,
    filters: Mapping[str, object],
    keys: Sequence[Any],
    page: PageRequest,
) -> Rows[Row]:
    """Read one page of the rows whose columns equal the filters; a filter that is None was not given."""
    return await pagination.fetch(session, matching(table, workspace_id, filters), keys, page)


def matching(table: type[Row], workspace_id: str, filters: Mapping[str, object]) -> SelectOfScalar[Row]:
    """Select a workspace's rows whose columns equal the filters."""
    return select(table).where(*conditions(table, workspace_id, filters))


def conditions(table: type[Row], workspace_id: str, filters: Mapping[str, object]) -> list[ColumnElement[bool]]:
    """Find a workspace's rows whose columns equal the filters, as the conditions of a WHERE clause."""
    return [getattr(table, name) == value for name, value in wanted(workspace_id, filters).items()]


def wanted(workspace_id: str, filters: Mapping[str, object]) -> dict[str, object]:
    """The values that columns must have: the workspace, and the filters that were given."""
    return {"workspace_id": workspace_id} | {name: value for name, value in filters.items() if value is not None}
