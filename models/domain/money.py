"""Dollars as they are taken, kept and shown, always exact."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo

SCALE = 9
"""Decimals of a dollar: a token's price, given per million with three decimals, needs no rounding."""


ROUNDED = "rounded"
"""Where the context of a validation holds those numbers of a body that are not what the body says."""


def written(amount: Decimal) -> str:
    """Write dollars without an exponent, and nothing as 0, however many decimals it was computed with."""
    return f"{_to_scale(amount):f}" if amount else "0"


def _to_scale(amount: Decimal) -> Decimal:
    """Leave out zeros behind the last decimal that a ledger keeps; what is more than zeros stays as it is."""
    sign, digits, exponent = amount.as_tuple()
    surplus = -SCALE - exponent if isinstance(exponent, int) else 0  # else it is infinite, or no number
    if surplus <= 0 or any(digits[-surplus:]):
        return amount
    return Decimal((sign, digits[:-surplus], -SCALE))


def _plainly(given: Any, info: ValidationInfo) -> Decimal:
    """Refuse what Python reads as a number and people may read as another: `1_000`, `1e3`, digits of other scripts."""
    if isinstance(given, float):
        if given in (info.context or {}).get(ROUNDED, ()):
            raise ValueError("no number in JSON holds so many digits: send it as a text")
        return _to_scale(Decimal(str(given)))
    is_number = isinstance(given, int | Decimal) and not isinstance(given, bool)
    if is_number or (isinstance(given, str) and _PLAIN.fullmatch(given)):
        return _to_scale(Decimal(given))
    raise ValueError("give dollars in plain decimals, such as 1250.50")


_PLAIN = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")
_GIVEN = BeforeValidator(_plainly)
Signed = Annotated[Decimal, Field(max_digits=18, decimal_places=SCALE, allow_inf_nan=False), _GIVEN]
Kept = Annotated[Decimal, Field(ge=0, max_digits=18, decimal_places=SCALE, allow_inf_nan=False)]
"""As the product itself wrote them, which spells very small ones with an exponent."""
Usd = Annotated[Kept, _GIVEN]
"""As requests give them."""
Dollars = Annotated[Decimal, PlainSerializer(written, return_type=str, when_used="json")]
"""As answers show them."""
