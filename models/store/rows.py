"""Writing columns of one row."""

from typing import Any, TypeVar

from sqlalchemy import inspect, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel

Row = TypeVar("Row", bound=SQLModel)


async def set_columns(session: AsyncSession, row: Row, **values: Any) -> Row:
    """Write columns of a row that was read; a new object, the old one keeps what it was."""
    session.expunge(row)
    table = type(row)
    place = [column == getattr(row, column.key) for column in inspect(table).primary_key]
    return (await session.scalars(update(table).where(*place).values(**values).returning(table))).one()
