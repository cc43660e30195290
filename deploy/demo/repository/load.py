"""A month of invoices, added up: what the pipeline runs as its stress test."""

from decimal import Decimal

from invoices.invoice import Invoice, Line


def main() -> None:
    """Add up 2,000 invoices and check that crediting them all leaves nothing."""
    rest = 0
    for number in range(2_000):
        lines = tuple(Line("item", 199 + 7 * number * k % 5_000, Decimal(19 if k % 2 else 7)) for k in range(5))
        invoice = Invoice(f"2026-{number:05d}", lines)
        rest += invoice.total + invoice.credit_note(f"C-{number:05d}").total
    if rest:
        raise SystemExit(f"{rest} cents are left over")


if __name__ == "__main__":
    main()
