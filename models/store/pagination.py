"""Pages of a list by keyset: as fast on the last page as on the first, and each row exactly once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import ColumnElement, Select, literal, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from models.schemas.pagination import PageRequest, invalid_cursor

Row = TypeVar("Row")


@dataclass(frozen=True)
class Rows(Generic[Row]):
    """The rows of one page, and the cursor of the next if there is one."""

    rows: list[Row]
    next_cursor: str | None


async def fetch(
    session: AsyncSession, statement: SelectOfScalar[Row], keys: Sequence[Any], page: PageRequest
) -> Rows[Row]:
    """Read one page of a select of one table's rows.

    `keys` are the table's columns of the order: the sorted field first, last one that is unique in the workspace; none
    may be null. An index on `(workspace_id, *keys)` serves both directions.
    """
    found = list(await session.scalars(_cut(statement, keys, page)))
    return _page(found, page, lambda row: [getattr(row, key.key) for key in keys])


async def fetch_columns(
    session: AsyncSession, statement: Select[Any], keys: Sequence[Any], page: PageRequest
) -> Rows[dict[str, Any]]:
    """Read one page of a select of some columns, `keys` among them: without entities it costs half."""
    result = (await session.execute(_cut(statement, keys, page))).mappings()
    return _page([dict(row) for row in result], page, lambda row: [row[key.key] for key in keys])


def _cut(statement: Any, keys: Sequence[Any], page: PageRequest) -> Any:
    """Order a select, begin after the cursor, and end one row after the page: that row tells whether there is more."""
    ordered = statement.order_by(*(key.desc() if page.sort.descending else key.asc() for key in keys))
    if page.after is not None:
        place, last = tuple_(*keys), tuple_(*_values(keys, page.after))
        ordered = ordered.where(place < last if page.sort.descending else place > last)
    return ordered.offset(page.offset or None).limit(page.limit + 1)


def _page(found: list[Row], page: PageRequest, place: Callable[[Row], list[Any]]) -> Rows[Row]:
    rows, more = found[: page.limit], len(found) > page.limit
    return Rows(rows, page.cursor(place(rows[-1])) if more else None)


def _values(keys: Sequence[Any], after: tuple[str | int | float, ...]) -> list[ColumnElement[Any]]:
    """Read the cursor's values as what the columns hold; a forged one is refused, never sent to Postgres."""
    if len(after) != len(keys):
        raise invalid_cursor()
    try:
        parsed = [_type(key).validate_python(value) for key, value in zip(keys, after, strict=True)]
    except ValidationError as error:
        raise invalid_cursor() from error
    return [literal(value, key.type) for key, value in zip(keys, parsed, strict=True)]


def _type(key: Any) -> TypeAdapter[Any]:
    """The column's type as the table declares it; SQLAlchemy's own answer for text is `object`."""
    return TypeAdapter(key.class_.model_fields[key.key].annotation)
