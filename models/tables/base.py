"""Column shapes that the tables share. Every row carries its workspace, and every key begins with it."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from sqlalchemy import BigInteger, DateTime, ForeignKeyConstraint, LargeBinary, Numeric, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

__all__ = [
    "Json",
    "JsonList",
    "SQLModel",
    "Time",
    "big",
    "binary",
    "json",
    "key",
    "names",
    "no",
    "now",
    "score",
    "time",
    "words",
    "yes",
]

Json = dict[str, Any]
JsonList = list[Any]
Time = Annotated[datetime, "timestamptz"]


def key(**options: Any) -> Any:
    """Declare a part of the primary key."""
    return Field(primary_key=True, **options)


def names(table: str, column: str, key: str | None = None) -> tuple[ForeignKeyConstraint]:
    """Declare that `column` names a row of `table`, in the same workspace; for `__table_args__`."""
    of = f"{table}.{key or column}"
    return (ForeignKeyConstraint(["workspace_id", column], [f"{table}.workspace_id", of]),)


def json(default: str | None = None, *, nullable: bool = False) -> Any:
    """Declare a JSONB column; `default` is what the server fills in, as JSON text."""
    server = {"server_default": text(f"'{default}'::jsonb")} if default else {}
    return Field(default=None, sa_type=JSONB(none_as_null=True), nullable=nullable, sa_column_kwargs=server)


def no() -> Any:
    """Declare a flag that the server leaves down where nothing is said."""
    return Field(default=False, sa_column_kwargs={"server_default": text("false")})


def yes() -> Any:
    """Declare a flag that the server raises where nothing is said."""
    return Field(default=True, sa_column_kwargs={"server_default": text("true")})


def words(default: str) -> Any:
    """Declare a text column that the server fills in where nothing is said."""
    return Field(default=default, sa_column_kwargs={"server_default": text(f"'{default}'")})


def score(default: str | None = None) -> Any:
    """Declare a number from 0 to 1 in hundredths; `default` is what the server fills in."""
    server = {"server_default": text(default)} if default else {}
    return Field(default=default and Decimal(default), sa_type=Numeric(3, 2), nullable=False, sa_column_kwargs=server)


def time(*, nullable: bool = True, **options: Any) -> Any:
    """Declare a `timestamptz`."""
    return Field(default=None, sa_type=DateTime(timezone=True), nullable=nullable, sa_column_kwargs=options)


def now() -> Any:
    """Declare a `timestamptz` that the database's clock fills."""
    return Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": text("now()")},
    )


def binary() -> Any:
    """Declare a `bytea`."""
    return Field(sa_type=LargeBinary, nullable=False)


def big(*, primary_key: bool = False, default: Any = None) -> Any:
    """Declare a `bigint`."""
    return Field(default=default, sa_type=BigInteger, nullable=False, primary_key=primary_key)
