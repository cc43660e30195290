"""Totals of invoices and credit notes, in whole cents."""
