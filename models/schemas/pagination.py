"""What a list is asked for: how much of it, from where, in which order (API-04, API-06)."""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.domain.errors import InvalidInput

DEFAULT_LIMIT, MAX_LIMIT = 50, 200
MAX_OFFSET = 10_000
"""Postgres reads and drops every row before an offset; a cursor goes as deep as one likes."""


@dataclass(frozen=True)
class Sort:
    """A field to sort by. It must be one that is never null, or rows would be lost between pages."""

    field: str
    descending: bool = False

    @classmethod
    def parse(cls, value: str) -> "Sort":
        """Read `created_at` or `-created_at`."""
        return cls(value.removeprefix("-"), value.startswith("-"))

    def __str__(self) -> str:
        return f"-{self.field}" if self.descending else self.field


@dataclass(frozen=True)
class PageRequest:
    """A page as the client asks for it; `after` holds the sort values of the last row it saw."""

    limit: int
    sort: Sort
    offset: int = 0
    after: tuple[str | int | float, ...] | None = None

    def cursor(self, values: Sequence[Any]) -> str:
        """Name the place after a row with these sort values; good only for the same order."""
        plain = json.dumps([str(self.sort), *values], default=str, separators=(",", ":"))
        return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def read_cursor(cursor: str, sort: Sort) -> tuple[str | int | float, ...]:
    """Open a cursor.

    Raises:
        InvalidInput: it is not one of ours, or belongs to another order.
    """
    try:
        order, *values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        json.dumps(values, ensure_ascii=False).encode()  # half a character is no text
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise invalid_cursor() from error
    if not all(isinstance(value, str | int | float) for value in (order, *values)):
        raise invalid_cursor()
    if order != str(sort):
        raise InvalidInput("invalid_cursor", f"this cursor is for sort={order}; start again without it", sort=str(sort))
    return tuple(values)


def invalid_cursor() -> InvalidInput:
    """What a cursor that nobody gave out is answered."""
    return InvalidInput("invalid_cursor", "this is no cursor of ours; take next_cursor from the page before, unchanged")
