"""Cents as people write them."""

import re

_AMOUNT = re.compile(r"(-?)(\d{1,3}(?:,\d{3})*|\d+)(?:\.(\d\d))?")


def parse(text: str) -> int:
    """Read `1,234.56` as cents; raises ValueError for anything else."""
    found = _AMOUNT.fullmatch(text.strip())
    if not found:
        raise ValueError(f"not an amount: {text!r}")
    sign, whole, cents = found.groups()
    amount = int(whole.replace(",", "")) * 100 + int(cents or 0)
    return -amount if sign else amount


def show(cents: int) -> str:
    """Write cents as `1,234.56`."""
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100:,}.{abs(cents) % 100:02d}"
