"""Value-added tax."""

from decimal import Decimal


def vat(net: int, rate: Decimal) -> int:
    """Return the tax on `net` cents at `rate` per cent, rounded to a whole cent, half a cent away from zero."""
    return int(net * rate / 100)
