import unittest
from decimal import Decimal

from invoices.invoice import Invoice, Line


class InvoiceTest(unittest.TestCase):
    def setUp(self) -> None:
        self.invoice = Invoice("2026-001", (Line("bread", 300, Decimal(7)), Line("lamp", 10_000)))

    def test_net_is_the_sum_of_lines(self) -> None:
        self.assertEqual(self.invoice.net, 10_300)

    def test_each_rate_is_taxed_by_itself(self) -> None:
        self.assertEqual(self.invoice.tax, 21 + 1_900)

    def test_total_is_net_and_tax(self) -> None:
        self.assertEqual(self.invoice.total, 12_221)

    def test_credit_note_takes_everything_back(self) -> None:
        odd = Invoice("2026-002", (Line("pen", 1_999), Line("book", 1_250, Decimal(5))))
        self.assertEqual(odd.total + odd.credit_note("2026-003").total, 0)
