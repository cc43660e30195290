"""The one shape of every JSON answer (API-02, API-03), and the base of every request body."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from models.contracts.wire import BOTH_CASES
from models.domain.names import is_seen

T = TypeVar("T")


def _seen(text: str) -> str:
    if not any(map(is_seen, text)):
        raise ValueError("say it in words: there is nothing to read")
    return text


Said = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000), AfterValidator(_seen)]
"""A person's words about an act; blanks, and what cannot be seen, are none."""


@dataclass(frozen=True)
class Bounds:
    """How much a request's body may hold: reading it, and telling all that is wrong with it, holds up everybody."""

    bytes: int = 1024 * 1024
    values: int = 10_000
    """Members of objects and items of arrays, more or less."""


class Body(BaseModel):
    """Base of request bodies: unknown keys refused, snake_case and camelCase taken."""

    bounds: ClassVar[Bounds] = Bounds()
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=BOTH_CASES)


VARIANT = "variant:"
"""Before the tags of a body that may be one of several models: they are no fields, and no path names them."""


class Success(BaseModel, Generic[T]):
    """What a request that worked is answered."""

    success: Literal[True] = True
    data: T


class ErrorBody(BaseModel):
    """Why it did not work: `code` is stable, `message` says what to do next, `requestId` finds it in the logs."""

    code: str
    message: str
    requestId: str  # API-02 spells it so
    details: dict[str, Any] | None = None


class Failure(BaseModel):
    """What a request that did not work is answered."""

    success: Literal[False] = False
    error: ErrorBody


class Page(BaseModel, Generic[T]):
    """One page of a list. `next_cursor` is null on the last page."""

    items: list[T]
    next_cursor: str | None = Field(default=None, description="Pass as `cursor` to get the next page.")
