"""Dollars as they are taken, kept and shown, always exact."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field, PlainSerializer

SCALE = 9
"""Decimals of a dollar: a token's price, given per million with three decimals, needs no rounding."""


def written(amount: Decimal) -> str:
    """Write dollars without an exponent, and nothing as 0, however many decimals it was computed with."""
    return f"{amount:f}" if amount else "0"


Usd = Annotated[Decimal, Field(ge=0, max_digits=18, decimal_places=SCALE, allow_inf_nan=False)]
Signed = Annotated[Decimal, Field(max_digits=18, decimal_places=SCALE, allow_inf_nan=False)]
Dollars = Annotated[Decimal, PlainSerializer(written, return_type=str, when_used="json")]
"""As answers show them."""
