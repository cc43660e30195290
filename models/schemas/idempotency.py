"""The key under which a request is done at most once."""

from typing import Annotated

from pydantic import AfterValidator, Field

from models.domain import spellings


def _fits_a_path(key: str) -> str:
    if "/" in key or key in (".", ".."):
        raise ValueError("an idempotency key holds no '/', and is neither '.' nor '..': paths could not name it")
    return key


IdempotencyKey = Annotated[
    str, Field(min_length=1, max_length=255, pattern=spellings.IDEMPOTENCY_KEY), AfterValidator(_fits_a_path)
]
"""Printable ASCII. It may become the id of what it makes, as the `cost_id` of a reservation, which paths name."""
