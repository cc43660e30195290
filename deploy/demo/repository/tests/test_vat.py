import unittest
from decimal import Decimal

from invoices.vat import vat


class VatTest(unittest.TestCase):
    def test_whole_cents_need_no_rounding(self) -> None:
        self.assertEqual(vat(10_000, Decimal(19)), 1_900)

    def test_rounds_to_the_nearest_cent(self) -> None:
        self.assertEqual(vat(1_999, Decimal(19)), 380)  # 379.81

    def test_rounds_half_a_cent_away_from_zero(self) -> None:
        self.assertEqual(vat(1_250, Decimal(5)), 63)  # 62.5
        self.assertEqual(vat(-1_250, Decimal(5)), -63)

    def test_nothing_is_taxed_nothing(self) -> None:
        self.assertEqual(vat(0, Decimal(19)), 0)
