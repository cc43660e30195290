"""Invoices: lines of net amounts, and what they add up to."""

from dataclasses import dataclass
from decimal import Decimal

from invoices.vat import vat


@dataclass(frozen=True)
class Line:
    """One line of an invoice: `net` in cents, `rate` in per cent."""

    text: str
    net: int
    rate: Decimal = Decimal(19)


@dataclass(frozen=True)
class Invoice:
    """An invoice; with negative lines, a credit note."""

    number: str
    lines: tuple[Line, ...]

    @property
    def net(self) -> int:
        """The sum before tax."""
        return sum(line.net for line in self.lines)

    @property
    def tax(self) -> int:
        """The tax: one rounding per rate, on the sum of that rate's lines, as the law asks."""
        sums: dict[Decimal, int] = {}
        for line in self.lines:
            sums[line.rate] = sums.get(line.rate, 0) + line.net
        return sum(vat(net, rate) for rate, net in sums.items())

    @property
    def total(self) -> int:
        """What is to be paid."""
        return self.net + self.tax

    def credit_note(self, number: str) -> "Invoice":
        """Return the note that takes this invoice back."""
        return Invoice(number, tuple(Line(line.text, -line.net, line.rate) for line in self.lines))
