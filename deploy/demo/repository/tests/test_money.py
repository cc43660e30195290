import unittest

from invoices.money import parse, show


class MoneyTest(unittest.TestCase):
    def test_reads_what_it_writes(self) -> None:
        for cents in (0, 5, 100, -123_456, 98_765_432_10):
            self.assertEqual(parse(show(cents)), cents)

    def test_writes_thousands(self) -> None:
        self.assertEqual(show(123_456), "1,234.56")

    def test_refuses_what_is_no_amount(self) -> None:
        for text in ("", "12.3", "1,23.00", "twelve"):
            with self.assertRaises(ValueError):
                parse(text)
