"""Pages of a list by keyset: as fast on the last page as on the first, and each row exactly once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import ColumnElement, literal, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel
from sqlmodel.sql.expression import SelectOfScalar

from models.schemas.pagination import PageRequest, invalid_cursor
from models.store.database import Database

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


def cut(rows: Iterable[Row], place: Callable[[Row], tuple[Any, ...]], page: PageRequest) -> Rows[Row]:
    """Take one page of a list that is at hand; `place` is where a row stands in it.

    Raises:
        InvalidInput: `invalid_cursor`, it names no place in such a list.
    """
    ordered, after = sorted(rows, key=place, reverse=page.sort.descending), page.after
    if after is not None:
        try:
            ordered = [row for row in ordered if (place(row) < after if page.sort.descending else place(row) > after)]
        except TypeError:
            raise invalid_cursor() from None
    return _page(ordered[page.offset : page.offset + page.limit + 1], page, lambda row: list(place(row)))


async def fetch_columns(
    db: Database,
    table: type[SQLModel],
    columns: tuple[str, ...],
    scope: Mapping[str, object],
    keys: Sequence[Any],
    page: PageRequest,
) -> Rows[dict[str, Any]]:
    """Read some columns of one page of the rows that have the values of `scope`, `workspace_id` among them.

    For lists that are long and often asked for: without entities, and as one exchange, it costs a quarter of `fetch`.
    """
    names = tuple(key.key for key in keys)
    after = [] if page.after is None else _parsed(keys, page.after)
    statement = _page_of(str(table.__tablename__), columns, tuple(scope), names, page.sort.descending, bool(after))
    values = {**scope, "offset": page.offset, "limit": page.limit + 1}
    values |= {f"after_{name}": value for name, value in zip(names, after, strict=bool(after))}
    found = await db.alone(str(scope["workspace_id"]), statement, values)
    return _page(found, page, lambda row: [row[name] for name in names])


@cache
def _page_of(
    table: str, columns: tuple[str, ...], scope: tuple[str, ...], keys: tuple[str, ...], descending: bool, goes_on: bool
) -> str:
    """Spell out the statement of a page, in psycopg's own form."""
    conditions = [f"{name} = %({name})s" for name in scope]
    if goes_on:
        place = ", ".join(f"%(after_{name})s" for name in keys)
        conditions.append(f"({', '.join(keys)}) {'<' if descending else '>'} ({place})")
    order = ", ".join(f"{name} {'DESC' if descending else 'ASC'}" for name in keys)
    return (
        f"SELECT {', '.join(dict.fromkeys((*columns, *keys)))} FROM {table}"  # noqa: S608  # names of our own columns
        f" WHERE {' AND '.join(conditions)} ORDER BY {order} OFFSET %(offset)s LIMIT %(limit)s"
    )


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
    return [literal(value, key.type) for key, value in zip(keys, _parsed(keys, after), strict=True)]


def _parsed(keys: Sequence[Any], after: tuple[str | int | float, ...]) -> list[Any]:
    """Read the cursor's values as what the columns hold; a forged one is refused, never sent to Postgres."""
    if len(after) != len(keys):
        raise invalid_cursor()
    try:
        return [_type(key).validate_python(value) for key, value in zip(keys, after, strict=True)]
    except ValidationError as error:
        raise invalid_cursor() from error


@cache
def _type(key: Any) -> TypeAdapter[Any]:
    """The column's type as the table declares it; SQLAlchemy's own answer for text is `object`."""
    return TypeAdapter(key.class_.model_fields[key.key].annotation)
